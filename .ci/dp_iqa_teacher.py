"""Measure what the shipped DP-IQA head brings as a teacher of the built-in judge, on pictures that it never saw.

    .venv/bin/python .ci/dp_iqa_teacher.py BIQ2021 WORK    write core/assets/dp_iqa/teacher.json; then run .ci/cards.py

It draws rated and unrated pictures of BIQ2021's training part that the head was neither trained nor validated on, puts
them into the folder WORK, and runs `latent-critic train judge --teacher dp_iqa=HEAD` there; the same folder goes on
where a stopped run ended. Test parts are not touched.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from dp_iqa_card import FOLDER
from latent_critic.core.cli.main import main
from latent_critic.core.data.loaders import load
from latent_critic.core.data.rated import RatedImage
from latent_critic.core.methods.dp_iqa_file import SHIPPED, load_dp_iqa

RATED, UNRATED = 750, 150


def unseen(root: Path) -> list[RatedImage]:
    """Pictures beyond those that the head's training drew, in the order of its draw."""
    images = load("biq2021", root).part("train").images
    told = load_dp_iqa(SHIPPED).meta.settings["training"]
    order = np.random.default_rng([told["seed"], 1]).permutation(len(images)).tolist()
    return [images[place] for place in order[told["limit"] : told["limit"] + RATED + UNRATED]]


def run(root: Path, work: Path) -> int:
    """Lay out the pictures, train, write the report."""
    drawn, unrated = unseen(root), work / "unrated"
    unrated.mkdir(parents=True, exist_ok=True)
    rows = [f"{image.path},{image.mos}" for image in drawn[:RATED]]
    (work / "rated.csv").write_text("\n".join(["path,score", *rows]), encoding="utf-8")
    for image in drawn[RATED:]:
        link = unrated / image.path.name
        if not link.exists():
            link.symlink_to(image.path.resolve())
    given = [
        "train",
        "judge",
        "--data",
        work / "rated.csv",
        "--out",
        work / "judge.safetensors",
        "--cache",
        work / "cache",
    ]
    given += ["--teacher", f"dp_iqa={SHIPPED}", "--unlabelled", unrated, "--report", FOLDER / "teacher.json"]
    return main([str(word) for word in given])


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), Path(sys.argv[2])))
