"""`train genziqa-beside`: the pictures are new to both heads, the figures those of the scorers themselves."""

import json
from dataclasses import replace

import pytest
from latent_critic.core.backbone.adaptation import CrossLora
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.methods.genziqa_file import load_genziqa, save_genziqa
from scipy import stats


@pytest.fixture(scope="module")
def heads(tiny_folder, rated, tmp_path_factory):
    """A head that one step made of all pictures, another that says it drew six of them, and the list."""
    from latent_critic.core.cli.main import build_parser

    folder = tmp_path_factory.mktemp("beside")
    table = folder / "rated.csv"
    table.write_text("".join(f"{image.path},{image.mos / 20:.3f},{image.group}\n" for image in rated.images))
    arguments = [
        "train", "genziqa", "--data", f"csv={table}:0:5", "--model", str(tiny_folder), "--out",
        str(folder / "new.safetensors"), "--run", str(folder / "run"), "--context", "2", "--rank", "1",
        "--timesteps", "33", "69", "--side", "64", "--steps", "1", "--batch", "4", "--validate-on", "6",
        "--share", "0.7", "--rate", "1e-2", "--by-group",
    ]  # fmt: skip
    parsed = build_parser().parse_args(arguments)
    assert parsed.run(parsed) == 0
    new = load_genziqa(folder / "new.safetensors")
    drawn = {**new.meta.settings["training"], "limit": 6, "seed": 3}
    old = replace(new, lora=CrossLora(), meta=replace(new.meta, settings={**new.meta.settings, "training": drawn}))
    save_genziqa(folder / "old.safetensors", old)
    return folder / "new.safetensors", folder / "old.safetensors", table


def compared(heads, tiny_folder, out):
    from latent_critic.core.cli.main import main

    new, old, table = heads
    given = ["--head", str(new), "--other", str(old), "--data", f"csv={table}:0:5", "--model", str(tiny_folder)]
    return main(["train", "genziqa-beside", *given, "--run", str(new.parent), "--out", str(out)])


def test_both_heads_rank_pictures_that_neither_drew(heads, tiny_folder, tmp_path):
    from latent_critic.core.cli.training import rated
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.loading import load_pipeline
    from latent_critic.core.images import load_image
    from latent_critic.core.methods.genziqa import GenzIQA
    from latent_critic.core.train.genziqa_data import drawn_for, unseen_of

    new, old, data = load_genziqa(heads[0]), load_genziqa(heads[1]), rated(f"csv={heads[2]}:0:5")
    drawn = drawn_for(old, data)
    assert len(drawn) == 6
    assert drawn_for(new, data) == {image.path.name for image in data.images}
    unseen = unseen_of(new, data, tmp_path)
    images = [image for image in unseen if image.path.name not in drawn]
    assert len(images) < len(unseen)
    assert compared(heads, tiny_folder, tmp_path / "tried.json") == 0
    (found,) = json.loads((tmp_path / "tried.json").read_text())
    assert found["n"] == len(images)
    backbone = DiffusersBackbone(load_pipeline(str(tiny_folder)))
    pictures, mos = [load_image(image.path) for image in images], [image.mos for image in images]
    srcc = {}
    for name, head in (("head", new), ("other", old)):
        values = [head.settings.gain * score.attributes["raw"] for score in GenzIQA(backbone, head).score(pictures)]
        srcc[name] = stats.spearmanr(values, mos).statistic
        assert found[name]["srcc"] == pytest.approx(srcc[name], abs=1e-6)
        assert found[name]["weights"] == head.digest()
    assert found["difference"]["difference"] == pytest.approx(srcc["head"] - srcc["other"], abs=1e-6)
    assert compared(heads, tiny_folder, tmp_path / "tried.json") == 0
    assert json.loads((tmp_path / "tried.json").read_text()) == [found]
    (tmp_path / "tried.json").write_text('{"no": "list"}')
    assert compared(heads, tiny_folder, tmp_path / "tried.json") == 2


def test_too_few_new_pictures_and_silent_heads_are_refused(heads, tmp_path):
    from latent_critic.core.cli.training import rated
    from latent_critic.core.train.genziqa_beside import beside
    from latent_critic.core.train.genziqa_data import drawn_for

    new, data = load_genziqa(heads[0]), rated(f"csv={heads[2]}:0:5")
    with pytest.raises(BadInput, match="10 pictures new to both"):
        beside(new, new, None, data, tmp_path)
    silent = replace(new, meta=replace(new.meta, settings={}))
    with pytest.raises(BadInput, match="seed and limit"):
        drawn_for(silent, data)


def test_a_list_that_is_none_is_not_overwritten(tmp_path):
    from latent_critic.core.cli.train_genziqa_beside import _keep

    (tmp_path / "tried.json").write_text("no json")
    with pytest.raises(UnreadableFile, match="list of comparisons"):
        _keep(tmp_path / "tried.json", {"head": {"weights": "a"}, "other": {"weights": "b"}})
    assert (tmp_path / "tried.json").read_text() == "no json"
