"""A queue of mixed requests, served by threads, asyncio, forked and spawned workers: answers, memory, open files."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import string
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.support.tiny import forkserver
from tests.support.translation import bundle_of, small_model
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.pretrained import PretrainedModel

LETTERS = string.ascii_letters
LONGEST = {"fill_mask": 509, "embed": 510, "score": 24, "translate": 12}
WAVES = 5
MANY = int(os.environ.get("XLMTRAIN_REQUESTS", "1000"))
"""Requests of the slow test."""


class Served(NamedTuple):
    """Digests of the answers; resident bytes and open files after each of WAVES equal parts of the requests."""

    answers: list[bytes]
    resident: list[int]
    files: list[int]


def requests(count: int) -> list[tuple[str, str, str]]:
    """Calls, languages and sentences; lengths are log-uniform from 1 to the longest, and some words occur once."""
    draw, made = random.Random(7), []
    for number in range(count):
        call, lang = draw.choice(list(LONGEST)), draw.choice(["de", "en"])
        length = int(LONGEST[call] ** draw.random()) if number > 20 else LONGEST[call]
        words = draw.choices(LETTERS, k=length)
        if 3 < length < 100:
            words[-2:] = ["".join(draw.choices(LETTERS, k=2))]  # a word of two subwords
        made.append((call, lang, " ".join(words)))
    return made


def answer(model: PretrainedModel, request: tuple[str, str, str]) -> bytes:
    """The digest of all digits of an answer."""
    call, lang, sentence = request
    ask: dict[str, Callable[[], object]] = {
        "fill_mask": lambda: model.fill_mask(f"{sentence} <mask>", lang),
        "embed": lambda: model.embed([sentence], lang).tolist(),
        "score": lambda: model.score([sentence], lang),
        "translate": lambda: model.translate([sentence], lang, "de", beam=2),
    }
    return blake2b(repr(ask[call]()).encode(), digest_size=8).digest()


def serve(count: int, way: str, model: PretrainedModel | None = None) -> Served:
    """Answer the requests by four threads, by tasks of ``asyncio`` on four threads, or by one thread (``worker``)."""
    torch.set_num_threads(1)
    model, todo = model or PretrainedModel(bundle()), requests(count)
    served = Served([], [], [])
    with ThreadPoolExecutor(1 if way == "worker" else 4) as pool:
        for start in range(0, count, count // WAVES):
            wave = todo[start : start + count // WAVES]
            if way == "asyncio":
                served.answers.extend(asyncio.run(_gather(pool, model, wave)))
            else:
                served.answers.extend(pool.map(partial(answer, model), wave))
            served.resident.append(int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096)
            served.files.append(len(os.listdir("/proc/self/fd")))
    return served


async def _gather(pool: ThreadPoolExecutor, model: PretrainedModel, wave: list[tuple[str, str, str]]) -> list[bytes]:
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(pool, answer, model, request) for request in wave))


def bundle() -> PretrainedBundle:
    torch.manual_seed(0)
    return bundle_of(small_model())


def check(served: Served, count: int) -> None:
    model = PretrainedModel(bundle())
    assert [answer(model, request) for request in requests(count)] == served.answers
    assert len(set(served.files)) == 1
    print(f"resident MB after each fifth of {count:,}: {[size >> 20 for size in served.resident]}")
    if count >= 1000:  # free blocks between those in use, which glibc keeps for each thread, grow ever more slowly
        assert served.resident[-1] < 1.02 * served.resident[1], served.resident


@pytest.mark.parametrize("count", [100, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["threads", "asyncio"])
def test_a_queue_of_mixed_requests(count: int, way: str) -> None:
    with ProcessPoolExecutor(1, mp_context=forkserver()) as pool:
        served = pool.submit(serve, count, way).result(timeout=3000)
    check(served, count)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_with_a_copy_of_a_loaded_model(start: str) -> None:
    """Each of two answers all requests."""
    model = PretrainedModel(bundle())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, for a fork beside threads
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(start)) as pool:
            both = [pool.submit(serve, MANY, "worker", model) for _ in range(2)]
            for served in both:
                check(served.result(timeout=3000), MANY)
