"""The one table of all scorers: of the files that ship, and all in its log."""

from __future__ import annotations

import json

import pytest
from latent_critic.core.heads.head_file import head_digest, load_head
from latent_critic.core.methods import METHODS, diff_v2_iqa_make, judge, lgdm
from latent_critic.core.methods.diff_v2_iqa_file import load_diff_v2
from latent_critic.core.methods.dp_iqa_file import SHIPPED as DP_IQA
from latent_critic.core.methods.dp_iqa_file import load_dp_iqa
from latent_critic.core.methods.genziqa_file import SHIPPED as GENZIQA
from latent_critic.core.methods.genziqa_file import load_genziqa
from latent_critic.core.nets.judge_file import digest


@pytest.fixture(scope="module")
def folder(shipped):
    return shipped("table")


@pytest.fixture(scope="module")
def runs(folder):
    lines = [json.loads(line) for line in folder.read("test_runs.jsonl").splitlines()]
    return {(run["data"], run["split"], run["scorer"]): run for run in lines}


def test_every_method_stands_in_it_on_every_set(folder):
    rows = folder.json("table.json")
    names = {info.name for info in METHODS}
    for data in {row["data"] for row in rows}:
        assert {row["scorer"] for row in rows if row["data"] == data} == names
    assert len({row["data"] for row in rows}) == 3


def test_every_figure_is_in_the_log(folder, runs):
    for row in folder.json("table.json"):
        run = runs[row["data"], row["split"], row["scorer"]]
        assert (run["srcc"], run["n"], run["denoiser_calls"]) == (row["srcc"], row["n"], row["denoiser_calls"])


def test_it_is_of_the_files_that_ship(folder, runs):
    shipped = {
        "judge": digest(judge.SHIPPED),
        "lgdm": head_digest(load_head(lgdm.SHIPPED)),
        "genziqa": load_genziqa(GENZIQA).digest(),
        "dp_iqa": load_dp_iqa(DP_IQA).digest(),
        "diff_v2_iqa": load_diff_v2(diff_v2_iqa_make.SHIPPED).digest(),
    }
    for (_, _, name), run in runs.items():
        assert folder.weights_of(run) == shipped.get(name)
