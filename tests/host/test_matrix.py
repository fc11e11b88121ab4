"""Every scorer on the loaded model × every family: it scores, or it gives one clear reason.

`.ci/matrix.py` makes CONTRIBUTING.md's table of this file's results.
"""

from dataclasses import replace

import pytest
import torch

pytestmark = pytest.mark.host

UNETS = ("sd15", "sd20", "sd20_v", "sdxl")
TRANSFORMERS = ("sd3", "flux", "flux_schnell", "flux2", "lumina2", "zimage", "qwen_image", "wan21")
SCORERS = ("zero_shot", "lgdm", "lgdm_single_level", "prompt_alignment", "probe", "genziqa", "dp_iqa", "diff_v2_iqa")
#: Which pairs do not work, and what the user is told.
REFUSED = {(scorer, family): "a U-Net .SD 1.x" for scorer in ("genziqa", "dp_iqa") for family in TRANSFORMERS}
SIDE, LEVELS = 64, (90, 30)


@pytest.fixture(scope="module")
def loaded(comfyui, tiny, tiny_clip):
    """`loaded(family)` → MODEL, CLIP, VAE, built once each."""
    kept = {}

    def load(family):
        if family not in kept:
            kept.clear()  # one family at a time is held
            kept[family] = (tiny.model(family), tiny_clip(family), tiny.vae(0, family=family))
        return kept[family]

    return load


def backbone_of(parts):
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    return ComfyBackbone(*parts)


def pictures():
    """A smooth picture, the same under noise, and a longer one."""
    draw = torch.Generator().manual_seed(3)
    clean = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=draw), (SIDE, SIDE), mode="bicubic")[0]
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=draw)
    return [clean.clamp(0, 1), noisy.clamp(0, 1), torch.rand(3, 70, 130, generator=draw)]


def zero_shot(parts):
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    return ZeroShot(backbone_of(parts), [("a good photo", "a bad photo")], ZeroShotOptions(side=SIDE)).score


def prompt_alignment(parts):
    from latent_critic.core.methods.alignment import AlignmentOptions, PromptAlignment

    return PromptAlignment(backbone_of(parts), AlignmentOptions(timesteps=LEVELS, side=SIDE), "a photo of a cat").score


def lgdm(parts, kind="guided_path"):
    from latent_critic.core.guidance.options import GuidanceOptions
    from latent_critic.core.heads.fit import fit_head
    from latent_critic.core.heads.head import HeadMeta
    from latent_critic.core.methods.hyperfeature_options import HyperfeatureOptions
    from latent_critic.core.methods.hyperfeatures import Hyperfeatures
    from latent_critic.core.methods.lgdm import Lgdm

    backbone = backbone_of(parts)
    guidance = GuidanceOptions(timesteps=LEVELS, zeta1=0.02, zeta2=0.0)
    options = HyperfeatureOptions(kind=kind, guidance=guidance, side=SIDE, most_crops=2)
    features = Hyperfeatures(backbone, options)
    draw = torch.Generator().manual_seed(5)
    shown = [(pictures()[0] + 0.05 * n * torch.randn(3, SIDE, SIDE, generator=draw)).clamp(0, 1) for n in range(12)]
    found = torch.stack([one.features for one in features.extract(shown)])
    meta = HeadMeta(
        method="lgdm", kind=kind, family=backbone.family.name, fingerprint=backbone.fingerprint.to_text(),
        sigmas=features.sigmas, prompt="", size_policy=options.policy(backbone.family), training_set="made up",
        pictures=12, calibrated_on="your ratings", scale=(0.0, 100.0), settings=features.settings(),
        identity=dict(backbone.identity),
    )  # fmt: skip
    head = fit_head(found, torch.linspace(95.0, 5.0, 12), range(12), features.layout, meta).head
    return Lgdm(backbone, head).score


def genziqa(parts):
    from latent_critic.core.hosts.comfyui.adaptable import AdaptableComfyBackbone
    from latent_critic.core.methods.genziqa import GenzIQA
    from latent_critic.core.methods.genziqa_head import untrained
    from latent_critic.core.methods.genziqa_settings import GenzSettings

    backbone = AdaptableComfyBackbone(*parts)
    return GenzIQA(backbone, untrained(backbone, GenzSettings(timesteps=LEVELS, side=SIDE), rank=2)).score


def dp_iqa(parts):
    from latent_critic.core.hosts.comfyui.residuals import ResidualComfyBackbone
    from latent_critic.core.methods import dp_iqa_head, dp_iqa_text
    from latent_critic.core.methods.dp_iqa import DpIqa
    from latent_critic.core.methods.dp_iqa_settings import DpSettings

    backbone = ResidualComfyBackbone(*parts)
    shape = dp_iqa_head.fitting_shape(
        backbone.family, backbone.embed(["a"]).tokens.shape[-1], width=16, squeeze=4, thin=(8, 4), cells=4, hidden=16,
        side=SIDE, text_hidden=8, image_width=6, image_blocks=1,
    )  # fmt: skip
    head = dp_iqa_head.untrained(backbone, shape, DpSettings(side=SIDE), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dp_iqa_text, "sentences", lambda: ("a photo of a human", "a photo of a plant"))
        scorer = DpIqa(backbone, head)
        scorer.score(pictures()[:1])
    return scorer.score


