"""Models that were given to ``torch.compile``: a judge runs their own modules, as they are without it.

Compiled code does not call the hooks that taps hang on, and would be compiled anew for every size and every set of
taps. The numbers are the same up to rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uncompiled() -> Iterator[None]:
    """Whatever was compiled, or would be when it is called, runs as it was written until the block ends."""
    if "torch._dynamo" not in sys.modules:  # nothing can have been compiled, and importing it takes seconds
        yield
        return
    import torch

    if not hasattr(torch.compiler, "set_stance"):  # before PyTorch 2.6
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def original(module: Any) -> Any:
    """The module inside the wrapper that ``torch.compile`` puts around one; any other module is its own."""
    return getattr(module, "_modules", {}).get("_orig_mod", module)
