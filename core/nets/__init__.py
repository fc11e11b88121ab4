"""Small networks of our own."""
