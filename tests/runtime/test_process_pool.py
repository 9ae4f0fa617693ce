"""The process pool: order, bounded memory, errors that arrive as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from xlmtrain.errors import DataError, UserError
from xlmtrain.runtime.process_pool import IN_FLIGHT_PER_WORKER, pool_imap, worker_count


def square(number: int) -> int:
    """A task that complains of a certain number, and dies of another."""
    if number == 13:
        raise DataError("13 is unlucky")
    if number == 666:
        os._exit(1)
    return number * number


@pytest.mark.parametrize("workers", [1, 2])
def test_order_is_kept_and_a_bounded_number_of_items_is_in_flight(workers: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(100, 140):
            taken.append(number)
            yield number

    for done, result in enumerate(pool_imap(square, items(), workers)):
        assert result == (100 + done) ** 2
        assert len(taken) - done <= workers * IN_FLIGHT_PER_WORKER
    assert len(taken) == 40


def test_what_goes_wrong_in_a_worker_arrives_as_a_clear_error() -> None:
    with pytest.raises(DataError, match="13 is unlucky"):
        list(pool_imap(square, [1, 13], 2))
    with pytest.raises(UserError, match="a worker process died"):
        list(pool_imap(square, [1, 666], 2))


def test_workers() -> None:
    assert worker_count(3) == 3
    assert 1 <= worker_count(0) <= (os.cpu_count() or 1)
