from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from latent_critic.core.selection.policy import Policy, select
from latent_critic.core.selection.report import report, rows, table, why_empty

SPEC = ScoreSpec("judge", scale=(0.0, 100.0), calibrated_on="photographs", blind_to="hands")
SCORES = ScoreBatch(
    SPEC,
    (
        Score(62.1, 4, seed=7, attributes={"name": "a.png"}),
        Score(None, 5, reason="the image holds NaN"),
        Score(81.0, 6, seed=9),
    ),
)


def test_rows_run_from_best_to_worst_with_original_indices():
    found = rows(SCORES, select(SCORES, Policy(threshold=70)))
    assert [row["index"] for row in found] == [6, 4, 5]
    assert [row["rank"] for row in found] == [1, 2, None]
    assert [row["kept"] for row in found] == [True, False, False]
    assert found[1]["reason"] == "62.1 < threshold 70"
    assert found[2]["score"] is None
    assert found[2]["reason"] == "not scored: the image holds NaN"


def test_the_table_is_aligned_and_leaves_empty_columns_out():
    lines = table(SCORES).splitlines()
    assert lines[0].split() == ["rank", "index", "name", "score", "seed", "reason"]
    assert lines[1].split() == ["1", "6", "-", "81.0", "9"]
    assert len({line.find("the image") for line in lines if "the image" in line}) == 1
    plain = ScoreBatch(SPEC, (Score(1.0, 0),))
    assert table(plain).splitlines()[0].split() == ["rank", "index", "score"]


def test_the_report_says_what_the_numbers_mean():
    text = report(SCORES, select(SCORES, Policy(top_k=1)), hint="Built-in judge.")
    assert text.startswith("2 of 3 images scored, 1 kept, 2 rejected.\nBuilt-in judge.\nScorer: judge (0 to 100")
    assert "calibrated on photographs" in text
    assert "does not see: hands" in text
    assert report(SCORES).startswith("2 of 3 images scored.\nScorer: judge")
    loose = ScoreBatch(ScoreSpec("zero_shot"), (Score(0.1, 0),))
    assert "uncalibrated" in report(loose)


def test_an_empty_side_says_why():
    nothing = select(SCORES, Policy(threshold=95))
    text = why_empty(SCORES, nothing, "kept")
    assert "image 6: 81.0 < threshold 95" in text
    assert "image 5: not scored" in text
    assert "floor" in text
    assert why_empty(SCORES, select(SCORES, Policy()), "rejected") is None


def test_the_percentile_of_ones_own_history_has_a_column_where_it_is_known():
    known = {"history_percentile": 83.6, "history_count": 57}
    found = ScoreBatch(SPEC, (Score(81.0, 0, attributes=known), Score(None, 1, reason="broken")))
    assert [row["history"] for row in rows(found)] == [83.6, None]
    assert "84 %" in table(found)
    assert "history: the percentile among your 57 earlier scores" in report(found)
    assert "history" not in report(SCORES)


def test_what_a_scorer_does_not_see_reads_as_one_sentence():
    loose = ScoreBatch(ScoreSpec("zero_shot", blind_to="hands, faces."), (Score(0.1, 0),))
    assert "It does not see: hands, faces." in report(loose)
    assert ".." not in report(loose)


def test_every_warning_is_reported_once_with_its_images():
    warned = {"warnings": ["a tap was silent"]}
    scores = (Score(1.0, 3, attributes=warned), Score(2.0, 5), Score(3.0, 8, attributes=warned))
    batch = ScoreBatch(SPEC, scores)
    assert [row["warnings"] for row in rows(batch)] == [["a tap was silent"], [], ["a tap was silent"]]
    assert "Warning (images 3, 8): a tap was silent" in report(batch)
    assert report(batch).count("silent") == 1
    assert "Warning (image 8):" in report(batch.take([1, 2]))
    assert "Warning (all images):" in report(batch.take([0, 2]))
    assert "Warning" not in report(SCORES)
