"""`benchmark` with scorers on a model that diffusers runs: no ComfyUI, and the heads that ship."""

import json
import sys

import pytest
from latent_critic.core.methods import METHODS
from latent_critic.core.nets.critic_ldm import SHIPPED
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture
def rated(tmp_path, monkeypatch):
    """Rated noise in falling amounts; runs in tmp_path."""
    monkeypatch.chdir(tmp_path)
    for place in range(4):
        Image.effect_noise((64, 64), 30 * place + 4).convert("RGB").save(tmp_path / f"{place}.png")
    (tmp_path / "list.csv").write_text("\n".join(f"{place}.png,{90 - 20 * place}" for place in range(4)))
    return "--data", "csv", "--root", tmp_path / "list.csv", "--resamples", 20, "--draws", 0, "--json"


def test_all_on_the_embedded_model_takes_the_heads_that_ship(diffusers, cli, rated):
    code, out, err = cli("benchmark", *rated, "--all")
    assert code == 0, err
    assert "not measured" not in err
    rows = {row["scorer"]: row for row in json.loads(out)}
    assert set(rows) == {info.name for info in METHODS}
    on_model = {name: row for name, row in rows.items() if row["backbone"]}
    # Rows through the denoiser: two pairs of prompts at three levels, two prompts at two levels, one, and two views.
    calls = {name: row["denoiser_calls"] for name, row in on_model.items()}
    assert calls == {"zero_shot": 12.0, "genziqa": 4.0, "dp_iqa": 1.0, "lgdm": 2.0}
    assert rows["diff_v2_iqa"]["denoiser_calls"] == 4.0, "its own restorer's steps"
    assert len({row["backbone"] for row in on_model.values()}) == 1
    assert all(row["versus"] == "judge" for name, row in rows.items() if name != "judge")


def test_a_model_of_ones_own_has_no_heads_and_all_says_so(diffusers, cli, rated):
    code, out, err = cli("benchmark", *rated, "--all", "--model", SHIPPED)
    assert code == 0, err
    assert {row["scorer"] for row in json.loads(out)} == {"judge", "zero_shot", "diff_v2_iqa"}
    for name in ("lgdm", "genziqa", "dp_iqa"):
        assert f"not measured: {name}: it needs a head for this model" in err


def test_without_diffusers_the_others_are_measured(diffusers, cli, rated, monkeypatch):
    monkeypatch.setitem(sys.modules, "latent_critic.core.hosts.diffusers.loading", None)
    code, out, err = cli("benchmark", *rated, "--all")
    assert code == 0, err
    assert {row["scorer"] for row in json.loads(out)} == {"judge", "diff_v2_iqa"}
    assert "not measured: zero_shot: " in err
    assert "latent-critic[diffusers]" in err
    code, _, err = cli("benchmark", *rated, "--scorer", "zero_shot")
    assert code == 2
    assert "latent-critic[diffusers]" in err
