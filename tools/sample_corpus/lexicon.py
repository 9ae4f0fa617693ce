"""The lexicon as read from the text files beside this module; their first lines explain the columns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from . import english, german

DIRECTORY = Path(__file__).resolve().parent / "lexicon"
Pair = tuple[str, str]


@dataclass(frozen=True)
class Noun:
    """A noun in both languages. An empty plural means that the noun has none."""

    english: str
    english_plural: str
    german: str
    german_plural: str
    gender: str
    weak: bool
    classes: frozenset[str]


@dataclass(frozen=True)
class Adjective:
    """An adjective in both languages; comparatives are "" and the superlative stem is "" where it has none."""

    english: str
    english_comparative: str
    german: str
    german_stem: str
    german_comparative: str
    german_superlative: str
    classes: frozenset[str]


@dataclass(frozen=True)
class Event:
    """A verb with its complements: what can be done by whom to what, in both languages.

    ``slots`` maps the names in the templates to (classes, determiner, number), or to a group of fixed phrases.
    """

    subjects: tuple[str, ...]
    english: str
    german: str
    slots: dict[str, tuple[tuple[str, ...], str, str]]
    aspects: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """Everything the sentence patterns draw from."""

    nouns: tuple[Noun, ...]
    adjectives: tuple[Adjective, ...]
    events: tuple[Event, ...]
    groups: dict[str, tuple[Pair, ...]]
    tables: dict[str, tuple[tuple[str, ...], ...]]
    english_verbs: dict[str, english.Verb]
    german_verbs: dict[str, german.Verb]

    def english_verb(self, base: str) -> english.Verb:
        """The verb, irregular or by rule."""
        return self.english_verbs.get(base) or english.regular_verb(base)

    def german_verb(self, name: str) -> german.Verb:
        """The verb, written with "+" after a separable prefix; irregular, compound of an irregular one, or by rule."""
        if name in self.german_verbs:
            return self.german_verbs[name]
        prefix, _, base = name.rpartition("+")
        if base in self.german_verbs:
            verb = self.german_verbs[base]
            return german.Verb(prefix, base, verb.third, verb.preterite, verb.participle, verb.auxiliary)
        return german.weak_verb(base, prefix)

    def nouns_of(self, classes: tuple[str, ...]) -> list[Noun]:
        """The nouns of any of the classes, in the file's order."""
        return [noun for noun in self.nouns if not noun.classes.isdisjoint(classes)]

    def adjectives_for(self, noun: Noun, attribute: bool = False) -> list[Adjective]:
        """The adjectives that can describe a noun, as its attribute if asked for and else as a predicate."""
        fitting = [adjective for adjective in self.adjectives if not adjective.classes.isdisjoint(noun.classes)]
        return [adjective for adjective in fitting if not (attribute and "!" in adjective.classes)]


def rows(name: str) -> list[list[str]]:
    """The columns of each line of ``lexicon/<name>.txt``, comments and empty lines left out."""
    lines = (DIRECTORY / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [[column.strip() for column in line.split("|")] for line in lines if line.strip() and line[0] != "#"]


def sections(name: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The rows of a file that is divided by headings such as [past]."""
    result: dict[str, list[tuple[str, ...]]] = {}
    heading = ""
    for row in rows(name):
        if row[0].startswith("["):
            heading = row[0].strip("[]")
            result[heading] = []
        else:
            result[heading].append(tuple(row))
    return {key: tuple(value) for key, value in result.items()}


def load() -> Lexicon:
    """Read every file of the lexicon."""
    groups = {key: tuple((row[0], row[1]) for row in value) for key, value in sections("groups").items()}
    return Lexicon(
        nouns=tuple(_nouns()),
        adjectives=tuple(_adjective(row) for row in rows("adjectives")),
        events=tuple(_event(row) for row in rows("events")),
        groups=groups,
        tables=sections("tables"),
        english_verbs={row[0]: english.Verb(*row) for row in rows("verbs_en")},
        german_verbs={row[0]: german.Verb(*_prefix(row[0]), *row[1:]) for row in rows("verbs_de")},
    )


def _prefix(name: str) -> Pair:
    prefix, _, base = name.rpartition("+")
    return prefix, base


def _nouns() -> list[Noun]:
    members: dict[str, list[str]] = {}
    for (line,) in rows("classes"):
        name, _, parts = line.partition(" = ")
        for part in parts.split():
            members.setdefault(part, []).append(name)
    nouns = []
    for english_forms, singular, gender, plural, classes in rows("nouns"):
        base, _, english_plural = english_forms.partition("/")
        own = {base, *classes.split()}
        everything = own | {name for part in own for name in members.get(part, [])}
        german_plural = "" if plural == "-" else plural
        nouns.append(
            Noun(
                base,
                english_plural or english.add_s(base),
                singular,
                german_plural,
                gender[0],
                gender.endswith("w"),
                frozenset(everything),
            )
        )
    return nouns


def _adjective(row: list[str]) -> Adjective:
    base, _, comparative = row[0].partition("/")
    german_forms = (row[1] + "//").split("/")
    word, _, stem = german_forms[0].partition(":")
    return Adjective(base, comparative, word, stem or word, german_forms[1], german_forms[2], frozenset(row[2].split()))


def _event(row: list[str]) -> Event:
    subjects, english_side, german_side, slots, aspects, places = [*row, "", ""][:6]
    parsed = {}
    for name, spec in re.findall(r"(\w)=((?:@\w+)|[^=]*?)(?= \w=|$)", slots):
        classes, determiner, number = [*spec.split(":"), "", ""][:3]
        parsed[name] = (tuple(classes.split()), determiner, number)
    return Event(tuple(subjects.split()), english_side, german_side, parsed, aspects, tuple(places.split()))
