"""The command line as a whole: quick help, versions, usage errors, the installed command, the registries."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from latent_critic.core.backbone.families import known_families
from latent_critic.core.cli import console, models
from latent_critic.core.cli.main import COMMANDS, main
from latent_critic.core.errors import BadInput, NothingScored, UnreadableFile, UnwritableFile
from safetensors.numpy import save_file

INSTALLED = Path(sys.executable).with_name("latent-critic")


def test_help_names_every_command_and_loads_no_torch(tmp_path):
    code = (
        "import sys\nfrom latent_critic.core.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'scipy'} & set(sys.modules)\nsys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name.replace("_", "-") in done.stdout


def test_the_installed_command_is_quick(tmp_path):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([INSTALLED, "--help"], cwd=tmp_path, capture_output=True, text=True)
        times.append(time.perf_counter() - start)
        assert done.returncode == 0
    # 0.14 s on an idle machine; with torch it would be several seconds.
    assert min(times) < 1.0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name.replace("_", "-"), "--help"])
    assert left.value.code == 0
    assert "usage: latent-critic" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"latent-critic {version('latent-critic')}\n"


@pytest.mark.parametrize("arguments", [[], ["no-such"], ["score", "--no-such"], ["score", "x", "--batch", "many"]])
def test_wrong_usage_is_code_two(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("a", "b", "C."), 2),
        (UnreadableFile("a", "b", "C."), 2),
        (NothingScored("a", "b", "C."), 1),
        (UnwritableFile("a", "b", "C."), 1),
        (PermissionError(13, "Permission denied", "/x"), 1),
    ],
)
def test_errors_are_one_line(cli, monkeypatch, error, code):
    monkeypatch.setattr("latent_critic.core.cli.results.say_json", lambda _: (_ for _ in ()).throw(error))
    found, out, err = cli("methods", "--json")
    assert (found, out) == (code, "")
    assert err.startswith("latent-critic: ")
    assert len(err.splitlines()) == 1


def test_a_reader_that_leaves_is_no_error(tmp_path):
    done = subprocess.run(
        f"'{INSTALLED}' methods --json | head -c 1", shell=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr == ""


def test_methods_contract(cli):
    code, out, _ = cli("methods", "--json")
    assert code == 0
    rows = json.loads(out)
    assert {row["name"] for row in rows} >= {"lgdm", "genziqa", "dp_iqa", "diff_v2_iqa", "judge", "zero_shot"}
    assert all({"name", "needs", "calibrated", "families", "source"} <= set(row) for row in rows)
    _, text, _ = cli("methods")
    assert all(row["name"] in text for row in rows)


def test_models_lists_families_and_assets_by_their_headers(cli, tmp_path, monkeypatch):
    code, out, _ = cli("models", "--json")
    assert code == 0
    found = json.loads(out)
    assert {row["name"] for row in found["families"]} == set(known_families())
    metadata = {"n": "2000", "name": "a judge", "srcc": json.dumps({"biq": 0.5})}
    (tmp_path / "judge").mkdir()
    save_file({"w": np.zeros((3, 4), np.float16)}, tmp_path / "judge" / "w.safetensors", metadata)
    (tmp_path / "judge" / "CARD.md").write_text("a card")
    (asset,) = models._assets(tmp_path)
    assert asset["metadata"] == {"n": 2000, "name": "a judge", "srcc": {"biq": 0.5}}
    assert asset["bytes"] == (tmp_path / "judge" / "w.safetensors").stat().st_size
    assert asset["card"].endswith("CARD.md")
    (tmp_path / "judge" / "deep").mkdir()
    save_file({"w": np.zeros(1)}, tmp_path / "judge" / "deep" / "w.safetensors")
    assert models._assets(tmp_path)[0]["card"].endswith("CARD.md")
    (tmp_path / "judge" / "deep" / "w.safetensors").unlink()
    save_file({"w": np.zeros(1)}, tmp_path / "judge" / "w.safetensors", {"latent_critic_judge": json.dumps(metadata)})
    assert models._assets(tmp_path)[0]["metadata"] == metadata
    monkeypatch.setattr(models, "_assets", lambda _: [asset])
    _, text, _ = cli("models")
    assert "srcc" in text


def test_a_broken_asset_is_an_error_not_a_crash(tmp_path):
    for content in (b"", b"\xff" * 8, b"\x05\0\0\0\0\0\0\0abcde"):
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(UnreadableFile):
            models._assets(tmp_path)


def test_table_aligns():
    assert console.table([["a", "1"], ["bb", "22"]], right=[1]) == "a    1\nbb  22"


def test_a_console_that_lacks_letters_still_prints(monkeypatch):
    import io

    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    console.say("– ä")
    console.say_json({"path": "ä"})
    assert raw.getvalue() == b'? ?\n{\n "path": "\\u00e4"\n}\n'
