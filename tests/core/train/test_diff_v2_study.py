"""What a study of a DiffV2IQA head says: the same training without restorations, and with either branch alone."""

import json
from dataclasses import replace

import pytest
import torch
from latent_critic.core.benchmark.significance import compare
from latent_critic.core.images import load_image
from latent_critic.core.methods.diff_v2_iqa import DiffV2IQA
from latent_critic.core.methods.diff_v2_iqa_eyes import load_eyes
from latent_critic.core.methods.diff_v2_iqa_file import load_diff_v2
from latent_critic.core.methods.diff_v2_iqa_settings import DiffSettings
from latent_critic.core.nets.diff_v2 import DiffShape
from latent_critic.core.nets.restorer import RestorerNet, RestorerShape
from latent_critic.core.restoration.sr3 import Sr3Options, Sr3Restorer
from latent_critic.core.train.diff_v2 import train_diff_v2
from latent_critic.core.train.diff_v2_request import DiffRequest
from latent_critic.core.train.diff_v2_study import UNRESTORED, VCG, VDA, WHOLE, Unrestored, study
from latent_critic.core.train.dp_iqa_data import split

SETTINGS = DiffSettings(side=64)
SHAPE = DiffShape.narrow(SETTINGS.maps, SETTINGS.features, SETTINGS.grid)


@pytest.fixture
def restorer():
    torch.manual_seed(0)
    return Sr3Restorer(RestorerNet(RestorerShape(8, (1, 2), 1, (), groups=4)).eval(), Sr3Options(steps=4, eta=0.0))


def test_without_restorations_nothing_differs():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = Unrestored((0.04, 0.2, 0.35)).restore(images)
    assert found.calls == (0, 0)
    assert torch.equal(found.images, images[:, None].repeat(1, 3, 1, 1, 1))
    eyes = load_eyes(SETTINGS)
    maps, vectors = eyes.network(images, found.images)
    own, restored = maps.chunk(2, dim=1)
    assert torch.equal(own, restored)
    assert all(torch.equal(vectors[:, 0], vectors[:, place]) for place in (1, 2, 3))


def test_every_head_is_trained_alike_and_compared_on_the_same_pictures(rated, restorer, tmp_path):
    request = DiffRequest(
        data=rated, out=tmp_path / "head.safetensors", run=tmp_path / "run", settings=SETTINGS, shape=SHAPE,
        content=False, batch=4, steps=3, share=0.3, average=0.5, validate_on=8,
    )  # fmt: skip
    result = train_diff_v2(request, restorer)
    assert study(replace(request, minutes=0.0), result, restorer) is None
    found = json.loads(json.dumps(study(request, result, restorer)))
    rows = {row["head"]: row for row in found["heads"]}
    assert list(rows) == [WHOLE, UNRESTORED, VCG, VDA]
    assert rows[WHOLE]["whole_less_this"] is None
    whole = load_diff_v2(request.out)
    assert rows[WHOLE]["weights"] == whole.digest()
    held = split(request).held[:8]
    scores = {}
    for name, path in ((WHOLE, request.out), (UNRESTORED, request.run / "unrestored" / "head.safetensors")):
        head = load_diff_v2(path)
        own = restorer if name == WHOLE else Unrestored((0.04, 0.2, 0.35))
        scores[name] = DiffV2IQA(own, head, load_eyes(SETTINGS)).score([load_image(one.path) for one in held]).values()
    expected = compare(scores[WHOLE], scores[UNRESTORED], [one.mos for one in held]).difference
    assert rows[UNRESTORED]["whole_less_this"]["difference"] == pytest.approx(expected, abs=0.1)
    assert load_diff_v2(request.run / "vcg" / "head.safetensors").nets.vda is None
    assert load_diff_v2(request.run / "vda" / "head.safetensors").nets.vcg is None
    again = train_diff_v2(request, restorer)
    assert study(request, again, restorer) == found
    assert again.calls == 0
    assert len((request.run / "log.jsonl").read_text().splitlines()) == 1
