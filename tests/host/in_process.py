"""A real ComfyUI inside the test process: its modules on the path, its nodes registered, its executor run.

One interpreter holds one ComfyUI. Nothing here needs pytest.
"""

import asyncio
import importlib
import sys
import types
import uuid
import warnings
from dataclasses import dataclass, field
from pathlib import Path


def import_comfyui(folder, base_directory, cpu=True, flags=()):
    """Put ComfyUI first on the path and import it, on the CPU, with flags of its own. Returns the module `nodes`.

    The repository's own folders `nodes` and `core` must not be found under those names, so its root leaves the path.
    """
    root = Path(__file__).resolve().parents[2]
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != root]
    sys.path.insert(0, str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's import-time warnings
        import comfy.options

        comfy.options.enable_args_parsing(False)
        from comfy.cli_args import args

        args.cpu = cpu
        for flag in flags:
            setattr(args, flag.replace("-", "_"), True)
        args.base_directory = str(base_directory)
        args.database_url = "sqlite:///:memory:"
        args.disable_api_nodes = True
        for name in ("utils.install_util", "server"):  # before nodes, which puts comfy/ on the path and shadows utils
            importlib.import_module(name)
        nodes = importlib.import_module("nodes")
        asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    return nodes


def load_pack(nodes, folder):
    """Load a custom-node folder as ComfyUI does at start-up; returns the module it made."""
    if not asyncio.run(nodes.load_custom_node(str(folder))):
        raise RuntimeError(f"ComfyUI could not load {folder}: see the log above")
    return sys.modules[str(folder).replace(".", "_x_")]


@dataclass
class Run:
    """What one prompt gave.

    Attributes:
        success: Whether every output node ran.
        outputs: Node id → its `ui` result, as in /history.
        kept: Values that arrived at TestKeep nodes, by name: a list, because a node may run once per list item.
        messages: The executor's status messages, (kind, data).
        invalid: What validation found wrong, when the prompt never ran.
    """

    success: bool = False
    outputs: dict = field(default_factory=dict)
    kept: dict = field(default_factory=dict)
    messages: list = field(default_factory=list)
    invalid: object = None

    @property
    def error(self):
        """The first error's text, or an empty string."""
        for kind, data in self.messages:
            if kind == "execution_error":
                return f"{data['exception_type']}: {data['exception_message']}"
        return str(self.invalid) if self.invalid else ""

    @property
    def cached(self):
        """Ids of the nodes that did not run because their result was cached."""
        return {node for kind, data in self.messages if kind == "execution_cached" for node in data["nodes"]}


class Executor:
    """ComfyUI's PromptExecutor; results stay cached between runs of the same instance."""

    def __init__(self):
        import execution

        stub = types.SimpleNamespace(
            client_id=None, last_node_id=None, last_prompt_id=None, sockets_metadata={}, sent=[]
        )
        stub.send_sync = lambda event, data, sid=None: stub.sent.append((event, data))
        self.server = stub
        sizes = {"lru": 0, "ram": 0, "ram_inactive": 0}
        self.executor = execution.PromptExecutor(stub, cache_type=execution.CacheType.CLASSIC, cache_args=sizes)

    def __call__(self, prompt, extra_data=None):
        """Validate and run a prompt in API form."""
        import execution

        keep = importlib.import_module("nodes").NODE_CLASS_MAPPINGS["TestKeep"].kept
        keep.clear()
        number = str(uuid.uuid4())
        valid = asyncio.run(execution.validate_prompt(number, prompt, None))
        if not valid[0]:
            return Run(invalid=(valid[1], valid[3]))
        self.executor.execute(prompt, number, extra_data or {}, valid[2])
        return Run(
            self.executor.success,
            self.executor.history_result.get("outputs", {}),
            dict(keep),
            self.executor.status_messages,
        )
