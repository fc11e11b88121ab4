"""lgdm on a real ComfyUI: the pack's modules, small settings, and heads fitted to made-up ratings."""

import pytest
import torch

SIDE = 64


@pytest.fixture(scope="session")
def parts(pack):
    """The pack's own modules by short name."""
    return {
        name.rsplit(".", 1)[-1]: pack(f"core.{name}")
        for name in (
            "methods.lgdm", "methods.hyperfeatures", "methods.hyperfeature_options", "methods.feature_cache",
            "methods.contract", "guidance.options", "perceptual.judge", "heads.fit", "heads.head", "errors",
            "hosts.comfyui.backbone", "hosts.comfyui.embedded", "data.distortions",
        )
    }  # fmt: skip


@pytest.fixture(scope="session")
def psi(parts):
    return parts["judge"].JudgePsi.load()


@pytest.fixture(scope="session")
def make(parts, tiny, tiny_clip, tiny_vae):
    """`make(family, model=None)` → backbone."""

    def build(family="sd15", model=None):
        if family == "critic_ldm":
            own = parts["embedded"]
            return parts["backbone"].ComfyBackbone(own.load_model(), own.load_clip(), own.load_vae())
        return parts["backbone"].ComfyBackbone(model or tiny.model(family), tiny_clip(family), tiny_vae(0))

    return build


@pytest.fixture(scope="session")
def settings(parts):
    """`settings(guidance fields…, options fields…)`: small and quick."""

    def build(zeta1=0.02, zeta2=0.0, timesteps=(90, 30), **rest):
        guidance = parts["options"].GuidanceOptions(timesteps=timesteps, zeta1=zeta1, zeta2=zeta2)
        return parts["hyperfeature_options"].HyperfeatureOptions(**{"guidance": guidance, "side": SIDE, **rest})

    return build


@pytest.fixture(scope="session")
def features(parts, psi, make, settings):
    """`features(backbone, **settings)` → Hyperfeatures."""

    def build(backbone=None, **fields):
        return parts["hyperfeatures"].Hyperfeatures(backbone or make(), settings(**fields), psi)

    return build


@pytest.fixture(scope="session")
def head_of(parts, damaged):
    """`head_of(features, **meta)`: a head fitted to made-up ratings of pictures of growing noise."""

    def build(features, **fields):
        images = damaged(12)
        found = torch.stack([one.features for one in features.extract(images)])
        ratings = torch.linspace(95.0, 5.0, len(images))
        backbone = features.backbone
        meta = parts["head"].HeadMeta(
            **{
                "method": "lgdm", "kind": features.options.kind, "family": backbone.family.name,
                "fingerprint": backbone.fingerprint.to_text(), "sigmas": features.sigmas, "prompt": "",
                "size_policy": features.options.policy(backbone.family), "training_set": "made up", "pictures": 12,
                "calibrated_on": "your ratings", "scale": (0.0, 100.0), "settings": features.settings(),
                "identity": dict(backbone.identity), **fields,
            }
        )  # fmt: skip
        return parts["fit"].fit_head(found, ratings, range(len(images)), features.layout, meta).head

    return build


@pytest.fixture(scope="session")
def damaged():
    """`damaged(count, side)`: one smooth picture under growing noise."""

    def build(count, side=SIDE, seed=3):
        draw = torch.Generator().manual_seed(seed)
        small = torch.rand(1, 3, 6, 6, generator=draw)
        clean = torch.nn.functional.interpolate(small, (side, side), mode="bicubic")[0]
        noise = torch.randn(clean.shape, generator=draw)
        return [(clean + 0.03 * place * noise).clamp(0, 1) for place in range(count)]

    return build
