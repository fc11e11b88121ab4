"""Whether a command runs inside ComfyUI is told by who started it, not by what somebody imported."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from latent_critic.core.cli import inside_comfyui


@pytest.mark.parametrize(("mark", "imported"), [("1", False), ("", True), ("1", True)])
def test_inside_needs_the_mark_and_comfyui(monkeypatch, mark, imported):
    monkeypatch.setenv("LATENT_CRITIC_INSIDE_COMFYUI", mark)
    monkeypatch.delitem(sys.modules, "comfy.cli_args", raising=False)
    if imported:
        monkeypatch.setitem(sys.modules, "comfy.cli_args", ModuleType("comfy.cli_args"))
    assert inside_comfyui.is_inside() == (mark == "1" and imported)
