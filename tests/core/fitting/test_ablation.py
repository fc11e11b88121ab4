"""The ablation: every cell on the same pictures, differences paired, whatever their sign."""

import json

import pytest
from latent_critic.core.benchmark.ablate_cells import cells
from latent_critic.core.benchmark.ablate_lgdm import run_ablation
from latent_critic.core.benchmark.ablate_records import AblationRequest
from latent_critic.core.benchmark.ablate_tables import write_ablation
from latent_critic.core.errors import BadInput
from latent_critic.core.fitting.pictures import Pictures


@pytest.fixture
def request_of(noisy, options, tmp_path):
    def build(**fields):
        images, ratings = noisy(60)
        pictures = Pictures("made up", tuple(images), tuple(str(place // 2) for place in range(60)), tuple(ratings))
        return AblationRequest(
            **{
                "pictures": pictures,
                "validation": 20,
                "base": options,
                "cache": tmp_path / "features",
                "resamples": 50,
                **fields,
            }
        )

    return build


def test_free_cells_cost_one_pass_and_the_base_differs_from_itself_by_nothing(request_of, backbone):
    found = run_ablation(request_of(groups=("levels", "taps", "reducers")), backbone, lambda name: None)
    assert backbone.encoded == 60
    base = found.rows[0]
    assert (base.group, base.difference, base.difference_low, base.difference_high) == ("base", 0.0, 0.0, 0.0)
    assert base.train + base.n == 60
    assert {row.group for row in found.rows} == {"base", "levels", "taps", "reducers"}
    assert {row.n for row in found.rows} == {base.n}
    assert all(row.srcc_low <= row.srcc <= row.srcc_high for row in found.rows)
    assert all(row.difference == pytest.approx(row.srcc - base.srcc, abs=1e-9) for row in found.rows)
    assert any(row.difference != 0.0 for row in found.rows)
    assert not found.failed


def test_a_second_run_takes_everything_from_the_cache(request_of, backbone):
    first = run_ablation(request_of(groups=("levels",)), backbone, lambda name: None)
    before = backbone.encoded
    second = run_ablation(request_of(groups=("levels",)), backbone, lambda name: None)
    assert backbone.encoded == before
    assert [row.srcc for row in second.rows] == [row.srcc for row in first.rows]


def test_noise_draws_are_told(request_of, backbone):
    found = run_ablation(request_of(groups=("noise",), draws=3), backbone, lambda name: None)
    assert found.noise["draws"] == 3
    assert found.noise["spread"] > 0.0
    assert len(found.noise["srcc_of_each_draw"]) == 3


def test_tables_are_written(request_of, backbone, tmp_path):
    kept = []
    found = run_ablation(request_of(groups=("reducers",)), backbone, lambda name: None, keep=kept.append)
    assert len(kept) == len(found.rows) + 1
    write_ablation(tmp_path, found, {"data": "made up", "base": "quick"})
    told = json.loads((tmp_path / "ablation.json").read_text())
    assert len(told["rows"]) == len(found.rows)
    assert (tmp_path / "ablation.csv").read_text().count("\n") == len(found.rows) + 1
    text = (tmp_path / "ablation.md").read_text()
    assert "| reducers | gmean3 |" in text
    assert "not adjusted" in text


def test_guided_cells_differ_in_their_zetas_only(options, backbone):
    found = {cell.name: cell.options for cell in cells(options, ("guidance",), backbone.family.taps)}
    zetas = {name: (one.guidance.zeta1 > 0, one.guidance.zeta2 > 0) for name, one in found.items()}
    assert zetas["off"] == (False, False)
    assert zetas["measurement"] == (True, False)
    assert zetas["perceptual"] == (False, True)
    assert zetas["both"] == (True, True)


def test_what_makes_no_sense_is_refused(request_of, noisy):
    for fields in ({"groups": ("weather",)}, {"validation": 60}, {"draws": 1}):
        with pytest.raises(BadInput):
            request_of(**fields)
    with pytest.raises(BadInput, match="without ratings"):
        request_of(pictures=Pictures.of_tensors("x", noisy(5)[0], None), validation=3)
