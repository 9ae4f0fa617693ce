import os
from functools import partial

import pytest

from xlmtrain.errors import DataError, UserError
from xlmtrain.text.parallel import IN_FLIGHT_PER_WORKER, Progress, ordered_map, worker_count


class Square:
    """A task that complains of a certain number, and dies of another."""

    def __init__(self, broken=False):
        if broken:
            raise DataError("cannot be built")

    def __call__(self, number):
        if number == 13:
            raise DataError("13 is unlucky")
        if number == 666:
            os._exit(1)
        return number * number


@pytest.mark.parametrize("workers", [1, 2])
def test_order_is_kept_and_a_bounded_number_of_items_is_in_flight(workers):
    taken = []

    def items():
        for number in range(100, 140):
            taken.append(number)
            yield number

    for done, result in enumerate(ordered_map(Square, items(), workers)):
        assert result == (100 + done) ** 2
        assert len(taken) - done <= workers * IN_FLIGHT_PER_WORKER
    assert len(taken) == 40


def test_what_goes_wrong_in_a_worker_arrives_as_a_clear_error():
    with pytest.raises(DataError, match="13 is unlucky"):
        list(ordered_map(Square, [1, 13], 2))
    with pytest.raises(DataError, match="cannot be built"):
        list(ordered_map(partial(Square, broken=True), [1], 2))
    with pytest.raises(UserError, match="a worker process died"):
        list(ordered_map(Square, [1, 666], 2))


def test_workers():
    assert worker_count(3) == 3
    assert 1 <= worker_count(0) <= (os.cpu_count() or 1)


def test_progress_in_a_log_is_plain_lines(capsys, monkeypatch):
    clock = iter([0.0, 4.0, 12.0, 13.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with Progress("tokenize", 60_000_000, "B") as progress:
        for _ in range(3):
            progress.advance(12_000_000)
    assert capsys.readouterr().out.splitlines() == [
        "tokenize: 24.0 MB of 60.0 MB, 2.0 MB/s, 18 s left",
        "tokenize: 36.0 MB in 20.0 s",
    ]


def test_progress_of_a_stage_that_failed_does_not_say_that_it_ended(capsys):
    def stage():
        with Progress("tokenize", 1, "words"):
            raise DataError("no")

    with pytest.raises(DataError):
        stage()
    assert capsys.readouterr().out == ""
