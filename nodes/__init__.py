"""ComfyUI nodes: widgets only. One file per story; this list is the whole pack."""

from comfy_api.latest import ComfyExtension, io


class LatentCriticExtension(ComfyExtension):
    """Everything that ComfyUI loads from this pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The explicit list of nodes."""
        return []


async def comfy_entrypoint() -> ComfyExtension:
    """ComfyUI's door into the pack."""
    return LatentCriticExtension()
