"""ComfyUI's Cancel ends every node that works through images, within one of them."""

import pytest

pytestmark = pytest.mark.host


@pytest.fixture
def cancelling(comfyui, scorer):
    """A scorer during whose second image the user presses Cancel."""
    from comfy import model_management

    def make():
        judge = scorer()
        plain = judge.images.reason_unscorable
        seen = []

        def reason_unscorable(image):
            seen.append(image)
            if len(seen) == 2:
                model_management.interrupt_current_processing(True)
            return plain(image)

        judge.images = type("images", (), {"as_list": judge.images.as_list, "reason_unscorable": reason_unscorable})
        judge.seen = seen
        return judge

    yield make
    model_management.interrupt_current_processing(False)


@pytest.mark.parametrize(
    ("node", "widgets"),
    [
        ("LatentCriticPickBest", {"keep": 1}),
        ("LatentCriticScoreImages", {}),
        ("LatentCriticReject", {"threshold": 1.0, "top_k": 0, "percentile": 0.0, "floor": 0, "cap": 0}),
        ("LatentCriticContactSheet", {"best_first": True, "columns": 0, "cell": 64}),
        ("LatentCriticSaveScored", {"filename_pattern": "cancelled/x", "log": "csv"}),
        ("LatentCriticKeepBest", {"session": "cancelled", "top_k": 1, "top_percent": 0.0}),
    ],
)
def test_cancel_in_the_middle_of_scoring(run_node, pictures, cancelling, comfyui_base, node, widgets):
    judge = cancelling()
    run = run_node(node, widgets, images=[pictures([0.1, 0.2, 0.3, 0.4])], scorer=[judge])
    assert not run.success
    assert [kind for kind, _ in run.messages if "interrupt" in kind or "error" in kind] == ["execution_interrupted"]
    assert len(judge.seen) == 2
    assert not run.kept
    assert not (comfyui_base / "output/cancelled").exists()


def test_cancel_while_saving_leaves_whole_files_only(run_node, pictures, scorer, comfyui_base, monkeypatch, pack):
    from comfy import model_management

    saving = pack("nodes.save_scored")
    plain = saving.write_png

    def write_png(*arguments):
        plain(*arguments)
        model_management.interrupt_current_processing(True)

    monkeypatch.setattr(saving, "write_png", write_png)
    widgets = {"filename_pattern": "stopped/x", "log": "none"}
    run = run_node("LatentCriticSaveScored", widgets, images=[pictures([0.1, 0.2])], scorer=[scorer()])
    assert not run.success
    assert [kind for kind, _ in run.messages if "interrupt" in kind] == ["execution_interrupted"]
    assert [path.name for path in (comfyui_base / "output/stopped").iterdir()] == ["x_00001_.png"]
