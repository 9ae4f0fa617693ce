"""The corpus: sentences from every pattern, all of them distinct, split so that nothing held out occurs in training."""

from __future__ import annotations

import random
import re
from collections import Counter

from .composer import Composer
from .lexicon import Pair, load, rows
from .patterns import complex as complex_sentences
from .patterns import nominal, numbers, simple
from .patterns.sentence import Pattern

SEED = 20240229
HELD_OUT = 500
# How many pairs each pattern gives.
QUOTAS: tuple[tuple[Pattern, int], ...] = (
    (simple.statement, 4300),
    (simple.yes_no_question, 900),
    (simple.wh_question, 500),
    (simple.who_question, 350),
    (simple.what_question, 350),
    (simple.imperative, 450),
    (complex_sentences.object_relative, 400),
    (complex_sentences.subject_relative, 500),
    (simple.passive, 500),
    (simple.likes, 350),
    (complex_sentences.that_clause, 700),
    (complex_sentences.whether_clause, 350),
    (complex_sentences.meanwhile, 300),
    (complex_sentences.linked, 900),
    (complex_sentences.purpose, 300),
    (nominal.description, 600),
    (nominal.comparison, 250),
    (nominal.superlative, 200),
    (nominal.whereabouts, 400),
    (nominal.belonging, 250),
    (simple.weather, 150),
    (nominal.occupation, 150),
    (numbers.numbers, 350),
)
WORD_LIMITS = (3, 20)
ADDRESS = ("du|dich|dir|dein\\w*|sag", "euch|eue?r\\w*", "Sie|Ihnen|Ihr\\w*")  # du, ihr and Sie do not go together
ENOUGH = 4  # a word of a held-out sentence occurs in training at least so often


def words(text: str) -> list[str]:
    """The words of a sentence, punctuation left out."""
    return re.findall(r"[\w'-]+", text)


def generate() -> dict[str, list[Pair]]:
    """The splits "train", "valid" and "test" as lists of (English, German), the same at every call."""
    composer = Composer(load(), random.Random(SEED))
    pairs = [(row[0], row[1]) for row in rows("phrases")]
    seen_english = {pair[0] for pair in pairs}
    seen_german = {pair[1] for pair in pairs}
    fixed = len(pairs)
    for pattern, quota in QUOTAS:
        found = 0
        for _ in range(50 * quota):
            pair = pattern(composer)
            if pair and pair[0] not in seen_english and pair[1] not in seen_german and _fits(pair):
                seen_english.add(pair[0])
                seen_german.add(pair[1])
                pairs.append(pair)
                found += 1
            if found == quota:
                break
        else:
            raise ValueError(f"{pattern.__name__} gives only {found} distinct pairs, {quota} are asked for")
    return _split(composer, pairs[:fixed], pairs[fixed:])


def _fits(pair: Pair) -> bool:
    forms = sum(bool(re.search(rf"(?<=[ ,])({form})\b", pair[1])) for form in ADDRESS)
    return forms <= 1 and all(WORD_LIMITS[0] <= len(words(text)) <= WORD_LIMITS[1] for text in pair)


def _split(composer: Composer, fixed: list[Pair], drawn: list[Pair]) -> dict[str, list[Pair]]:
    """Hold out drawn pairs at random whose words are all common enough in what is left; order every split at random."""
    counts = Counter((side, word) for pair in fixed + drawn for side in (0, 1) for word in words(pair[side]))
    held: list[Pair] = []
    train = list(fixed)
    for pair in sorted(drawn, key=lambda pair: composer.source.random()):
        used = Counter((side, word) for side in (0, 1) for word in words(pair[side]))
        if len(held) < 2 * HELD_OUT and all(counts[key] - number >= ENOUGH for key, number in used.items()):
            counts -= used
            held.append(pair)
        else:
            train.append(pair)
    train.sort(key=lambda pair: composer.source.random())
    return {"train": train, "valid": held[:HELD_OUT], "test": held[HELD_OUT:]}
