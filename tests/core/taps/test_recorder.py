"""The store of recorded values."""

import pytest
import torch
from latent_critic.core.backbone.contracts import Tap
from latent_critic.core.errors import BadInput
from latent_critic.core.taps.recorder import Grid, Key, Record, Recorder
from latent_critic.core.taps.reducers import mean

TAPS = [Tap(name, "feature", 8, 1) for name in ("mid", "up.0", "up.1")]


def record(tap, row, call=0, branch="cond"):
    return Record(Key(tap, call, branch, row), 0.5, Grid(2, 3), torch.tensor([float(row)]))


def test_rows_come_in_order_whatever_order_chunks_were_computed_in():
    recorder = Recorder.of(TAPS, mean)
    for row in (2, 0, 1):
        recorder.put(record("mid", row))
    recorder.put(record("mid", 0, branch="uncond"))
    recorder.put(record("mid", 5, call=1))
    assert [r.key.row for r in recorder.rows("mid")] == [0, 1, 2]
    assert [r.key.row for r in recorder.rows("mid", branch="uncond")] == [0]
    assert [r.key.row for r in recorder.rows("mid", call=1)] == [5]
    assert len(list(recorder)) == 5


def test_taps_that_never_fired_are_named():
    recorder = Recorder.of(TAPS, mean)
    recorder.put(record("up.0", 0))
    assert recorder.silent() == ["mid", "up.1"]


def test_wanted_follows_the_order_of_the_model():
    recorder = Recorder.of([TAPS[2], TAPS[0]], mean)
    assert list(recorder.wanted(TAPS)) == ["mid", "up.1"]


def test_a_tap_that_the_model_lacks_is_refused():
    recorder = Recorder.of([Tap("up.9", "feature", 8, 1)], mean)
    with pytest.raises(BadInput, match=r"up\.9"):
        recorder.wanted(TAPS)


@pytest.mark.parametrize("taps", [[], [TAPS[0], TAPS[0]]])
def test_each_tap_once_and_at_least_one(taps):
    with pytest.raises(BadInput, match="once"):
        Recorder.of(taps, mean)
