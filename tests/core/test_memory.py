"""Work in chunks: halved where memory ran out, done again from its beginning, and said."""

import pytest
import torch
from latent_critic.core.memory import in_chunks


def small(most, seen):
    def work(first, last):
        seen.append((first, last))
        if last - first > most:
            raise torch.OutOfMemoryError("test")
        return list(range(first, last))

    return work


@pytest.mark.parametrize(("most", "size", "fitted"), [(9, 7, 7), (9, 3, 3), (2, 7, 1), (3, 7, 3), (1, 5, 1)])
def test_every_row_is_done_once_in_order(most, size, fitted):
    parts, last = in_chunks(7, size, small(most, []))
    assert [row for part in parts for row in part] == list(range(7))
    assert last == fitted


def test_it_says_so_and_recovers_outside_of_the_error(caplog):
    import sys

    recovered, seen = [], []
    in_chunks(5, 5, small(2, seen), lambda: recovered.append(sys.exc_info()[0]))
    assert seen == [(0, 5), (0, 2), (2, 4), (4, 5)]
    assert recovered == [None]  # an error that is being handled would keep the failed tensors alive
    assert "Out of memory with 5 rows in one forward; going on with 2." in caplog.text


def test_other_errors_and_a_row_that_does_not_fit_go_through():
    def broken(first, last):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_chunks(4, 4, broken)
    with pytest.raises(torch.OutOfMemoryError):
        in_chunks(4, 4, small(0, []))
    assert in_chunks(0, 4, broken) == ([], 4)
