"""English inflection: articles, plurals and verb forms by rule; irregular forms come from the lexicon."""

from __future__ import annotations

import re
from dataclasses import dataclass

VOWEL_SOUND = re.compile(r"(?!uni|use|eu|one)[aeiou]|hour|hon", re.IGNORECASE)
# Verbs of more than one syllable whose last one is stressed, so that the consonant doubles.
DOUBLED = ("begin", "forget", "prefer", "admit", "refer", "travel", "cancel", "quarrel")
BE_PRESENT = {"1s": "am", "3s": "is"}


@dataclass(frozen=True)
class Verb:
    """A verb's base, past and past participle."""

    base: str
    past: str
    participle: str

    def third(self) -> str:
        """The third person singular: goes, tries."""
        if self.base in ("be", "have"):
            return {"be": "is", "have": "has"}[self.base]
        return add_s(self.base)

    def ing(self) -> str:
        """The present participle: making, running, lying."""
        if self.base.endswith("ie"):
            return self.base[:-2] + "ying"
        if self.base.endswith("e") and not self.base.endswith(("ee", "oe")) and self.base != "be":
            return self.base[:-1] + "ing"
        return doubled(self.base) + "ing"


def add_s(word: str) -> str:
    """The plural of a noun, or third person of a verb, by rule: boxes, cities, days."""
    if word.endswith(("s", "x", "z", "ch", "sh", "o")) and word not in ("photo", "piano", "radio", "video", "zoo"):
        return word + "es"
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + "s"


def doubled(base: str) -> str:
    """``base`` as it stands before -ed and -ing: stop -> stopp."""
    short = re.fullmatch(r"[^aeiou]*[aeiou][bdgklmnprt]", base)
    return base + base[-1] if short or base in DOUBLED else base


def regular_verb(base: str) -> Verb:
    """A verb conjugated by rule: try, tried, tried."""
    if base.endswith("e"):
        past = base + "d"
    elif re.search(r"[^aeiou]y$", base):
        past = base[:-1] + "ied"
    else:
        past = doubled(base) + "ed"
    return Verb(base, past, past)


def with_a(phrase: str) -> str:
    """``phrase`` after the indefinite article: an apple, a house, an hour, a university."""
    return ("an " if VOWEL_SOUND.match(phrase) else "a ") + phrase


def be(person: str, past: bool) -> str:
    """A finite form of "to be" for a person such as "3s"; "2s" and all plurals are alike."""
    if past:
        return "was" if person in ("1s", "3s") else "were"
    return BE_PRESENT.get(person, "are")
