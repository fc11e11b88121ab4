"""`train genziqa-check`: the pictures are those that no choice saw, the figures those of the scorers themselves."""

import json
from dataclasses import replace

import pytest
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.genziqa_file import load_genziqa
from scipy import stats


@pytest.fixture(scope="module")
def trained(tiny_folder, rated, tmp_path_factory):
    """A head after two steps, and the list that it was trained on."""
    from latent_critic.core.cli.main import build_parser

    folder = tmp_path_factory.mktemp("checked")
    table = folder / "rated.csv"
    table.write_text("".join(f"{image.path},{image.mos / 20:.3f},{image.group}\n" for image in rated.images))
    arguments = [
        "train", "genziqa", "--data", f"csv={table}:0:5", "--model", str(tiny_folder), "--out",
        str(folder / "h.safetensors"), "--run", str(folder / "run"), "--context", "2", "--rank", "1",
        "--timesteps", "33", "69", "--side", "64", "--steps", "2", "--batch", "4", "--validate-on", "6",
        "--share", "0.6", "--rate", "1e-2", "--limit", "30", "--seed", "4", "--by-group",
    ]  # fmt: skip
    parsed = build_parser().parse_args(arguments)
    assert parsed.run(parsed) == 0
    return folder / "h.safetensors", table


@pytest.fixture(scope="module")
def found(trained, tiny_folder, tmp_path_factory):
    from latent_critic.core.cli.main import build_parser

    head, table = trained
    out = tmp_path_factory.mktemp("out") / "check.json"
    parsed = build_parser().parse_args(
        ["train", "genziqa-check", "--head", str(head), "--data", f"csv={table}:0:5", "--model", str(tiny_folder),
         "--out", str(out), "--run", str(out.parent)]
    )  # fmt: skip
    assert parsed.run(parsed) == 0
    return json.loads(out.read_text())


def held_back(trained):
    from latent_critic.core.cli.training import rated
    from latent_critic.core.train.genziqa_data import unseen_of

    return unseen_of(load_genziqa(trained[0]), rated(f"csv={trained[1]}:0:5"), trained[0].parent)


def test_the_pictures_are_those_that_training_cut_off(trained, found):
    images = held_back(trained)
    assert 2 < len(images) < 15
    assert found["n"] == len(images)
    assert found["weights"] == load_genziqa(trained[0]).digest()


def test_the_figures_are_the_scorers_own(trained, found, tiny_folder):
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.loading import load_pipeline
    from latent_critic.core.images import load_image
    from latent_critic.core.methods.genziqa import GenzIQA
    from latent_critic.core.methods.genziqa_settings import PUBLISHED, GenzIQAOptions
    from latent_critic.core.methods.zero_shot import ZeroShot

    backbone, images = DiffusersBackbone(load_pipeline(str(tiny_folder))), held_back(trained)
    head = load_genziqa(trained[0])
    pictures, mos = [load_image(image.path) for image in images], [image.mos for image in images]

    def srcc(values, others=mos):
        return stats.spearmanr(values, others).statistic

    def raw(steps):
        batch = GenzIQA(backbone, head, GenzIQAOptions(timesteps=steps)).score(pictures)
        return [head.settings.gain * score.attributes["raw"] for score in batch]

    zero = ZeroShot(backbone).score(pictures).values()
    assert found["genziqa"]["srcc"] == pytest.approx(srcc(raw((33, 69))), abs=1e-6)
    assert found["zero_shot"]["srcc"] == pytest.approx(srcc(zero), abs=1e-6)
    assert found["difference"]["difference"] == pytest.approx(srcc(raw((33, 69))) - srcc(zero), abs=1e-6)
    rows = {row["levels"]: row for row in found["levels"]}
    assert rows["published (8)"]["with_published"] == pytest.approx(1.0)
    assert rows["fast (2)"]["srcc"] == pytest.approx(found["genziqa"]["srcc"])
    assert rows["fastest (1)"]["with_published"] == pytest.approx(srcc(raw((69,)), raw(PUBLISHED)), abs=1e-6)


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({}, "share and limit"),
        ({"seed": 9, "share": 0.3, "limit": None, "by_content": False, "unseen": "0"}, "cut off"),
    ],
    ids=["nothing", "others"],
)
def test_a_head_of_another_split_is_refused(trained, rated, tmp_path, told, match):
    from latent_critic.core.train.genziqa_data import unseen_of

    head = load_genziqa(trained[0])
    head = replace(head, meta=replace(head.meta, settings={**head.meta.settings, "training": told}))
    with pytest.raises(BadInput, match=match):
        unseen_of(head, rated, tmp_path)


def test_a_head_without_an_unseen_part_has_all_that_was_held_back(trained, tmp_path):
    from latent_critic.core.cli.training import rated
    from latent_critic.core.train.genziqa_data import split, unseen_of
    from latent_critic.core.train.genziqa_request import GenzRequest

    head, data = load_genziqa(trained[0]), rated(f"csv={trained[1]}:0:5")
    told = dict(head.meta.settings["training"])
    request = GenzRequest(
        (data,), tmp_path / "h.safetensors", tmp_path, seed=told["seed"], share=told["share"], limit=told["limit"],
        content=False,
    )  # fmt: skip
    (part,) = split(request)
    del told["unseen"]
    head = replace(head, meta=replace(head.meta, settings={**head.meta.settings, "training": told}))
    found = [image.path for image in unseen_of(head, data, tmp_path)]
    assert sorted(found) == sorted(image.path for image in (*part.held, *part.unseen))
