"""``latent-critic run-workflow``: a workflow through a ComfyUI that runs, or through one started for it."""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, UnreadableFile
from .arguments import DASH, Subparsers, add_json, check_targets, command

if TYPE_CHECKING:
    from .comfy_client import ComfyClient

DEFAULT_SERVER = "http://127.0.0.1:8188"


@dataclass(frozen=True, slots=True)
class WorkflowRequest:
    """One run of one workflow.

    Attributes:
        workflow: The file, in API form or as the frontend saves it.
        server: A ComfyUI that runs.
        comfyui: A ComfyUI folder to start instead.
        options: Options for the ComfyUI that is started.
        python: The interpreter for it; this one when ``None``.
        out: Where its files go; ``None`` fetches none.
        json: Where the scores go as JSON.
    """

    workflow: Path
    server: str = DEFAULT_SERVER
    comfyui: Path | None = None
    options: tuple[str, ...] = ()
    python: str | None = None
    out: Path | None = None
    json: str | None = None

    def __post_init__(self) -> None:
        check_targets(self.json)
        if self.options and self.comfyui is None:
            raise BadInput("--comfyui DIR with --comfyui-option", "no DIR", "A server that runs takes no options.")


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(
        subparsers,
        "run-workflow",
        "run a ComfyUI workflow and print its scores",
        "Takes a workflow in API form, or as ComfyUI saves it.",
    )
    parser.add_argument("workflow", metavar="WORKFLOW.json")
    parser.add_argument("--server", default=DEFAULT_SERVER, metavar="URL", help=f"default: {DEFAULT_SERVER}")
    parser.add_argument("--comfyui", metavar="DIR", help="start the ComfyUI in DIR without a window instead")
    parser.add_argument(
        "--comfyui-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option for the ComfyUI that is started, as in --comfyui-option=--cpu; may be repeated",
    )
    parser.add_argument("--python", metavar="EXE", help="the Python that runs it (default: this one)")
    parser.add_argument("--out", metavar="DIR", help="download the files that the workflow makes")
    add_json(parser, "{node: scores}")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send, wait, print, fetch."""
    from .comfy_client import failure_of, scores_of
    from .console import note

    request = WorkflowRequest(
        Path(arguments.workflow),
        arguments.server,
        Path(arguments.comfyui) if arguments.comfyui else None,
        tuple(arguments.comfyui_option),
        arguments.python,
        Path(arguments.out) if arguments.out else None,
        arguments.json,
    )
    workflow = _read(request.workflow)
    with _server(request) as client:
        entry, left_out = _run(client, workflow)
        saved = client.download(entry, request.out) if request.out else []
    _tell(scores_of(entry), request.json)
    for path in saved:
        note(f"wrote {path}")
    failure = failure_of(entry)
    if failure is not None:
        note(f"latent-critic: the workflow failed: {failure}")
    if left_out:
        note(f"latent-critic: ComfyUI left out what these nodes feed: {left_out}")
    return 1 if failure or left_out else 0


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        got = "no such file" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"
        raise UnreadableFile(f"a workflow (JSON) at {path}", got, "Export it again from ComfyUI.") from error


def _server(request: WorkflowRequest) -> AbstractContextManager[ComfyClient]:
    from .comfy_client import ComfyClient
    from .comfy_server import headless
    from .console import note

    if request.comfyui is None:
        return nullcontext(ComfyClient(request.server))
    note(f"starting ComfyUI in {request.comfyui}")
    return headless(request.comfyui, request.options, request.python)


def _run(client: ComfyClient, workflow: Any) -> tuple[dict[str, Any], str]:
    """The prompt's entry of the history, and what ComfyUI left out of it."""
    from .console import note
    from .workflow_form import is_api_form, to_api_form

    prompt = to_api_form(workflow, client.get("/object_info"))
    prompt_id, left_out = client.submit(prompt, None if is_api_form(workflow) else {"workflow": workflow})
    note(f"queued {len(prompt)} nodes as {prompt_id}")
    try:
        return client.wait(prompt_id), left_out
    except KeyboardInterrupt:
        client.stop(prompt_id)
        raise


def _tell(scores: dict[str, list[dict[str, Any]]], target: str | None) -> None:
    from ..selection.policy import numeral
    from .console import say, table
    from .results import write_json

    write_json(scores, target)
    if target == DASH:
        return
    if not scores:
        say("The workflow reported no scores.")
    for node, rows in scores.items():
        say(f"node {node}:")
        cells = [["rank", "index", "score", "kept", "name or reason"]]
        for row in rows:
            rank, kept = row.get("rank"), row.get("kept")
            cells.append(
                [
                    "–" if rank is None else str(rank),
                    str(row.get("index", "")),
                    "–" if row["score"] is None else numeral(row["score"]),
                    "" if kept is None else "kept" if kept else "rejected",
                    str(row.get("name") or row.get("reason") or ""),
                ]
            )
        say(table(cells, right=[0, 1, 2]))
