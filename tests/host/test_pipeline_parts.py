"""A pipeline's parts that are exchanged, or moved to and fro by enable_model_cpu_offload, played on the CPU."""

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def make(comfyui, tiny, tiny_pipelines):
    def build(family="sd15"):
        return tiny_pipelines.pipeline(family, tiny.model(family), tiny.vae(0, family=family))

    return build


@pytest.fixture
def moves(monkeypatch):
    """Which modules accelerate's hooks bring in and put away, in order."""
    from accelerate.hooks import CpuOffload, UserCpuOffloadHook

    seen, bring, put_away = [], CpuOffload.pre_forward, UserCpuOffloadHook.offload

    def come(self, module, *args, **kwargs):
        seen.append(("in", module))
        return bring(self, module, *args, **kwargs)

    def leave(self):
        seen.append(("out", self.model))
        put_away(self)

    monkeypatch.setattr(CpuOffload, "pre_forward", come)
    monkeypatch.setattr(UserCpuOffloadHook, "offload", leave)
    return seen


def score(pipe, method="zero_shot", **how):
    from latent_critic import Scorer

    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    return Scorer.from_pipeline(pipe, method, side=64).score([image], **how).values()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_part_that_was_exchanged_is_refused_at_the_next_score(make, part):
    from latent_critic import Scorer
    from latent_critic.core.errors import BadInput

    pipe, image = make(), torch.rand(3, 64, 64)
    scorer = Scorer.from_pipeline(pipe, side=64)
    assert scorer.score([image])[0].ok
    own = getattr(pipe, part)
    setattr(pipe, part, getattr(make(), part))
    with pytest.raises(BadInput, match=f"got another {part}. Make a new scorer"):
        scorer.score([image])
    setattr(pipe, part, torch.compile(own, backend="eager"))
    assert scorer.score([image])[0].ok


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
def test_an_offloaded_pipeline_scores_as_itself_and_its_parts_go_back(make, moves, family):
    pipe, plain = make(family), make(family)
    pipe.enable_model_cpu_offload(device="cpu")
    freed = []
    own = pipe.enable_model_cpu_offload
    pipe.enable_model_cpu_offload = lambda **how: (freed.append(len(moves)), own(**how))
    assert score(pipe) == pytest.approx(score(plain), abs=1e-5)
    assert freed[-1] == len(moves) > 0  # after everything that ran
    network = getattr(pipe, "unet", None) or pipe.transformer
    texts = [place for place, (_, module) in enumerate(moves) if module is pipe.text_encoder]
    first = next(place for place, (_, module) in enumerate(moves) if module is network)
    assert any(texts[0] < place <= first for place in freed)  # texts rest before the network comes


def test_parts_go_back_where_a_score_is_stopped(make, moves):
    pipe, freed = make(), []
    pipe.enable_model_cpu_offload(device="cpu")
    pipe.enable_model_cpu_offload = lambda **how: freed.append(len(moves))

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(pipe, watch=stop)
    assert freed[-1] == len(moves)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_texts_are_made_where_the_offloaded_encoder_is_brought(make, family):
    """On a device without values, because a CPU has no second one with them."""
    from accelerate import cpu_offload_with_hook
    from latent_critic.core.hosts.diffusers.text import PipelineText

    pipe = make(family)
    for encoder in (pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
        if encoder is not None:
            cpu_offload_with_hook(encoder, "meta")
    found = PipelineText(pipe, "clip_l" if family == "sd15" else "clip_l+clip_g").embed(["a photo", "a dog"])
    assert found.tokens.device.type == "meta"
    assert found.tokens.shape[:2] == (2, 77)
