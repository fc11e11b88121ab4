"""The registry names six methods, says honestly what each is, and loads no network."""

import json
import subprocess
import sys

import pytest
from latent_critic.core.errors import BadInput
from latent_critic.core.methods import METHODS, method

NAMES = ["lgdm", "genziqa", "dp_iqa", "diff_v2_iqa", "judge", "zero_shot"]


def test_names_are_the_contract():
    assert [info.name for info in METHODS] == NAMES


def test_rows_turn_into_json():
    rows = json.loads(json.dumps([info.to_dict() for info in METHODS]))
    assert set(rows[0]) >= {"name", "needs", "calibrated", "families", "source"}


def test_published_methods_say_who_did_not_write_them():
    for info in METHODS[:4]:
        assert "reimplemented after" in info.source
        assert "not by its authors" in info.source
        assert "arXiv" in info.source


def test_zero_shot_is_uncalibrated_and_needs_the_loaded_model():
    info = method("zero_shot")
    assert info.available
    assert not info.calibrated
    assert set(info.needs) == {"image", "model", "clip", "vae"}


@pytest.mark.parametrize("info", METHODS, ids=lambda info: info.name)
def test_available_means_that_the_module_is_there(info):
    """An unbuilt method is marked so, and a method marked as built can be imported."""
    code = (
        f"import importlib.util as u; raise SystemExit(u.find_spec('latent_critic.core.methods.{info.name}') is None)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd="/", check=False).returncode == 0
    assert found is info.available


def test_unknown_name_names_the_known_ones():
    with pytest.raises(BadInput, match="zero_shot"):
        method("musiq")


def test_listing_loads_no_torch():
    code = "import sys, latent_critic.core.methods.blend; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd="/", check=False).returncode == 0


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_given_as_a_head_is_told_where_it_runs(tmp_path, zipped):
    """It is not opened."""
    import torch
    from latent_critic.core.errors import UnreadableFile
    from latent_critic.core.methods.on_model import read_head

    path = tmp_path / "teacher.pth"
    torch.save({"QFD.fc1.weight": torch.zeros(1)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnreadableFile, match=r"a PyTorch pickle\. .*DP-IQA Scorer"):
        read_head(path)
