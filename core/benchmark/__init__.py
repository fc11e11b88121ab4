"""Agreement with people, measured, and speed."""
