"""Byte-pair encoding (Sennrich et al. 2016): learning codes from word counts, and applying them with fastBPE.

A code joins two neighbouring symbols of a word; codes are applied in the order in which they were learned. The last
symbol of a word ends with ``</w>``. On disk (fastBPE's format): ``left right count`` a line.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from xlmtrain.errors import DataError

try:
    import fastBPE
except ImportError:
    fastBPE = None

END_OF_WORD = "</w>"


@dataclass(frozen=True, slots=True)
class Code:
    """Join ``left`` and ``right``, which stood side by side ``count`` times when the code was learned."""

    left: str
    right: str
    count: int


def learn_bpe(
    word_counts: Mapping[str, int], merges: int, progress: Callable[[int], object] = lambda learned: None
) -> list[Code]:
    """At most ``merges`` codes, fewer if no pair of symbols is left.

    The most frequent pair comes first; pairs of equal count are ordered by their strings' code points, so the result
    depends on nothing but the counts. Overlapping occurrences (``a a a``) all count, and are joined from the left.
    ``progress`` is called with the number of codes learned so far.

    A code changes only the words that hold its pair, so the whole work grows with the symbols in the distinct words.
    """
    learner = _Learner(word_counts)
    codes: list[Code] = []
    while len(codes) < merges and (code := learner.next()) is not None:
        codes.append(code)
        progress(len(codes))
    return codes


class _Learner:
    """Words as lists of symbols; for each pair its count and the words it was ever seen in (some twice).

    A pair's count can only fall after the step that first made it, as each string is only ever made by one pair. So
    the heap holds an upper bound for every pair, put right when it comes to the top.
    """

    def __init__(self, word_counts: Mapping[str, int]) -> None:
        items = [(word, count) for word, count in word_counts.items() if word and count > 0]
        # Interned: millions of symbols share a few strings, and comparing them is comparing addresses.
        self._words = [list(map(sys.intern, [*word[:-1], word[-1] + END_OF_WORD])) for word, _ in items]
        self._word_counts = [count for _, count in items]
        self._pair_counts: dict[tuple[str, str], int] = defaultdict(int)
        self._words_of: dict[tuple[str, str], array[int]] = defaultdict(partial(array, "L"))
        for index, (symbols, count) in enumerate(zip(self._words, self._word_counts)):
            for pair in pairwise(symbols):
                self._pair_counts[pair] += count
                self._words_of[pair].append(index)
        self._heap = [(-count, pair) for pair, count in self._pair_counts.items()]
        heapq.heapify(self._heap)

    def next(self) -> Code | None:
        """Join the most frequent pair everywhere; None when every word is one symbol."""
        while self._heap:
            bound, pair = heapq.heappop(self._heap)
            count = self._pair_counts.get(pair, 0)
            if count == -bound:
                self._join(*pair)
                return Code(*pair, count)
            if count:
                heapq.heappush(self._heap, (-count, pair))
        return None

    def _join(self, left: str, right: str) -> None:
        joined = left + right
        counts, words_of = self._pair_counts, self._words_of
        made: set[tuple[str, str]] = set()
        for index in words_of.pop((left, right)):
            symbols, count = self._words[index], self._word_counts[index]
            start = 0
            while (start := _find(symbols, left, right, start)) >= 0:
                if start > 0:
                    before = symbols[start - 1]
                    counts[before, left] -= count
                    counts[before, joined] += count
                    words_of[before, joined].append(index)
                    made.add((before, joined))
                if start + 2 < len(symbols):
                    after = symbols[start + 2]
                    counts[right, after] -= count
                    counts[joined, after] += count
                    words_of[joined, after].append(index)
                    made.add((joined, after))
                symbols[start : start + 2] = [joined]
                start += 1
        del counts[left, right]
        for pair in made:
            # A pair that was made and joined over within one word (joined joined, in "a a a a") may be back at 0.
            if counts[pair]:
                heapq.heappush(self._heap, (-counts[pair], pair))
            else:
                del counts[pair]


def _find(symbols: Sequence[str], left: str, right: str, start: int) -> int:
    """Index of the first ``left right`` from ``start`` on, or -1."""
    for i in range(start, len(symbols) - 1):
        if symbols[i] == left and symbols[i + 1] == right:
            return i
    return -1


def balanced_counts(counts: Mapping[str, Mapping[str, int]], alpha: float) -> Counter[str]:
    """Word counts of several languages (language -> word -> count) as one, for :func:`learn_bpe`.

    A language of n running words gets a share proportional to n^alpha (Conneau & Lample 2019, section 3.1, with
    alpha 0.5). The largest one keeps its counts and the others are scaled up: scaling down would round rare words away.
    """
    sizes = {language: sum(words.values()) for language, words in counts.items() if words}
    balanced: Counter[str] = Counter()
    for language, size in sizes.items():
        factor = (max(sizes.values()) / size) ** (1 - alpha)
        for word, count in counts[language].items():
            balanced[word] += round(count * factor)
    return balanced


def write_codes(codes: Sequence[Code], path: Path) -> None:
    """Write fastBPE's format."""
    path.write_bytes("".join(f"{code.left} {code.right} {code.count}\n" for code in codes).encode())


def read_codes(path: str | Path) -> list[Code]:
    """Raises DataError with file and line for what is not ``left right count``, or repeats a pair."""
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot read the BPE codes: {error.strerror}") from error
    codes: list[Code] = []
    seen: set[tuple[str, str]] = set()
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, start=1):
        try:
            left, right, count = line.decode().split(" ")
            codes.append(Code(left, right, int(count)))
        except ValueError as error:
            raise DataError(f"{path}:{number}: not a BPE code; expected 'left right count' in UTF-8") from error
        if not left or not right or (left, right) in seen:
            raise DataError(f"{path}:{number}: a BPE code has two non-empty symbols and occurs once")
        seen.add((left, right))
    if not codes:
        raise DataError(f"{path}: no BPE codes in it; expected lines of 'left right count'")
    return codes


class Bpe:
    """Applies codes: word -> subwords."""

    def __init__(self, codes: str | Path) -> None:
        """``codes``: a file. Raises DataError if it is malformed, or if the fastBPE package is missing."""
        require_fastbpe()
        read_codes(codes)  # fastBPE takes the process down on a bad file
        with _silent_stderr():
            self._apply = fastBPE.fastBPE(str(codes)).apply

    def segment(self, word: str) -> list[str]:
        """One word (not empty, no white space) -> its subwords, all but the last ending with ``@@``."""
        return self.segment_all([word])[0]

    def segment_all(self, words: Sequence[str]) -> list[list[str]]:
        """Many words at once, which is faster."""
        return [subwords.split(" ") for subwords in self._apply(list(words))]


def require_fastbpe() -> None:
    """Raises DataError, saying how to install it, if the fastBPE package is missing."""
    if fastBPE is None:
        raise DataError(
            "the fastBPE package is missing; install it with: pip install cython setuptools wheel && "
            "pip install --no-build-isolation fastBPE==0.1.0"
        )


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """fastBPE reports its loading on the C-level stderr, once for every worker process."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
