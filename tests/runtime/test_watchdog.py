"""A process that makes no progress says where it stands, and ends."""

from __future__ import annotations

from tests.support import programs
from xlmtrain.runtime import watchdog
from xlmtrain.runtime.watchdog import EXIT_HUNG, Watchdog

PROGRAM = """
import sys, threading, time
from xlmtrain.runtime import watchdog
from xlmtrain.runtime.watchdog import Watchdog

watchdog._POLL_SECONDS = 0.02
watchdog.HEARTBEAT_SECONDS = 0.05
beats = []
watcher = Watchdog(0.4, lambda: beats.append(1), lambda reason: print("reason:", reason, flush=True))
watcher.start()
for _ in range(10):  # 1 second in all
    time.sleep(0.1)
    watcher.report_progress()
print("beats:", len(beats) > 5, flush=True)

def waits_for_ever():
    threading.Event().wait()

if sys.argv[1] == "hang":
    waits_for_ever()
watcher.stop()
time.sleep(0.6)
print("ended by itself")
"""


def test_a_hang() -> None:
    assert EXIT_HUNG == 6
    done = programs.run("-c", PROGRAM, "hang", code=EXIT_HUNG)
    assert done.stdout == "beats: True\nreason: no progress for 0.4 seconds (train.hang_timeout)\n"
    assert "in waits_for_ever" in done.stderr  # where the main thread stands
    assert "most recent call first" in done.stderr


def test_progress_and_the_end() -> None:
    done = programs.run("-c", PROGRAM, "end")
    assert done.stdout == "beats: True\nended by itself\n"
    assert done.stderr == ""


def test_a_process_that_was_stopped_itself_is_not_hung() -> None:
    """Ctrl-Z and fg: the clock went on, the process did not."""
    hung: list[str] = []
    watcher = Watchdog(1.0, lambda: None, hung.append)
    times = iter([0.0, 0.5, 100.0, 100.5, 101.2])
    ticks = iter([False, False, False, False, True])

    class Clock:
        """time.monotonic as in the story."""

        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    def waited(seconds: float) -> bool:
        over = next(ticks)
        Clock.now = next(times, 101.2)
        return over

    original, watchdog.time = watchdog.time, Clock  # type: ignore[misc, assignment]
    try:
        watcher.report_progress()
        watcher._over.wait = waited  # type: ignore[assignment, method-assign]
        watcher._end = lambda: hung.append("ended")  # type: ignore[method-assign]
        watcher._run()
    finally:
        watchdog.time = original  # type: ignore[misc]
    assert hung == []
