"""The built-in judge as nodes use it: its small network placed by ComfyUI's own memory management."""

from ..core.methods.contract import Scorer


def builtin_judge() -> Scorer:
    """A judge that reads the shipped weights."""
    from ..core.methods.judge import Judge

    return Judge.load()
