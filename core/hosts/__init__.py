"""Real models turned into contracts; the only room that imports a host."""
