"""A ComfyUI started without a window for one run, and ended with it."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import BadInput
from .comfy_client import ComfyClient, WorkflowFailed

_LAST_LINES = 12


@contextmanager
def headless(
    folder: Path, options: Sequence[str] = (), python: str | None = None, patience: float = 300.0
) -> Iterator[ComfyClient]:
    """Start ``main.py`` of a ComfyUI folder on a free local port, wait until it answers, end it afterwards.

    Args:
        folder: Where ComfyUI's ``main.py`` lies.
        options: Further options for it, such as ``--cpu``.
        python: The interpreter to run it with; this one when ``None``.
        patience: Seconds to wait for it.

    Raises:
        BadInput: no ComfyUI there.
        WorkflowFailed: it ended or did not answer; the message has the end of its log.
    """
    if not (folder / "main.py").is_file():
        raise BadInput("a ComfyUI folder with main.py", str(folder), "Give --comfyui the folder that holds main.py.")
    client = ComfyClient(f"127.0.0.1:{_free_port()}")
    port = client.url.rsplit(":", 1)[1]
    command = [python or sys.executable, "main.py", "--listen", "127.0.0.1", "--port", port, "--disable-auto-launch"]
    with tempfile.TemporaryFile() as log:
        # A session of its own, so that Ctrl-C reaches us alone and we end the prompt before the server.
        process = subprocess.Popen(
            [*command, *options], cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _await(client, process, log, patience)
            yield client
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await(client: ComfyClient, process: subprocess.Popen[bytes], log: IO[bytes], patience: float) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if process.poll() is not None:
            raise WorkflowFailed("ComfyUI to start", f"exit code {process.returncode}:\n{_tail(log)}", "See its log.")
        try:
            client.get("/system_stats")
        except BadInput:
            time.sleep(0.3)
        else:
            return
    raise WorkflowFailed(f"an answer within {patience:g} s", f"none:\n{_tail(log)}", "Start it by hand, use --server.")


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-_LAST_LINES:])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
