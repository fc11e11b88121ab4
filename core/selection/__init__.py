"""Who is kept: policies over scores, no torch."""
