"""A run on two hosts: they train as one; one is lost and comes back, or does not; the network between them is cut."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_same_batches import assert_same_losses
from tests.support.fault_table import Tries
from tests.support.hosts import Host, Hosts
from tests.support.starts import SAVE_EVERY, digest, finish, last_step, settings, straight
from tests.support.training import state, status

STEPS = 40
TIMEOUT = 8.0
"""``train.hang_timeout``: who hears nothing for so long ends."""


@pytest.fixture
def hosts(tries: Tries) -> Iterator[Hosts]:
    try:
        pair = Hosts()
    except OSError as error:
        tries.missing(f"no network namespaces here: {error}")
    with pair:
        yield pair


def end_well(*started: Host) -> None:
    for host in started:
        assert host.wait() == 0, host.printed()[-3000:]


def until_step(host: Host, step: int) -> None:
    host.until(lambda: last_step(host.run) >= step, f"step {step}")


@pytest.mark.row(14, full=1)
def test_two_hosts_train_as_one(tries: Tries, hosts: Hosts, tiny_dataset: Path, tmp_path: Path) -> None:
    straight(tmp_path, tiny_dataset, STEPS)
    with tries.attempt("two hosts"):
        config = settings(tmp_path / "run", tiny_dataset, STEPS)
        with Host(hosts, 0, config) as first, Host(hosts, 1, config) as second:
            end_well(first, second)
        assert digest(config.run, STEPS, 0) == digest(tmp_path / "straight", STEPS, 0)


@pytest.mark.row(14, slow=1, full=2)
def test_a_host_dies_and_comes_back(tries: Tries, hosts: Hosts, tiny_dataset: Path, tmp_path: Path) -> None:
    """Its processes are killed, or its power fails: then nobody hears of it."""
    straight(tmp_path, tiny_dataset, STEPS)
    rng = random.Random(14)
    for number in range(tries.count):
        with tries.attempt(f"try {number}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, STEPS, train__hang_timeout=TIMEOUT)
            with Host(hosts, 0, config) as first:
                with Host(hosts, 1, config) as second:
                    until_step(second, rng.randint(2 * SAVE_EVERY, STEPS - 10))
                    if number % 2:
                        hosts.pull_cable()
                    second.kill()
                hosts.plug_in()
                with Host(hosts, 1, config) as second:
                    end_well(first, second)
                assert "resumed from" in first.printed()
            assert digest(config.run, STEPS, 0) == digest(tmp_path / "straight", STEPS, 0)


@pytest.mark.row(14, full=1)
def test_the_first_host_dies(tries: Tries, hosts: Hosts, tiny_dataset: Path, tmp_path: Path) -> None:
    """All others meet there, so they end as well; both are started again."""
    straight(tmp_path, tiny_dataset, STEPS)
    with tries.attempt("the first host"):
        config = settings(tmp_path / "run", tiny_dataset, STEPS, train__hang_timeout=TIMEOUT)
        with Host(hosts, 0, config) as first, Host(hosts, 1, config) as second:
            until_step(first, 2 * SAVE_EVERY)
            first.kill()
            assert second.wait() != 0
        with Host(hosts, 0, config) as first, Host(hosts, 1, config) as second:
            end_well(first, second)
            assert "resumed from" in first.printed()
        assert digest(config.run, STEPS, 0) == digest(tmp_path / "straight", STEPS, 0)


@pytest.mark.row(14, full=2)
def test_the_other_goes_on_alone(tries: Tries, hosts: Hosts, tiny_dataset: Path, tmp_path: Path) -> None:
    """With HOSTS=1:2, from the last checkpoint, on the same batches; every second try the lost one joins in again."""
    steps = 200
    whole = settings(tmp_path / "straight", tiny_dataset, steps)
    finish(whole, 2)
    longest = 0.0
    for number in range(tries.count):
        with tries.attempt(f"try {number}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, steps, train__hang_timeout=TIMEOUT)
            with Host(hosts, 0, config, HOSTS="1:2") as first:
                with Host(hosts, 1, config, HOSTS="1:2") as second:
                    until_step(second, 2 * SAVE_EVERY)
                    second.kill()
                lost, reached = time.monotonic(), last_step(config.run)
                until_step(first, reached + 1)
                longest = max(longest, time.monotonic() - lost)
                if number % 2:
                    with Host(hosts, 1, config, HOSTS="1:2") as second:
                        end_well(first, second)
                end_well(first)
                assert first.printed().count("resumed from") == 1 + number % 2
            found, expected = (state(run, steps)["progress"]["sampler_state"] for run in (config.run, whole.run))
            assert found == expected
            assert_same_losses(config.run, whole.run)
    tries.figure(f"one went on alone after {longest:.0f} s")
    assert longest <= 60


@pytest.mark.row(14, full=2)
def test_the_network_is_cut(tries: Tries, hosts: Hosts, tiny_dataset: Path, tmp_path: Path) -> None:
    longest = 0.0
    for step in (7, 1)[: tries.count]:
        with tries.attempt(f"after step {step}"):
            hosts.plug_in()
            config = settings(tmp_path / f"run{step}", tiny_dataset, 10_000, train__hang_timeout=TIMEOUT)
            with Host(hosts, 0, config, RESTARTS="0") as first, Host(hosts, 1, config, RESTARTS="0") as second:
                until_step(first, step)
                hosts.pull_cable()
                cut = time.monotonic()
                codes = first.wait(), second.wait()
                longest = max(longest, time.monotonic() - cut)
            assert 0 not in codes
            for host in (first, second):
                assert host.printed().count("this is where every thread of the process stands") == 1
                assert 'xlmtrain/train/loop.py", line' in host.printed()
            assert status(config.run)["status"] == "failed"
            assert "no progress for 8 seconds (train.hang_timeout)" in status(config.run)["reason"]
    tries.figure(f"a cut network ended both within {longest:.0f} s, of which train.hang_timeout is {TIMEOUT:.0f}")
    assert longest <= TIMEOUT + 60
