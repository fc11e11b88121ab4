"""``latent-critic score`` and ``rank`` by scorers on the embedded model, with the heads that ship or others."""

import json

import pytest
from latent_critic.core.methods.on_model import shipped_head
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in range(3):
        Image.effect_noise((64, 64), 30 * place + 4).convert("RGB").save(tmp_path / f"{place}.png")
    return [tmp_path / f"{place}.png" for place in range(3)]


@pytest.mark.parametrize("name", ["zero_shot", "lgdm", "genziqa", "dp_iqa"])
def test_a_scorer_on_the_embedded_model(diffusers, cli, pictures, name):
    code, out, err = cli("score", *pictures, "--scorer", name, "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert [row["scorer"] for row in rows] == [name] * 3
    assert len({row["score"] for row in rows}) == 3


@pytest.mark.parametrize("name", ["lgdm", "genziqa", "dp_iqa"])
def test_a_named_head_ranks(diffusers, cli, pictures, tmp_path, name):
    """The shipped head's file under another name: the same scores."""
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(shipped_head(name).read_bytes())
    code, out, err = cli("rank", *pictures, "--scorer", name, "--head", mine, "--json")
    assert code == 0, err
    scores = [row["score"] for row in json.loads(out)]
    assert scores == sorted(scores, reverse=True)
    plain = json.loads(cli("score", *pictures, "--scorer", name, "--json")[1])
    assert sorted(row["score"] for row in plain) == pytest.approx(sorted(scores))


@pytest.mark.parametrize(("name", "other"), [("dp_iqa", "genziqa"), ("genziqa", "dp_iqa"), ("lgdm", "dp_iqa")])
def test_a_head_of_another_scorer_is_refused(diffusers, cli, pictures, name, other):
    code, _, err = cli("score", *pictures, "--scorer", name, "--head", shipped_head(other))
    assert code == 2
    assert f"Expected a head for {name}; got one for {other}" in err.replace("\n", " ")


@pytest.mark.host
def test_comfyui_gives_the_scores_of_diffusers(diffusers, comfyui_folder, cli, pictures, tmp_path):
    asked = ["score", *pictures, "--scorer", "dp_iqa"]
    assert cli(*asked, "--json", tmp_path / "a.json")[0] == 0
    code, _, err = cli(*asked, "--comfyui", comfyui_folder, "--device", "cpu", "--json", tmp_path / "b.json")
    assert code == 0, err
    a, b = ([row["score"] for row in json.loads((tmp_path / name).read_text())] for name in ("a.json", "b.json"))
    assert a == pytest.approx(b, abs=0.05)
