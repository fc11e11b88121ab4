"""The machine-readable forms of scores: their columns are a contract, and nothing is lost on the way."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_critic.core.errors import BadInput
from latent_critic.core.export import COLUMNS, PNG_KEY, from_csv, png_text, rows, to_csv, to_json, to_jsonl
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from PIL import Image, PngImagePlugin

finite = st.floats(allow_nan=False, allow_infinity=False)
# Any text that a file name or a reason can hold; half surrogates cannot be written as UTF-8 and never come from a file.
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
specs = st.builds(
    ScoreSpec,
    name=words,
    direction=st.sampled_from(["higher", "lower"]),
    scale=st.none() | st.tuples(finite, finite),
)
scores = st.builds(Score, finite, st.integers(0, 10**6), attributes=st.fixed_dictionaries({"path": words})) | st.builds(
    Score, st.none(), st.integers(0, 10**6), reason=words, attributes=st.fixed_dictionaries({"path": words})
)
score_batches = st.builds(lambda spec, found: ScoreBatch(spec, tuple(found)), specs, st.lists(scores, max_size=5))


@settings(deadline=None)
@given(score_batches)
def test_csv_round_trip(batch):
    text = to_csv(batch)
    assert from_csv(text) == rows(batch)
    assert next(csv.reader(io.StringIO(text, newline=""))) == list(COLUMNS)


@settings(deadline=None)
@given(score_batches)
def test_json_round_trips(batch):
    assert json.loads(to_json(batch)) == rows(batch)
    lines = to_jsonl(batch).split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == rows(batch)


@settings(deadline=None)
@given(score_batches)
def test_rows_may_be_handed_over_instead_of_a_batch(batch):
    assert to_csv(rows(batch)) == to_csv(batch)
    assert to_json(iter(rows(batch))) == to_json(batch)


def test_the_columns_are_the_contract():
    batch = ScoreBatch(
        ScoreSpec("judge", scale=(0, 100)),
        (Score(62.5, 3, attributes={"path": "a.png"}), Score(None, 4, reason="truncated", attributes={"name": "b"})),
    )
    assert rows(batch) == [
        {"path": "a.png", "index": 3, "score": 62.5, "reason": None, "scorer": "judge", "scale": [0, 100],
         "direction": "higher"},
        {"path": "b", "index": 4, "score": None, "reason": "truncated", "scorer": "judge", "scale": [0, 100],
         "direction": "higher"},
    ]  # fmt: skip
    assert to_csv(batch).splitlines()[1] == "a.png,3,62.5,,judge,0..100,higher"


def test_png_text_survives_a_png_file(tmp_path):
    batch = ScoreBatch(ScoreSpec("judge", scale=(0, 100)), (Score(62.5, 3, seed=7, attributes={"path": "ä.png"}),))
    info = PngImagePlugin.PngInfo()
    for key, text in png_text(batch, 0).items():
        info.add_text(key, text)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    with Image.open(tmp_path / "x.png") as picture:
        found = json.loads(picture.info[PNG_KEY])
    assert (found["score"], found["seed"], found["path"]) == (62.5, 7, "ä.png")
    assert ScoreSpec.from_dict(found["spec"]) == batch.spec


def test_a_foreign_csv_is_refused():
    with pytest.raises(BadInput, match="heading"):
        from_csv("a,b\n1,2\n")


def test_warnings_travel_in_json_and_png_text_and_leave_the_csv_columns_alone():
    warned = Score(1.0, 0, attributes={"path": "a.png", "warnings": ["a tap was silent"]})
    found = ScoreBatch(ScoreSpec("zero_shot"), (warned, Score(2.0, 1, attributes={"path": "b.png"})))
    assert [row.get("warnings") for row in json.loads(to_json(found))] == [["a tap was silent"], None]
    assert "silent" in to_jsonl(found).splitlines()[0]
    assert json.loads(png_text(found, 0)[PNG_KEY])["warnings"] == ["a tap was silent"]
    assert to_csv(found) == to_csv(ScoreBatch(found.spec, (replace(warned, attributes={"path": "a.png"}), found[1])))


@pytest.mark.parametrize("nested", [False, True])
def test_a_limit_on_use_travels_in_every_form(nested):
    """Also that of a part of a blend; other files keep their seven columns."""
    spec = ScoreSpec("dp_iqa", settings={"use": "academic use: not ours"})
    if nested:
        spec = ScoreSpec("blend", settings={"parts": [{"weight": 1.0, "spec": spec.to_dict()}]})
    found = ScoreBatch(spec, (Score(1.0, 0, attributes={"path": "a.png"}),))
    text = to_csv(found)
    assert text.splitlines()[0].endswith("direction,use")
    assert text.splitlines()[1].endswith(",academic use: not ours")
    assert from_csv(text) == rows(found) == json.loads(to_json(found))
    assert json.loads(png_text(found, 0)[PNG_KEY])["use"] == "academic use: not ours"
    both = [*rows(found), *rows(ScoreBatch(ScoreSpec("judge"), found.scores))]
    assert from_csv(to_csv(both)) == both
