"""Learning codes: as by hand, and as by counting everything anew after every step."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from xlmtrain.text import bpe_trainer
from xlmtrain.text.bpe import Code
from xlmtrain.text.bpe_trainer import learn_bpe


def test_learned_codes_and_the_order_of_ties_are_those_computed_by_hand() -> None:
    counts = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    # 9: (e s) before (s t</w>); 6: (e w) before (n e) and (w est</w>), then (ew est</w>) before (n ew)
    assert learn_bpe(counts.items(), 6) == [
        Code("e", "s", 9),
        Code("es", "t</w>", 9),
        Code("l", "o", 7),
        Code("e", "w", 6),
        Code("ew", "est</w>", 6),
        Code("n", "ewest</w>", 6),
    ]


def test_the_order_of_the_words_does_not_matter() -> None:
    counts = {"abab": 3, "baba": 3, "aabb": 2, "bbaa": 2}
    assert learn_bpe(counts.items(), 20) == learn_bpe(reversed(counts.items()), 20)


def test_overlapping_pairs_all_count_and_are_joined_from_the_left() -> None:
    assert learn_bpe([("aaaa", 1)], 10) == [Code("a", "a", 2), Code("a", "a</w>", 1), Code("aa", "aa</w>", 1)]
    assert learn_bpe([("aaaab", 2)], 3) == [Code("a", "a", 6), Code("aa", "aa", 2), Code("aaaa", "b</w>", 2)]


def test_learning_ends_when_no_pair_is_left() -> None:
    assert learn_bpe([("ab", 1), ("c", 9), ("d", 0)], 5) == [Code("a", "b</w>", 1)]
    assert learn_bpe([], 5) == []


def recount(words: dict[str, int], codes: list[Code]) -> Counter[tuple[str, str]]:
    """Pair counts after ``codes``, by applying them to whole words from scratch."""
    pairs: Counter[tuple[str, str]] = Counter()
    for word, count in words.items():
        symbols = [*word[:-1], word[-1] + "</w>"]
        for code in codes:
            joined: list[str] = []
            while symbols:
                if symbols[:2] == [code.left, code.right]:
                    joined.append("".join(symbols[:2]))
                    symbols = symbols[2:]
                else:
                    joined.append(symbols.pop(0))
            symbols = joined
        for pair in itertools.pairwise(symbols):
            pairs[pair] += count
    return pairs


@pytest.mark.parametrize("count_range", [1, 4, 1 << 15])
def test_every_code_is_the_most_frequent_pair_of_a_full_recount(
    count_range: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpe_trainer, "COUNT_RANGE", count_range)
    words = {"aaabaaa": 3, "abaab": 2, "aaaaa": 5, "baaab": 1, "bab": 4, "aabaabaab": 2, "bbbb": 3, "größe": 2}
    codes = learn_bpe(words.items(), 100)
    assert len(codes) > 15
    for i, code in enumerate(codes):
        pair, count = min(recount(words, codes[:i]).items(), key=lambda item: (-item[1], item[0]))
        assert (code.left, code.right, code.count) == (*pair, count)
    assert not recount(words, codes)


@pytest.mark.parametrize("seed", range(20))
def test_random_words_are_learned_as_by_full_recounts(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few letters make long runs, which overlap and are joined into their own neighbours."""
    rng = random.Random(seed)
    monkeypatch.setattr(bpe_trainer, "COUNT_RANGE", rng.choice([1, 2, 1000]))
    monkeypatch.setattr(bpe_trainer, "_POSITIONS_PER_BLOCK", rng.choice([7, 1000]))
    monkeypatch.setattr(bpe_trainer, "_BUCKET_BITS", rng.choice([1, 3, 20]))
    monkeypatch.setattr(bpe_trainer, "_WORDS_PER_BLOCK", rng.choice([1, 5, 1000]))
    letters = rng.choice(["ab", "abcäß", "a漢\U0001f600"])
    words = {"".join(rng.choices(letters, k=rng.randrange(1, 12))): rng.randrange(1, 9) for _ in range(25)}
    codes = learn_bpe(words.items(), 60)
    for i, code in enumerate(codes):
        pair, count = min(recount(words, codes[:i]).items(), key=lambda item: (-item[1], item[0]))
        assert (code.left, code.right, code.count) == (*pair, count)
    assert len(codes) == 60 or not recount(words, codes)


def test_counts_beyond_32_bits() -> None:
    assert learn_bpe([("ab", 3_000_000_000), ("abc", 3_000_000_000)], 1) == [Code("a", "b", 3_000_000_000)]
    assert learn_bpe([("xab", 3_000_000_000), ("yab", 3_000_000_000)], 1) == [Code("a", "b</w>", 6_000_000_000)]
