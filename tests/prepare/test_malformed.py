"""Text as it should not be, through the whole program: a malformed line is dropped for its reason or comes out mended,
both sides of a pair stay together, and memory stays small."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.programs import script
from xlmtrain.data.dataset import Dataset

Malform = Callable[[str], bytes]
GIGABYTE = 10**9

# What is done to a line, by what becomes of it: dropped for a reason, or kept.
KINDS: dict[str, list[Malform]] = {
    "invalid_utf8": [
        lambda line: f"{line} Größe".encode("latin-1"),
        lambda line: line.encode() + b" \xff\xfe",
        lambda line: line.encode() + b" cut \xc3",
        lambda line: line.encode() + b" overlong \xc0\xaf",
        lambda line: line.encode() + b" surrogate \xed\xa0\x80",
    ],
    "max_chars": [
        lambda line: line.encode() + b" word" * 600,
        lambda line: f"{line} {'ü' * 2001}".encode(),
    ],
    "empty": [
        lambda _: b"",
        lambda _: b" \t ",
        lambda _: b"\r",
        lambda _: b"\x00",
        lambda _: "\u200b\u2028 \u0085".encode(),
    ],
    "": [
        lambda line: line.encode() + b"\r",
        lambda line: f"\ufeff{line}".encode(),
        lambda line: line.encode() + b" nul\x00byte",
        lambda line: f"{line} next\u0085line\u2028separator\u2029".encode(),
        lambda line: line.replace(" ", "\t").encode(),
        lambda line: f"{line} Mu\u0308ller".encode(),
        lambda line: f"{line} Müller".encode(),
        lambda line: line.encode() + b" \x1b[31mred\x07",
        lambda line: f"{line} \U0001f600 \ufffd \u202e".encode(),
    ],
}


def write_malformed(directory: Path, count: int) -> dict[str, int]:
    """Pairs of files in which one side of ``count`` pairs is malformed; how many for which reason to drop them."""
    rng = random.Random(32)
    injected: Counter[str] = Counter()
    sides: dict[str, list[bytes]] = {"de": [], "en": []}
    for number in range(count + count // 10):
        for side, words in (("de", "Satz Nummer"), ("en", "sentence number")):
            sides[side].append(f"{words} {number} .".encode())
        if number % 11:
            kind = rng.choice(list(KINDS))
            injected[kind] += 1
            side = rng.choice(list(sides))
            sides[side][-1] = rng.choice(KINDS[kind])(sides[side][-1].decode())
    for number, side in ((5, "de"), (7, "en")):  # a line of ten megabytes, of one word and of many
        injected["max_chars"] += sides[side][11 * number] != b""
        sides[side][11 * number] = b"x" * 10_000_000 if side == "de" else b"x " * 5_000_000
    for side, lines in sides.items():
        (directory / f"x.{side}").write_bytes(b"".join(line + b"\n" for line in lines))
    del injected[""]
    return dict(injected)


# A process begins with the high mark of the one that started it, which must be small therefore, unlike a test's.
LAUNCHER = """
import resource, subprocess, sys
limit = int(sys.argv[1]) or resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
done = subprocess.run([sys.executable, *sys.argv[2:]], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(done.returncode)
"""


def most_resident(*settings: str, addresses: int = 0) -> int:
    """Prepare; the most bytes that one of the processes had resident. ``addresses``: so many bytes each may have."""
    done = programs.run("-c", LAUNCHER, str(addresses), script("prepare"), *settings, timeout=600)
    return int(done.stdout)


def test_20000_malformed_lines_are_dropped_for_their_reason_or_mended(tmp_path: Path) -> None:
    injected = write_malformed(tmp_path, 20_000)
    assert set(injected) == {"invalid_utf8", "max_chars", "empty"}
    settings = ["bpe.merges=100", "workers=1", "clean.max_chars=2000", "clean.invalid_utf8=drop"]
    pairs = f"train.pairs={{de-en: ['{tmp_path}/x.{{lang}}']}}"
    assert most_resident(f"output={tmp_path}/data", pairs, *settings) < GIGABYTE / 2

    statistics = json.loads((tmp_path / "data" / "statistics.json").read_text(encoding="utf-8"))
    for file in statistics["files"]:
        assert {reason: count for reason, count in file["dropped"].items() if count} == injected
        assert file["lines"] == 22_000
        assert file["sentences"] == 22_000 - sum(injected.values())
    dataset = Dataset(tmp_path / "data")
    sides = dataset.pair("train", "de-en")
    kept: list[set[str]] = []
    for number in range(len(sides[0])):
        texts = [dataset.vocab.decode(side.sentence(number)[:-1].tolist()) for side in sides]
        assert not re.search(r"[\x00-\x1f\x7f\u0085\u2028\u2029\ufeff]", "".join(texts)), texts
        german, english = (re.search(r"(?:Nummer|number) (\d+)", text) for text in texts)
        assert german is not None
        assert english is not None
        assert german[1] == english[1]
        kept.append({german[1]})
    assert len(kept) == 22_000 - sum(injected.values())


@pytest.mark.slow
def test_forty_megabytes_are_prepared_within_two_gigabytes_of_addresses(tmp_path: Path) -> None:
    """Each process may have no more; what they have resident is far from it, and does not grow with the text, whose
    20,000 words are all met soon."""
    rng = random.Random(40)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyzäöü", k=rng.randrange(2, 12))) for _ in range(20_000)]
    resident = []
    for megabytes in (10, 40):
        source = tmp_path / f"{megabytes}.de"
        with source.open("w", encoding="utf-8") as file:
            while file.tell() < megabytes * 10**6:
                file.write(" ".join(words[int(20_000 * rng.random() ** 3)] for _ in range(20)) + ".\n")
        settings = [f"train.mono={{de: ['{source}']}}", "bpe.merges=500", "workers=2", "shard_mb=4"]
        resident.append(most_resident(f"output={tmp_path}/{megabytes}", *settings, addresses=2 * GIGABYTE))
    assert max(resident) < GIGABYTE
    assert resident[1] < resident[0] + 10**7
