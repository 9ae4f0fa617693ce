"""Ten thousand requests to one model: right answers, and memory that does not grow."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import string
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.support.tiny import WORDS, tiny_config
from tests.support.training import train_alone
from xlmtrain.pretrained import PretrainedModel, load

REQUESTS, PARTS = 10_000, 5
Request = tuple[str, str]
Answer = tuple[list[str], float, float]
_served: PretrainedModel


@pytest.fixture(scope="module")
def model(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    path = tmp_path_factory.mktemp("trained") / "run"
    train_alone(tiny_config(path, tiny_dataset, {"train.steps": 20}))
    return load(path)


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """Sentences of 1 to 19 words in both languages; half of them have a word that no other has."""
    draw = random.Random(3)
    letters = {"de": string.ascii_letters[:WORDS], "en": string.ascii_letters[WORDS : 2 * WORDS]}
    made = []
    for number in range(REQUESTS):
        lang = draw.choice(["de", "en"])
        words = [draw.choice(letters[lang]) for _ in range(draw.randint(1, 18))] + [f"x{number}."] * draw.randint(0, 1)
        made.append((lang, f"{' '.join(words)} <mask>"))
    return made


@pytest.fixture(scope="module")
def expected(model: PretrainedModel, requests: list[Request]) -> list[Answer]:
    return [answer(model, request) for request in requests]


def answer(model: PretrainedModel, request: Request) -> Answer:
    lang, sentence = request
    guesses = model.fill_mask(sentence, lang)[0]
    return [guess.word for guess in guesses], guesses[0].probability, float(model.embed([sentence], lang)[0, 0])


def serve(model: PretrainedModel) -> None:
    """Keep ``model`` for this worker's requests."""
    global _served
    torch.set_num_threads(1)
    _served = model


def answer_in_worker(request: Request) -> tuple[Answer, int, int]:
    return answer(_served, request), os.getpid(), memory()


def memory() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def parts(requests: list[Request]) -> Iterator[list[Request]]:
    size = len(requests) // PARTS
    yield from (requests[begin : begin + size] for begin in range(0, len(requests), size))


def assert_flat(sizes: list[int]) -> None:
    """The first part fills caches, and memory of torch's that is used again."""
    assert max(sizes[1:]) < 1.03 * sizes[0], sizes


@pytest.mark.slow
@pytest.mark.parametrize("way", ["threads", "asyncio"])
def test_in_one_process(model: PretrainedModel, requests: list[Request], expected: list[Answer], way: str) -> None:
    async def gather(part: list[Request]) -> list[Answer]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, answer, model, request) for request in part))

    answers: list[Answer] = []
    sizes = []
    with ThreadPoolExecutor(4) as pool:
        for part in parts(requests):
            answers += asyncio.run(gather(part)) if way == "asyncio" else pool.map(partial(answer, model), part)
            sizes.append(memory())
    assert answers == expected
    print(way, [size >> 20 for size in sizes])
    assert_flat(sizes)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_in_workers(model: PretrainedModel, requests: list[Request], expected: list[Answer], start: str) -> None:
    context = multiprocessing.get_context(start)
    answers: list[Answer] = []
    sizes: list[dict[int, int]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, for a fork beside threads
        with ProcessPoolExecutor(2, mp_context=context, initializer=serve, initargs=(model,)) as pool:
            for part in parts(requests):
                found = list(pool.map(answer_in_worker, part, chunksize=16, timeout=300))
                answers += [one for one, _, _ in found]
                sizes.append({worker: size for _, worker, size in found})
    assert answers == expected
    print(start, [[size >> 20 for size in part.values()] for part in sizes])
    assert len(sizes[0]) == 2
    for worker in sizes[0]:
        assert_flat([part[worker] for part in sizes])
