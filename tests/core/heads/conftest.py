"""Features with a known answer, and a model that heads can be checked against."""

import pytest
import torch
from latent_critic.core.backbone.contracts import Family, Tap
from latent_critic.core.backbone.fingerprint import Fingerprint
from latent_critic.core.heads.head import HeadMeta
from latent_critic.core.heads.layout import Layout

LAYOUT = Layout.of([("up.0", 0, "mean", "whole", 8), ("up.0", 0, "std", "whole", 8), ("up.1", 1, "mean", "whole", 16)])


class Model:
    """As much of a backbone as a check looks at."""

    def __init__(self, family="tiny", sketch=(0.5, -0.5), patched=False, identity=None):
        taps = (Tap("up.0", "feature", 8, 1), Tap("up.1", "feature", 16, 1), Tap("up.2", "feature", 16, 1))
        self.family = Family(family, "eps", 4, 8, 64, "none", taps)
        self.fingerprint = Fingerprint(family, sketch, patched)
        self.identity = identity or {"model": "plain", "vae": Fingerprint("vae", (1.0, 2.0)).to_text()}


@pytest.fixture
def layout():
    return LAYOUT


@pytest.fixture
def model():
    return Model


@pytest.fixture
def meta():
    """Builder of a head's meta; keywords replace fields."""

    def build(**fields):
        found = {
            "method": "lgdm",
            "kind": "guided_path",
            "family": "tiny",
            "fingerprint": Model().fingerprint.to_text(),
            "sigmas": (0.4, 0.2),
            "prompt": "",
            "size_policy": "whole",
            "training_set": "made up",
            "pictures": 0,
            "calibrated_on": "your ratings",
            "scale": (0.0, 100.0),
            "identity": Model().identity,
        }
        return HeadMeta(**{**found, **fields})

    return build


@pytest.fixture
def rated():
    """Builder: (n, noise, seed) → features [n, 32], ratings [n] in 0…100 that rise with one direction, groups [n]."""

    def build(n=120, noise=4.0, seed=0):
        draw = torch.Generator().manual_seed(seed)
        features = torch.randn(n, 32, generator=draw) * torch.linspace(0.1, 3.0, 32) + 5.0
        answer = (features[:, 3] - 5.0) / features[:, 3].std() + 0.5 * (features[:, 20] - 5.0) / features[:, 20].std()
        ratings = 100.0 * torch.sigmoid(0.8 * answer) + noise * torch.randn(n, generator=draw)
        return features, ratings.clamp(0.0, 100.0), [place // 3 for place in range(n)]

    return build
