import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_critic.core.errors import BadInput
from latent_critic.core.selection.seeds import MOST, Seeds, parse_seeds

UNHURRIED = settings(deadline=None)
orders = st.builds(
    Seeds,
    start=st.integers(0, MOST),
    mode=st.sampled_from(["increment", "random", "list"]),
    listed=st.lists(st.integers(0, MOST), min_size=1, max_size=9).map(tuple),
)


@UNHURRIED
@given(orders, st.integers(1, 20), st.integers(1, 20))
def test_a_longer_run_starts_with_the_seeds_of_a_shorter_one(seeds, few, more):
    assert seeds.first(few + more)[:few] == seeds.first(few)


@UNHURRIED
@given(orders, st.integers(1, 20))
def test_seeds_differ_and_are_seeds(seeds, count):
    found = seeds.first(count)
    assert len(set(found)) == len(found)
    assert all(0 <= seed <= MOST for seed in found)
    if seeds.mode != "list":
        assert len(found) == count
        assert found[0] == seeds.start


def test_increment_starts_again_behind_the_highest():
    assert Seeds(MOST).first(3) == [MOST, 0, 1]


def test_random_is_decided_by_its_start():
    assert Seeds(5, "random").first(4) == Seeds(5, "random").first(4)
    assert Seeds(5, "random").first(4)[1:] != Seeds(6, "random").first(4)[1:]


def test_a_random_seed_can_be_typed_into_a_widget_of_the_browser():
    drawn = Seeds(MOST, "random").first(500)[1:]
    assert all(seed < 2**50 and int(float(seed)) == seed for seed in drawn)
    assert max(drawn) > 2**49  # the whole range is drawn from


def test_a_list_keeps_its_order_and_tries_each_seed_once():
    assert Seeds(9, "list", (7, 3, 7, 11)).first(9) == [7, 3, 11]


@pytest.mark.parametrize(
    "arguments", [{"mode": "list"}, {"mode": "other"}, {"start": -1}, {"mode": "list", "listed": (MOST + 1,)}]
)
def test_bad_seeds_are_refused(arguments):
    with pytest.raises(BadInput):
        Seeds(**arguments)


def test_parsing():
    assert parse_seeds("7, 11;42\n 3") == (7, 11, 42, 3)
    assert parse_seeds(" , ") == ()
    for text in ("7, x", "-1", "1.5", "٣"):
        with pytest.raises(BadInput, match="whole numbers"):
            parse_seeds(text)
