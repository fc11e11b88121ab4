"""Every score ever given, in one SQLite file."""
