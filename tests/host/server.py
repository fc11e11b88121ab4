"""A real ComfyUI server in a process of its own, with this checkout in its custom_nodes, spoken to over HTTP.

Nothing here needs pytest.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`with Server(tree, base, checkpoint) as server:`; `checkpoint` becomes available to the stock loader.

    Args:
        tree: ComfyUI's folder.
        base: Its base directory: input/, output/, models/, and custom_nodes/ with the pack in it.
        checkpoint: A file to offer under models/checkpoints.
        options: More of ComfyUI's own command-line options.
    """

    def __init__(self, tree, base, checkpoint=None, options=()):
        self.tree, self.base, self.port, self.options = Path(tree), Path(base), free_port(), options
        self.log = self.base / "server.log"
        for folder in ("input", "output", "temp", "user", "models/checkpoints", "custom_nodes"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        if checkpoint is not None:
            self._offer(Path(checkpoint))

    def _offer(self, checkpoint):
        place = self.base / "models/checkpoints" / checkpoint.name
        try:
            place.unlink(missing_ok=True)  # from a server that ran here before
            os.link(checkpoint, place)
        except OSError:  # another file system
            shutil.copy(checkpoint, place)

    @property
    def url(self):
        """The server's address, with the closing slash."""
        return f"http://127.0.0.1:{self.port}/"

    def __enter__(self):
        command = [sys.executable, str(ROOT / ".ci/serve.py"), str(self.tree), "--cpu", "--port", str(self.port)]
        command += ["--listen", "127.0.0.1", "--base-directory", str(self.base), "--disable-api-nodes"]
        command += ["--database-url", "sqlite:///:memory:", *self.options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._wait_until_up(180)
            self._look_for_broken_packs()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait_until_up(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with code {self.process.returncode}:\n{self.tail()}")
            try:
                self.get("system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        raise TimeoutError(f"the server was not up after {seconds} s:\n{self.tail()}")

    def _look_for_broken_packs(self):
        text = self.log.read_text(encoding="utf-8", errors="replace")
        if f"(IMPORT FAILED): {self.base}" in text:
            start = text.rfind("Traceback", 0, text.find(f"Cannot import {self.base}"))
            raise RuntimeError(f"ComfyUI could not load the pack:\n{text[start:][:4000]}")

    def tail(self, lines=60):
        """The last lines of the server's log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def read(self, path, data=None):
        """Bytes of a GET, or of a POST of JSON."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.read()

    def get(self, path):
        """JSON of a GET."""
        return json.loads(self.read(path))

    def post(self, path, data):
        """JSON of a POST of JSON."""
        return json.loads(self.read(path, data) or b"null")

    def run(self, prompt, seconds=300):
        """Queue a prompt in API form and wait: its entry of /history."""
        number = self.post("prompt", {"prompt": prompt})["prompt_id"]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            history = self.get(f"history/{number}")
            if history.get(number, {}).get("status", {}).get("completed") is not None:
                return history[number]
            time.sleep(0.3)
        raise TimeoutError(f"the prompt was not done after {seconds} s:\n{self.tail()}")
