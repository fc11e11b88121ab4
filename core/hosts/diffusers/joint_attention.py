"""Reads the text columns of joint attention: the first scaled-dot-product attention inside an announced module."""

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
        cells: Image tokens.
        text_first: Whether the text's tokens stand before the image's.
    """

    def __init__(self, cells: int, *, text_first: bool) -> None:
        super().__init__()
        self._cells, self._text_first = cells, text_first
        self._read: Callable[[Tensor], None] | None = None

    def announce(self, module: nn.Module, read: Callable[[Tensor], None]) -> Callable[[], None]:
        """Give the logits [rows, heads, cells, tokens] of this module's first attention to ``read``.

        Returns:
            What takes it back.
        """

        def before(module: nn.Module, args: Any) -> None:
            self._read = read

        return module.register_forward_pre_hook(before).remove

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every torch function call while this is entered."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and self._read is not None:
            read, self._read = self._read, None
            given = dict(zip(("query", "key"), args, strict=False)) | kwargs
            read(self._logits(given["query"], given["key"]))
        return func(*args, **kwargs)

    def _logits(self, q: Tensor, k: Tensor) -> Tensor:
        image, text = slice(None, self._cells), slice(self._cells, None)
        if self._text_first:
            tokens = q.shape[2] - self._cells
            image, text = slice(tokens, None), slice(None, tokens)
        return q[:, :, image].float() @ k[:, :, text].float().transpose(-1, -2) * q.shape[-1] ** -0.5