def diff_v2_iqa(parts):
    """The loaded model restores; the judge's CNN, which ships, reads."""
    from latent_critic.core.methods.diff_v2_iqa_eyes import load_eyes
    from latent_critic.core.methods.diff_v2_iqa_head import untrained
    from latent_critic.core.methods.diff_v2_iqa_make import scorer_over
    from latent_critic.core.methods.diff_v2_iqa_settings import DiffSettings
    from latent_critic.core.restoration.shared import SharedOptions, SharedRestorer

    settings = DiffSettings(side=SIDE)
    restorer = SharedRestorer(backbone_of(parts), SharedOptions(timesteps=LEVELS, kept=LEVELS[::-1]))
    eyes = load_eyes(settings)
    head = untrained(settings, restorer=restorer, eyes=eyes.identity)
    head.nets.begin_at(0.5)
    views = torch.stack([settings.cut(picture)[0].pixels for picture in pictures()])
    maps, vectors = eyes.network(views, views[:, None].expand(-1, 3, -1, -1, -1))
    own = maps[:, : sum(settings.maps)]
    head.nets.standardise((own.mean((0, 2, 3)), own.std((0, 2, 3))), (vectors.mean((0, 1)), vectors.std((0, 1))))
    meta = replace(head.meta, spread=100.0)  # as training does, so that scores are of that size
    return scorer_over(restorer, replace(head, meta=meta)).score


def conditions_of(parts, *texts):
    _, clip, _ = parts
    return [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]


def probe(parts):
    """Finished samplings, scored by a head that was fitted to others; the pictures are their seeds here."""
    import comfy.sample
    from latent_critic.core.heads.rated_runs import Collected
    from latent_critic.core.hosts.comfyui.pictures import to_host
    from latent_critic.core.hosts.comfyui.probe import probe_model
    from latent_critic.core.methods.probe import ProbeScorer, look_up, stacked
    from latent_critic.core.methods.probe_fit import Target, fit_probe_head

    model = parts[0]
    watched, record = probe_model(model, (990, 666))
    conditions = conditions_of(parts, "a lighthouse", "blurry")

    def sample(seeds, through=watched):
        draw = [
            torch.randn(record.family.latent_channels, 6, 6, generator=torch.Generator().manual_seed(s)) for s in seeds
        ]
        noise = to_host(model.model, torch.stack(draw))
        with torch.inference_mode():
            return comfy.sample.sample(
                through,
                noise,
                3,
                4.0,
                "euler",
                "normal",
                *conditions,
                torch.zeros_like(noise),
                disable_pbar=True,
                seed=1,
            )

    assert torch.equal(sample([1, 2]), sample([1, 2], model))
    features, _ = stacked(look_up(record, sample(range(20))))
    told = Collected(features, torch.linspace(0.0, 100.0, 20), ("a lighthouse",) * 20, tuple("abcdefghijklmnopqrst"))
    head, _ = fit_probe_head(record, Target.ratings(), told, "matrix")
    scorer = ProbeScorer(record, head)
    return lambda images: scorer.score(sample([100 + round(float(image.mean()) * 1e6) for image in images]))


BUILD = {
    "zero_shot": zero_shot,
    "lgdm": lgdm,
    "lgdm_single_level": lambda parts: lgdm(parts, "single_level"),
    "prompt_alignment": prompt_alignment,
    "probe": probe,
    "genziqa": genziqa,
    "dp_iqa": dp_iqa,
    "diff_v2_iqa": diff_v2_iqa,
}


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("family", [*UNETS, *TRANSFORMERS])
def test_pair(loaded, record_property, family, scorer):
    """The same value twice, alone and among others; another value for another picture."""
    from latent_critic.core.errors import LatentCriticError

    parts = loaded(family)
    reason = REFUSED.get((scorer, family))
    if reason is not None:
        with pytest.raises(LatentCriticError, match=reason) as raised:
            BUILD[scorer](parts)
        record_property("outcome", str(raised.value))
        return
    score = BUILD[scorer](parts)
    images = pictures()
    together = score(images)
    assert [one.reason for one in together] == [None] * 3
    values = together.values()
    assert len(set(values)) == 3
    scale = 100.0 if together.spec.scale else max(1.0, together.spec.spread)
    assert score(images).values() == values
    for place in (0, 2):
        assert score([images[place]])[0].value == pytest.approx(values[place], abs=1e-4 * scale)
    record_property("outcome", "yes")
