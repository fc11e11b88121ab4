"""The speed report: rows keep their contract, the clock its arithmetic, and the bare loop computes the same scores."""

import json
import time
from pathlib import Path

import pytest
import torch
from latent_critic.core.benchmark import speed, speed_judge, speed_memory
from latent_critic.core.benchmark.speed import SpeedRequest, SpeedRow, run_speed
from latent_critic.core.benchmark.speed_comfyui import comfyui_rows
from latent_critic.core.benchmark.speed_row import time_row
from latent_critic.core.benchmark.speed_tower import TowerScorer
from latent_critic.core.benchmark.timing import Timings, interleaved
from latent_critic.core.cli.main import main
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.judge import Judge
from latent_critic.core.nets.views import crops, global_view


def test_five_rows_at_least_without_a_comfyui(monkeypatch):
    monkeypatch.setattr(speed, "memory_row", lambda few, many: SpeedRow("memory", 1.0, 1.05, "peak memory", ""))
    seen = []
    found = run_speed(SpeedRequest(repeats=1), seen.append)
    assert seen == found
    rows = [row.to_dict() for row in found]
    assert len(rows) >= 5
    for row in rows:
        assert set(row) == {"name", "ratio", "limit", "unit", "detail"}
        assert row["ratio"] > 0
    assert len({row["name"] for row in rows}) == len(rows)


def test_a_run_that_is_stopped_has_told_its_rows(monkeypatch, capsys):
    def killed(few, many):
        raise KeyboardInterrupt

    rows = [SpeedRow("quick", 1.0, 1.05, "time", "as measured")]
    monkeypatch.setattr(speed, "judge_rows", lambda repeats: rows)
    monkeypatch.setattr(speed, "tower_rows", lambda repeats: [])
    monkeypatch.setattr(speed, "memory_row", killed)
    assert main(["speed"]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "quick: 1.000 of at most 1.05 (as measured)" in err.splitlines()


def test_the_tower_has_the_size_of_a_vit_b_32():
    """Parameters counted by hand from the published architecture."""
    tower = TowerScorer().tower
    layer = 4 * 768 * 768 + 4 * 768 + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    ends = 3 * 32 * 32 * 768 + 768 + 50 * 768 + 2 * 768 + 2 * 768 + 768 * 512
    assert sum(value.numel() for value in tower.parameters()) == 12 * layer + ends


def test_the_tower_scores_rows_apart():
    images = list(torch.rand(2, 3, 300, 260, generator=torch.Generator().manual_seed(1)))
    scorer = TowerScorer()
    both = scorer.score(images)
    assert both == pytest.approx([scorer.score([image])[0] for image in images], abs=1e-5)
    assert both[0] != both[1]


def test_the_bare_loop_gives_the_judges_scores():
    """Else it would leave work out, and the ratio would mean nothing."""
    judge = Judge.load()
    images = list(torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(1)))
    bare = speed_judge.bare_judge(judge, [(crops(image), global_view(image)) for image in images])
    assert bare == pytest.approx(judge.score(images).values(), abs=1e-3)


def test_peak_memory_is_that_of_a_process_of_its_own():
    row = speed_memory.memory_row(2, 4)
    assert 0.7 < row.ratio < 1.3
    assert "MiB" in row.detail
    assert "`latent-critic score`" in row.detail


def test_what_is_measured_is_the_command_itself(tmp_path, capsys):
    """Not a loop of its own: the report is the command's."""
    folder = speed_memory._folder(tmp_path / "pictures", 3)
    report = tmp_path / "report.json"
    assert speed_memory.main(["score", str(folder), "--json", str(report)]) == 0
    assert len(json.loads(report.read_text(encoding="utf-8"))) == 3
    assert int(capsys.readouterr().out.splitlines()[-1]) > 0
    (folder / "broken.png").touch()
    assert speed_memory.main(["score", str(folder), "--json", str(report)]) == 1


def test_a_scoring_that_fails_gives_no_figure(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="pictures in the folder"):
        speed_memory._peak_of(tmp_path / "empty")


def test_peak_sees_memory_that_was_held_and_given_back():
    before = speed_memory.peak_bytes()
    held = torch.ones(before // 4 + 50_000_000)
    grown = speed_memory.peak_bytes()
    del held
    assert grown > before
    assert speed_memory.peak_bytes() >= 0.99 * grown  # the kernel sums its per-core counters only now and then


def test_a_slower_job_has_a_larger_ratio():
    timings = interleaved({"slow": lambda: time.sleep(0.03), "quick": lambda: time.sleep(0.005)}, 3)
    assert timings.ratio("slow", "quick") > 2
    assert timings.seconds("slow") >= 0.03


def test_jobs_take_turns_in_both_orders():
    seen = []
    interleaved({name: lambda name=name: seen.append(name) for name in "ab"}, 2)
    assert "".join(seen) == "abab" + "ba"


def test_a_ratio_is_the_median_over_turns():
    timings = Timings({"a": [1.0, 4.0, 9.0], "b": [1.0, 2.0, 3.0]})
    assert timings.ratio("a", "b") == 2.0
    assert timings.ratio("a", "b", factor=2) == 1.0
    row = time_row(timings, "a", "b", name="n", limit=1.0, detail="d")
    assert (row.ratio, row.detail) == (2.0, "4000 ms over 2000 ms: d")


@pytest.mark.parametrize("fields", [{"repeats": 0}, {"folder": (5, 5)}, {"folder": (0, 5)}], ids=repr)
def test_bad_requests(fields):
    with pytest.raises(BadInput, match="Expected"):
        SpeedRequest(**fields)


def test_a_folder_without_comfyui_is_refused(tmp_path):
    with pytest.raises(BadInput, match="ComfyUI folder"):
        comfyui_rows(Path(tmp_path), 1)
