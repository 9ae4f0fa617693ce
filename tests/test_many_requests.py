"""A queue of mixed requests, served by threads in a process of its own: answers, memory, open files."""

from __future__ import annotations

import os
import random
import string
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


def serve(count: int, threads: int) -> Served:
    """Answer the requests by that many threads."""
    torch.set_num_threads(1)
    model, todo, answers, resident, files = PretrainedModel(bundle()), requests(count), [], [], []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, count // WAVES):
            answers += pool.map(partial(answer, model), todo[start : start + count // WAVES])
            resident.append(int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096)
            files.append(len(os.listdir("/proc/self/fd")))
    return Served(answers, resident, files)


def bundle() -> PretrainedBundle:
    torch.manual_seed(0)
    return bundle_of(small_model())


@pytest.mark.parametrize("count", [100, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_queue_of_mixed_requests(count: int) -> None:
    with ProcessPoolExecutor(1, mp_context=forkserver()) as pool:
        served = pool.submit(serve, count, 4).result(timeout=3000)
    model = PretrainedModel(bundle())
    assert [answer(model, request) for request in requests(count)] == served.answers
    assert len(set(served.files)) == 1
    print(f"resident MB after each fifth of {count:,}: {[size >> 20 for size in served.resident]}")
    if count >= 1000:  # free blocks between those in use, which glibc keeps for each thread, grow ever more slowly
        assert served.resident[-1] < 1.02 * served.resident[1], served.resident
