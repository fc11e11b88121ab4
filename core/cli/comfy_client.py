"""A running ComfyUI over HTTP: queue a prompt, wait for it, fetch what it made. Standard library only."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib import error, parse, request

from ..errors import BadInput, LatentCriticError
from ..files import whole_file
from .buckets import free_name

#: How often a running prompt is asked to stop, and how many seconds apart.
_STOPS, _PAUSE_OF_STOPS = 20, 0.5


class WorkflowFailed(LatentCriticError):
    """ComfyUI refused a workflow, or a node of it failed."""


class ComfyClient:
    """One server."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        """``url`` such as http://127.0.0.1:8188; a bare host:port is taken as http."""
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.timeout = timeout

    def get(self, path: str) -> Any:
        """GET → parsed JSON."""
        body = self._ask(path)
        try:
            return json.loads(body)
        except ValueError as failure:
            raise self._no_comfyui(f"no JSON from {path}") from failure

    def post(self, path: str, payload: Mapping[str, Any]) -> Any:
        """POST JSON → parsed JSON, or None for an empty answer."""
        body = self._ask(path, json.dumps(payload).encode())
        return json.loads(body) if body else None

    def submit(self, prompt: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """Queue a prompt in API form; returns its id, and what ComfyUI leaves out of it as invalid ("" for nothing).

        Raises:
            WorkflowFailed: the server finds it invalid; the message names each node and input.
        """
        payload = {"prompt": prompt, "client_id": uuid.uuid4().hex, "extra_data": {"extra_pnginfo": dict(extra or {})}}
        try:
            answer = self.post("/prompt", payload)
        except error.HTTPError as refusal:
            raise WorkflowFailed(
                "a workflow that ComfyUI accepts", _refusal(refusal.read()), "Fix these inputs and run it again."
            ) from refusal
        return str(answer["prompt_id"]), _node_errors(answer)

    def wait(self, prompt_id: str, pause: float = 0.3, watch: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Wait until a prompt is done; returns its entry of the history. ``watch`` is called at every look."""
        while True:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return entry
            watch()
            time.sleep(pause)

    def stop(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, and interrupt it when it is the one that runs.

        Asked again until it is gone: ComfyUI forgets an interrupt that comes while a prompt is just beginning.
        """
        self.post("/queue", {"delete": [prompt_id]})
        for _ in range(_STOPS):
            running = self.get("/queue").get("queue_running", [])
            if not any(prompt_id in item for item in running):
                return
            self.post("/interrupt", {"prompt_id": prompt_id})
            time.sleep(_PAUSE_OF_STOPS)

    def download(self, entry: Mapping[str, Any], folder: Path) -> list[Path]:
        """Fetch every file that a prompt's nodes report; previews go to ``preview/``. Nothing is overwritten."""
        saved = []
        for item in _files(entry):
            query = {"filename": item["filename"], "subfolder": item.get("subfolder", ""), "type": item["type"]}
            content = self._ask(f"/view?{parse.urlencode(query)}")
            inside = folder if item["type"] == "output" else folder / "preview"
            target = free_name(inside / Path(item["filename"].replace("\\", "/")).name)
            with whole_file(target) as temporary:
                temporary.write_bytes(content)
            saved.append(target)
        return saved

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        asked = request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with request.urlopen(asked, timeout=self.timeout) as answer:
                return answer.read()
        except error.HTTPError as refusal:
            if path == "/prompt":
                raise  # its answer says which inputs are wrong
            raise self._no_comfyui(f"HTTP {refusal.code} from {path}") from refusal
        except (OSError, ValueError, HTTPException) as failure:
            raise self._no_comfyui(str(getattr(failure, "reason", failure))) from failure

    def _no_comfyui(self, got: str) -> BadInput:
        return BadInput(f"a ComfyUI server at {self.url}", got, "Start it, or give --comfyui DIR to have one started.")


def failure_of(entry: Mapping[str, Any]) -> str | None:
    """Why a prompt failed, in words; None when it did not."""
    status = entry.get("status", {})
    if status.get("status_str") != "error":
        return None
    for event, data in status.get("messages", []):
        if event == "execution_error":
            kind = str(data.get("exception_type", "")).rsplit(".", 1)[-1]
            words = str(data.get("exception_message", "")).strip()
            return f"node {data.get('node_id')} ({data.get('node_type')}): {kind}: {words}"
        if event == "execution_interrupted":
            return f"interrupted at node {data.get('node_id')} ({data.get('node_type')})"
    return "an error that ComfyUI does not describe; see its log"


def scores_of(entry: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Node id → the rows of scores that our nodes put into their ``ui``."""
    found = {}
    for node, result in entry.get("outputs", {}).items():
        rows = [row for row in result.get("scores", []) if isinstance(row, dict) and "score" in row]
        if rows:
            found[node] = rows
    return found


def _files(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for result in entry.get("outputs", {}).values():
        for items in result.values():
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and {"filename", "type"} <= set(item):
                    yield item


def _refusal(body: bytes) -> str:
    """ComfyUI's answer to an invalid prompt, as one readable text."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip() or "no explanation"
    if not isinstance(answer, dict):
        return str(answer)
    general = answer.get("error") or {}
    words = general.get("message", "") if isinstance(general, dict) else str(general)
    return _node_errors(answer) or words or "no explanation"


def _node_errors(answer: Mapping[str, Any]) -> str:
    parts = []
    for node, found in (answer.get("node_errors") or {}).items():
        for problem in found.get("errors", []):
            details = f": {problem['details']}" if problem.get("details") else ""
            parts.append(f"node {node} ({found.get('class_type')}): {problem.get('message')}{details}")
    return "; ".join(parts)
