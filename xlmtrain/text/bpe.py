"""Byte-pair encoding (Sennrich et al. 2016): read and write codes, and apply them, with fastBPE where it is installed.

A code merges two neighbouring symbols of a word; codes are applied in the order in which they were learned. The last
symbol of a word ends with ``</w>``. On disk (fastBPE's format): ``left right count``, one code a line.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

from xlmtrain.errors import DataError
from xlmtrain.text.text_files import read_lines
from xlmtrain.text.vocab import CONTINUATION

try:
    import fastBPE as fastBPE
except ImportError:
    fastBPE = None

END_OF_WORD = "</w>"
CACHED_WORDS = 1 << 16
_LOADING = threading.Lock()  # stderr is the whole process's


@dataclass(frozen=True, slots=True)
class Code:
    """Merge ``left`` and ``right``, which were neighbours ``count`` times when the code was learned."""

    left: str
    right: str
    count: int


def reachable_subwords(codes: Iterable[Code], characters: Iterable[str]) -> set[str]:
    """Return every subword that ``codes`` can produce from words of these characters."""
    symbols = {symbol for character in characters for symbol in (character, character + END_OF_WORD)}
    for code in codes:
        symbols |= {code.left, code.right, code.left + code.right}
    return {
        symbol.removesuffix(END_OF_WORD) if symbol.endswith(END_OF_WORD) else symbol + CONTINUATION
        for symbol in symbols
    }


def write_codes(codes: Sequence[Code], path: Path) -> None:
    """Write ``codes`` in fastBPE's format."""
    path.write_bytes("".join(f"{code.left} {code.right} {code.count}\n" for code in codes).encode())


def read_codes(path: str | Path) -> list[Code]:
    """Read codes in fastBPE's format, or in subword-nmt's: ``#version: 0.2``, then ``left right``, which gets count 0.

    Raises DataError with file and line for a line that is not a code or repeats a pair.
    """
    codes: list[Code] = []
    seen: set[tuple[str, str]] = set()
    counts: tuple[str, ...] = ()
    for number, line in read_lines(path, "BPE codes"):
        if number == 1 and line.startswith("#version:"):
            if line.removeprefix("#version:").strip() != "0.2":
                raise DataError(f"{path}:1: codes of subword-nmt before version 0.2 mark the end of words otherwise")
            counts = ("0",)
            continue
        try:
            left, right, count = *line.split(" "), *counts
            codes.append(Code(left, right, int(count)))
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: not a BPE code; expected 'left right count' as fastBPE writes it, or 'left right' "
                "below a first line '#version: 0.2' as subword-nmt does"
            ) from error
        if not left or not right or (left, right) in seen:
            raise DataError(f"{path}:{number}: a BPE code has two non-empty symbols and occurs once")
        seen.add((left, right))
    if not codes:
        raise DataError(f"{path}: no BPE codes in it; expected lines of 'left right count'")
    return codes


class Bpe:
    """Word -> subwords, by applying codes."""

    def __init__(self, codes: str | Path) -> None:
        """``codes``: a file. Raises DataError if it is malformed. fastBPE only makes it faster."""
        listed = read_codes(codes)  # fastBPE kills the process on a malformed file
        self._apply: Callable[[list[str]], Iterable[str]]
        if fastBPE is None:
            ranks = {(code.left, code.right): rank for rank, code in enumerate(listed)}
            self._apply = partial(map, lru_cache(CACHED_WORDS)(partial(merge_symbols, ranks)))
            return
        with _LOADING, _silent_stderr():
            self._apply = fastBPE.fastBPE(str(codes)).apply

    def segment(self, word: str) -> list[str]:
        """Split a word (not empty, no white space) into subwords; all but the last end with ``@@``."""
        return self.segment_all([word])[0]

    def segment_all(self, words: Sequence[str]) -> list[list[str]]:
        """Split many words, which is faster than one by one."""
        return [subwords.split(" ") for subwords in self._apply(list(words))]


def merge_symbols(ranks: Mapping[tuple[str, str], int], word: str) -> str:
    """Return the subwords of ``word``, divided by blanks. ``ranks``: pair of symbols -> its position among the codes.

    The pair with the lowest rank is merged wherever it occurs, from the left, until no pair has a rank.
    """
    symbols = [*word[:-1], word[-1] + END_OF_WORD]
    while len(symbols) > 1:
        pair = min(pairwise(symbols), key=lambda pair: ranks.get(pair, len(ranks)))
        if pair not in ranks:
            break
        merged: list[str] = []
        for symbol in symbols:
            if merged and (merged[-1], symbol) == pair:
                merged[-1] += symbol
            else:
                merged.append(symbol)
        symbols = merged
    return f"{CONTINUATION} ".join(symbols).removesuffix(END_OF_WORD)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discard what fastBPE prints on the C-level stderr while it loads codes."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
