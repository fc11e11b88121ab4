"""The command line: arguments, one request dataclass, core."""
