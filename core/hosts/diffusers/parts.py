"""A pipeline's parts, as a backbone found them."""

from __future__ import annotations

from typing import Any

from ...backbone.eager import original
from ...errors import BadInput

_PARTS = (
    "unet", "transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3",
    "tokenizer_3",
)  # fmt: skip


class Parts:
    """Which modules they are, and where they rest.

    Args:
        pipeline: Of diffusers.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline, self._found = pipeline, self._now(pipeline)

    def check(self) -> None:
        """A part that was put into the pipeline later would not be the one that scores.

        Raises:
            BadInput: there is another one.
        """
        changed = [name for name, part in self._now(self._pipeline).items() if part is not self._found[name]]
        if changed:
            expected = "the pipeline's parts as they were when the scorer was made"
            raise BadInput(expected, f"another {', '.join(changed)}", "Make a new scorer of the pipeline.")

    def rest(self) -> None:
        """Under ``enable_model_cpu_offload`` parts go back to where they rest, as after the pipeline's own call."""
        if getattr(self._pipeline, "_all_hooks", None):
            self._pipeline.maybe_free_model_hooks()

    @staticmethod
    def _now(pipeline: Any) -> dict[str, Any]:
        return {name: original(getattr(pipeline, name, None)) for name in _PARTS}
