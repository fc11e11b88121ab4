"""Reads the text columns of an attention: the first scaled-dot-product attention inside an announced module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class FirstAttention(TorchFunctionMode):
    """While it is entered, attention calls pass through it; those of announced modules are read on the side.

    Attention that goes through other kernels (flash-attn, xformers, sage) is not seen: the tap stays silent.

    Args:
        rows: The image's queries.
        columns: The text's keys.
    """

    def __init__(self, rows: slice, columns: slice) -> None:
        super().__init__()
        self._rows, self._columns = rows, columns
        self._read: Callable[[Tensor], None] | None = None

    def announce(self, module: nn.Module, read: Callable[[Tensor], None]) -> Callable[[], None]:
        """Give the logits [rows, heads, cells, tokens] of this module's first attention to ``read``.

        Returns:
            What takes it back.
        """

        def before(module: nn.Module, args: Any) -> None:
            self._read = read

        def after(module: nn.Module, args: Any, out: Any) -> None:
            if self._read is read:
                self._read = None  # it went through another kernel; the next module's attention is not its own

        hooks = [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

        def remove() -> None:
            for hook in hooks:
                hook.remove()

        return remove

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every torch function call while this is entered."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and self._read is not None:
            read, self._read = self._read, None
            given = dict(zip(("query", "key"), args, strict=False)) | kwargs
            read(self._logits(given["query"], given["key"]))
        return func(*args, **kwargs)

    def _logits(self, q: Tensor, k: Tensor) -> Tensor:
        image, text = q[:, :, self._rows].float(), k[:, :, self._columns].float()
        return image @ text.transpose(-1, -2) * q.shape[-1] ** -0.5
