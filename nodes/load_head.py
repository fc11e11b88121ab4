"""Load Head: a fitted head from models/quality_heads."""

from __future__ import annotations

from comfy_api.latest import io

from ..core.heads.head import Head
from ..core.heads.head_file import load_head
from ._heads import head_choices, head_path
from ._sockets import CATEGORY_SCORERS, HeadSocket


class LoadHead(io.ComfyNode):
    """A file → LC_HEAD."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticLoadHead",
            display_name="Load Head",
            category=CATEGORY_SCORERS,
            description="Reads a head that Fit Head, Fit Probe Head or latent-critic fit-head made. A head belongs to "
            "the checkpoint that it was fitted on, and is refused on another.",
            inputs=[
                io.Combo.Input(
                    "head",
                    options=head_choices(),
                    tooltip="A file in the folder models/quality_heads, or the one that ships for Load Embedded Model. "
                    "Reload the page after a new one was made.",
                )
            ],
            outputs=[
                HeadSocket.Output("loaded", "head", "The head, for LGDM Scorer, Score From Probe or Quality Heat Map."),
                io.String.Output("about", "about", "What the head was fitted to, and how well it told new pictures."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, head: str | None = None) -> str:
        """Changes when the file is written again; a linked choice comes as ``None``."""
        if head is None:
            return "linked"
        try:
            seen = head_path(head).stat()
        except (OSError, ValueError) as error:
            return str(error)
        return f"{seen.st_mtime_ns} {seen.st_size}"

    @classmethod
    def execute(cls, head: str) -> io.NodeOutput:
        """Read the file."""
        found = load_head(head_path(head))
        text = about(found)
        return io.NodeOutput(found, text, ui={"text": [text]})


def about(head: Head) -> str:
    """What a user should know of a head."""
    meta = head.meta
    scale = f"0 to 100 on {meta.calibrated_on}" if meta.calibrated_on else "ranks images; no absolute scale"
    lines = [
        f"{meta.method}, {meta.kind.replace('_', ' ')}, for {meta.family}: {scale}.",
        f"Fitted to {meta.pictures} pictures of {meta.training_set}.",
    ]
    told = meta.validation
    if "srcc" in told:
        lines.append(
            f"Held-out agreement: SRCC {told['srcc']:.2f} (95 % interval {told['srcc_low']:.2f} to "
            f"{told['srcc_high']:.2f}), PLCC {told['plcc']:.2f}."
        )
    elif "falling" in told:
        lines.append(
            f"Fitted without ratings: {told['falling']:.0%} of steps of damage on held-out pictures lowered the score; "
            "no agreement with people is claimed."
        )
    return "\n".join(lines)
