"""The package as a whole: what is in the wheel, what it asks of a machine, and that every copy of it loads."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import latent_critic
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # a dependency of pytest there

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
#: Folders of data that travel with the package, whole.
DATA = ("core/assets/", "web/", "locales/", "workflows/", "subgraphs/")
#: Rooms that are no part of what a node imports; they may ask for the extras.
BESIDE_THE_NODES = ("core/train/", "core/benchmark/", "core/cli/", "core/data/", "core/hosts/diffusers/")


def _checkout() -> ModuleType:
    spec = importlib.util.spec_from_file_location("latent_critic_ci_checkout", ROOT / ".ci" / "checkout.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checkout = _checkout()
tracked = checkout.files


def text_files() -> list[Path]:
    return [ROOT / name for name in tracked() if b"\0" not in (ROOT / name).read_bytes()[:4096]]


def requirement_names(lines: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", line.strip()) for line in lines)
    return {match.group().lower().replace("_", "-") for match in found if match}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built as ``pip install .`` builds it."""
    source = checkout.copy(tmp_path_factory.mktemp("source") / "a folder of any name")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_every_folder_of_code_is_named_as_a_package() -> None:
    folders = {Path(name).parent.as_posix() for name in tracked() if name.endswith("/__init__.py")}
    expected = {"latent_critic"} | {f"latent_critic.{folder.replace('/', '.')}" for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected
    with_code = {Path(name).parent.as_posix() for name in tracked() if name.startswith(("core/", "nodes/"))}
    stray = {
        folder
        for folder in with_code
        if list((ROOT / folder).glob("*.py")) and not (ROOT / folder / "__init__.py").exists()
    }
    assert not stray, f"folders with Python files but no __init__.py: {stray}"


def test_the_wheel_holds_all_code_and_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
    code = {name for name in tracked() if name.startswith(("core/", "nodes/")) and name.endswith(".py")}
    data = {name for name in tracked() if name.startswith(DATA)}
    assert inside == {f"latent_critic/{name}" for name in code | data | {"__init__.py"}}


def test_the_installed_wheel_is_imported_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    script = (
        "import sys, latent_critic, latent_critic.core.records\n"
        "print(latent_critic.__version__, latent_critic.__file__)\n"
        "heavy = {'torch', 'comfy', 'comfy_api', 'nodes'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    env = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, _, file = done.stdout.strip().partition(" ")
    assert version == latent_critic.__version__
    assert Path(file).is_relative_to(target)


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("latent-critic")
    done = subprocess.run([str(command), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "score" in done.stdout


def test_one_version_everywhere() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## v?(\S+)", changelog, flags=re.MULTILINE)
    assert newest, "CHANGELOG.md has no version heading"
    assert PROJECT["project"]["version"] == latent_critic.__version__ == newest.group(1)


def test_dependencies_are_a_part_of_what_comfyui_asks_for(comfyui_folder: Path) -> None:
    theirs = requirement_names((comfyui_folder / "requirements.txt").read_text(encoding="utf-8").splitlines())
    assert requirement_names(PROJECT["project"]["dependencies"]) <= theirs


@pytest.mark.parametrize("name", ["torch", "numpy", "transformers", "torchvision"])
def test_what_belongs_to_comfyui_is_never_pinned(name: str) -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    for line in [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]:
        if requirement_names([line]) == {name}:
            assert line == name


def test_the_nodes_import_only_what_comfyui_brings() -> None:
    own = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "nodes", "server", "node_helpers"}
    modules = {"pillow": "PIL", "pyyaml": "yaml"}
    allowed = {modules.get(name, name) for name in requirement_names(PROJECT["project"]["dependencies"])}
    foreign = {}
    for name in tracked():
        if name.endswith(".py") and name.startswith(("core/", "nodes/")) and not name.startswith(BESIDE_THE_NODES):
            unknown = _absolute_imports(ROOT / name) - allowed - own - set(sys.stdlib_module_names)
            if unknown:
                foreign[name] = unknown
    assert not foreign


def _absolute_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_the_package_imports_itself_relatively() -> None:
    sources = [name for name in tracked() if name.endswith(".py") and name.startswith(("core/", "nodes/"))]
    absolute = [name for name in sources if _absolute_imports(ROOT / name) & {"latent_critic", "core"}]
    assert not absolute


def test_every_json_file_parses() -> None:
    names = [name for name in tracked() if name.endswith(".json")]
    assert names
    for name in names:
        json.loads((ROOT / name).read_text(encoding="utf-8"))


def test_no_path_of_one_machine_is_in_a_file() -> None:
    pattern = re.compile(r"(?<![\w.:/~-])/(work|root|farm|tmp|home|Users)/[\w.]")
    found = [
        f"{path.relative_to(ROOT).as_posix()}: {match.group()}"
        for path in text_files()
        if (match := pattern.search(path.read_text(encoding="utf-8", errors="replace")))
    ]
    assert not found


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_commands_that_are_named_exist(name: str) -> None:
    command = Path(sys.executable).with_name("latent-critic")
    usage = subprocess.run([str(command), "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^    ([a-z-]+)\s", usage, flags=re.MULTILINE))
    named = set(
        re.findall(r"(?:`|^    )latent-critic ([a-z-]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert named <= known


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_within_the_checkout_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (ROOT / link).is_file()] == []


def test_tracked_files_stay_small() -> None:
    sizes = {name: (ROOT / name).stat().st_size / 2**20 for name in tracked()}
    assert sum(sizes.values()) <= 40, sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert {name for name, mib in sizes.items() if mib > 15} == set()


@pytest.mark.host
def test_a_checkout_of_any_name_loads_in_comfyui(comfyui_folder: Path, tmp_path: Path) -> None:
    names = ["latent-critic", "My Nodes (2), v0.1", "nodes"]
    packs = [checkout.copy(tmp_path / "custom_nodes" / name) for name in names]
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "load_pack.py"), str(comfyui_folder), *map(str, packs)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found) == sorted(names)
    first, *others = found.values()
    assert "LatentCriticPickBest" in first
    assert all(other == first for other in others)


@pytest.mark.host
def test_the_tables_of_the_readme_are_up_to_date(comfyui_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "readme.py"), "--check"],
        env={**os.environ, "LATENT_CRITIC_COMFYUI": str(comfyui_folder)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
