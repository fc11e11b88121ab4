"""Rows in one forward: asked of ComfyUI, halved when it did not fit, and said."""

import pytest
import torch

pytestmark = pytest.mark.host


def test_out_of_memory_halves_the_rows_and_says_so(make_backbone, call, monkeypatch, caplog):
    from latent_critic.core.hosts.comfyui import denoiser

    backbone = make_backbone()
    arguments = call(backbone, rows=5)
    expected = backbone.denoise(*arguments)
    whole, sizes = denoiser.denoise, []

    def small_card(patcher, z_t, *rest):
        sizes.append(len(z_t))
        if len(z_t) > 2:
            raise torch.cuda.OutOfMemoryError("test")
        return whole(patcher, z_t, *rest)

    monkeypatch.setattr(denoiser, "denoise", small_card)
    found = backbone.denoise(*arguments)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert sizes == [5, 2, 2, 1]
    assert "Out of memory with 5 rows in one forward; going on with 2" in caplog.text


def test_one_row_that_does_not_fit_is_the_hosts_error(make_backbone, call, monkeypatch):
    from latent_critic.core.hosts.comfyui import denoiser

    def no_card(*args):
        raise torch.cuda.OutOfMemoryError("test")

    backbone = make_backbone()
    arguments = call(backbone)
    monkeypatch.setattr(denoiser, "denoise", no_card)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        backbone.denoise(*arguments)


def test_on_a_cpu_only_small_images_share_a_forward(make_backbone):
    backbone = make_backbone()
    found = [backbone.rows_that_fit((4, side // 8, side // 8)) for side in (64, 128, 256, 512)]
    assert found == [16, 4, 1, 1]


def test_rows_follow_free_memory_size_and_backward(make_backbone, monkeypatch):
    from comfy import model_management
    from latent_critic.core.hosts.comfyui import memory

    backbone = make_backbone()
    monkeypatch.setattr(memory, "CPU_PIXELS", 10**9)
    one = backbone._patcher.model.memory_required([1, 4, 64, 64]) * 1.5
    monkeypatch.setattr(model_management, "get_free_memory", lambda *args, **kwargs: 10.5 * one)
    assert backbone.rows_that_fit((4, 64, 64)) == 10
    assert backbone.rows_that_fit((4, 128, 64)) == 5
    assert backbone.rows_that_fit((4, 64, 64), backward=True) == 1
    monkeypatch.setattr(model_management, "get_free_memory", lambda *args, **kwargs: 0)
    assert backbone.rows_that_fit((4, 64, 64)) == 1


def test_on_a_cpu_a_decoder_takes_large_images_one_by_one(make_backbone):
    """A batch there costs more than its images one after the other: what a backward keeps outgrows the caches."""
    backbone = make_backbone()
    for backward in (False, True):
        found = [
            backbone.rows_that_fit((4, side // 8, side // 8), decoder=True, backward=backward) for side in (64, 256)
        ]
        assert found == [16, 1]
