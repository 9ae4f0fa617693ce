"""Drawing phrases and clauses at random, within what the lexicon allows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from .clause import Clause
from .lexicon import Event, Lexicon, Noun, Pair
from .phrase import OWNERS, Phrase, noun_phrase, pronoun

T = TypeVar("T")
NAMES_F = ("Anna", "Maria", "Lena", "Clara", "Julia", "Sophie", "Laura", "Emma")
NAMES_M = ("Paul", "Thomas", "Jonas", "Felix", "Peter", "Max", "Lukas", "Martin")
SURNAMES = ("Müller", "Schmidt", "Weber", "Fischer", "Wagner", "Becker", "Klein", "Braun")
NUMERALS = (("two", "zwei"), ("three", "drei"), ("four", "vier"), ("five", "fünf"), ("six", "sechs"), ("ten", "zehn"))
FIRST_SECOND = ("I", "you", "we", "you_p", "You")
PEOPLE = ("person", "adult")
MODAL_WEIGHTS = (
    (3.0, "can"),
    (3.0, "have to"),
    (2.0, "should"),
    (0.3, "may"),
    (2.0, "want to"),
    (1.5, "would like to"),
)
SPEAKERS = ("I", "I", "I", "you", "he", "he", "she", "she", "we", "we", "they", "they", "You")


@dataclass
class Composer:
    """A lexicon with a source of chance; only Random.random() is used, whose values never change between Pythons."""

    lexicon: Lexicon
    source: random.Random
    deck: list[Event] = field(default_factory=list)

    def event(self, fits: Callable[[Event], bool] = lambda event: True) -> Event:
        """An event that ``fits``; each is drawn once before any is drawn again, so that all words get their share."""
        for _ in range(2):
            for index, event in enumerate(self.deck):
                if fits(event):
                    return self.deck.pop(index)
            self.deck += sorted(self.lexicon.events, key=lambda event: self.source.random())
        raise ValueError("no event of the lexicon fits")

    def chance(self, probability: float) -> bool:
        """True with ``probability``."""
        return self.source.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, each as likely as another."""
        return items[int(self.source.random() * len(items))]

    def weighted(self, choices: Sequence[tuple[float, T]]) -> T:
        """One of the (weight, value) pairs' values."""
        point = self.source.random() * sum(weight for weight, _ in choices)
        for weight, value in choices:
            point -= weight
            if point < 0:
                return value
        return choices[-1][1]

    def group(self, *names: str) -> Pair:
        """A fixed phrase of any of the groups."""
        return self.pick([pair for name in names for pair in self.lexicon.groups[name]])

    # --- noun phrases

    def subject(self, event: Event) -> Phrase:
        """Who does it."""
        if event.subjects[0] in PEOPLE:
            return self.person(children=event.subjects[0] == "person")
        noun = self.pick(self.lexicon.nouns_of(event.subjects))
        if "body" in noun.classes:
            number = "p" if noun.german_plural and self.chance(0.4) else "s"
            return noun_phrase(noun, self.pick(("I", "you", "he", "she")), number)
        return self.phrase(noun, self.weighted([(6, "the"), (1, "this"), (2, "the:p")]))

    def person(self, children: bool = True) -> Phrase:
        """A pronoun, a name, a relative, or someone by profession."""
        kind = self.weighted([(9, "pronoun"), (5, "name"), (3, "kin"), (6, "noun")])
        if kind == "pronoun":
            return pronoun(self.pick(SPEAKERS))
        if kind == "name":
            return self.name()
        if kind == "kin":
            return self.kin(self.pick(("I", "I", "we", "you", "he", "she")))
        noun = self.pick(self.lexicon.nouns_of(("pro", "folk", "kid") if children else ("pro", "folk")))
        if "friends" in noun.classes:
            return self.phrase(noun, self.pick(("I", "we", "you", "he", "she")))
        return self.phrase(noun, self.weighted([(6, "the"), (1, "this"), (1, "the:p")]))

    def asked(self, event: Event) -> Phrase:
        """Whom a question is about: often the one who is addressed, never the one who asks."""
        if event.subjects[0] not in PEOPLE:
            return self.subject(event)
        if self.chance(0.45):
            return pronoun(self.pick(("you", "you", "you_p", "You", "You")))
        while (person := self.person(children=event.subjects[0] == "person")).owner == "I" and person.pronoun:
            pass
        return person

    def third_person(self) -> Phrase:
        """A person who is not addressed and does not speak."""
        while (person := self.person()).owner in FIRST_SECOND and person.pronoun:
            pass
        return person

    def name(self) -> Phrase:
        """A first name, or Mr/Mrs and a surname."""
        if self.chance(0.2):
            surname = self.pick(SURNAMES)
            if self.chance(0.5):
                text = f"Mr {surname}"
                forms = dict.fromkeys(("acc", "dat"), f"Herrn {surname}")
                return Phrase(text, text, {"nom": f"Herr {surname}", **forms}, owner="he", name=True)
            text, german_name = f"Mrs {surname}", f"Frau {surname}"
            return Phrase(text, text, dict.fromkeys(("nom", "acc", "dat"), german_name), owner="she", name=True)
        female = self.chance(0.5)
        name = self.pick(NAMES_F if female else NAMES_M)
        forms = dict.fromkeys(("nom", "acc", "dat"), name)
        return Phrase(name, name, forms, owner="she" if female else "he", name=True)

    def kin(self, owner: str) -> Phrase:
        """Somebody's relative."""
        noun = self.pick(self.lexicon.nouns_of(("kin",)))
        plural = "sibling" in noun.classes and self.chance(0.2)
        return noun_phrase(noun, owner, "p" if plural else "s")

    def phrase(self, noun: Noun, kind: str, described: float = 0.3) -> Phrase:
        """A noun with article ``kind`` (":p" for the plural), described by an adjective now and then."""
        article, _, number = kind.partition(":")
        if number == "p" and not noun.german_plural:
            number, article = "s", article
        elif article == "a" and not noun.german_plural:
            article = ""
        adjective = None
        fitting = self.lexicon.adjectives_for(noun, attribute=True)
        if fitting and article not in OWNERS and self.chance(described):
            adjective = self.pick(fitting)
        return noun_phrase(noun, article, number or "s", adjective)

    def object(self, spec: tuple[tuple[str, ...], str, str], owner: str | None, avoid: str = "") -> Phrase:
        """What fills a slot, for a subject that is ``owner``; a noun of the English name ``avoid`` is left out."""
        classes, determiner, number = spec
        if classes[0].startswith("@"):
            english_text, german_text = self.group(classes[0][1:])
            return Phrase(english_text, english_text, dict.fromkeys(("nom", "acc", "dat"), german_text))
        if classes == ("friendly",) and self.chance(0.4):
            return self._somebody(owner)
        nouns = [noun for noun in self.lexicon.nouns_of(classes) if noun.english != avoid]
        if owner == "he":
            nouns = [noun for noun in nouns if "fwear" not in noun.classes]
        noun = self.pick(nouns)
        if not noun.classes.isdisjoint(("kin", "friends")):
            return noun_phrase(noun, owner or "we")
        return self._with_determiner(noun, determiner, number, owner)

    def _somebody(self, owner: str | None) -> Phrase:
        if self.chance(0.5):
            return self.name()
        speaking = {"I": ("you", "he", "she", "they", "You"), "we": ("you", "he", "she", "they", "You")}
        address = {"you": ("I", "he", "she", "we", "they"), "you_p": ("I", "us", "she"), "You": ("I", "he", "we")}
        choices = {**speaking, **address, "you_p": ("I", "he", "she", "we")}.get(owner or "", ("I", "you", "we", "You"))
        return pronoun(self.pick(choices))

    def _with_determiner(self, noun: Noun, determiner: str, number: str, owner: str | None) -> Phrase:
        countable = bool(noun.german_plural)
        if determiner == "play":
            return replace(noun_phrase(noun, ""), object=f"the {noun.english}")
        if determiner == "any":
            kind = self.weighted([(5, "the"), (1.5, "the:p"), (3, "a"), (1.5, "own"), (1, "this")])
        elif determiner == "the":
            kind = self.weighted([(7, "the"), (1, "this"), (1.5, "the:p")])
        elif determiner == "own":
            kind = self.weighted([(7, "own"), (2, "the")])
        elif determiner == "some":
            single = "single" in noun.classes and self.chance(0.4)
            kind = "a" if single else "some:p" if countable else "some"
        elif determiner == "many":
            kind = self.weighted([(3, "some:p"), (1, "count")]) if countable else "some"
        else:
            kind = determiner
        if kind == "count":
            return noun_phrase(noun, "", "p", count=self.pick(NUMERALS))
        article, _, drawn = kind.replace("some", "").partition(":")
        if article in ("own", "body"):
            article = {"own": owner or "the", "body": f"body {owner or 'they'}"}[article]
        if number == "p" and article == "a":
            article = ""
        return self.phrase(noun, f"{article}:{number or drawn}")

    # --- clauses

    def clause(self, event: Event, subject: Phrase | None = None) -> Clause:
        """The event in the present, its slots filled."""
        subject = subject or self.subject(event)
        fills: dict[str, Phrase] = {}
        for name, spec in event.slots.items():
            taken = next((phrase.object.split()[-1] for phrase in fills.values()), "")
            phrase = self.object(spec, subject.owner, avoid=taken)
            while phrase.object == subject.object:
                phrase = self.object(spec, subject.owner, avoid=taken)
            fills[name] = phrase
        return Clause(self.lexicon, subject, event, fills, short=self.chance(0.6))

    def varied(self, clause: Clause, aspects: str = "hspdrfm", negation: float = 0.2) -> Clause:
        """The clause in one of the tenses its event allows, with circumstances of time and place."""
        event = clause.event
        weights = {"h": 2.0, "s": 3.0, "p": 2.5, "d": 4.0, "r": 1.5, "f": 1.5, "m": 2.5}
        choices = [(weights[letter], letter) for letter in event.aspects if letter in aspects and letter in weights]
        letter = self.weighted(choices) if choices else "s"
        object_group = "O" in event.slots and event.slots["O"][0][0].startswith("@")
        counted = any(event.slots[name][1] == "many" and phrase.definite for name, phrase in clause.fills.items())
        negated = "k" not in event.aspects and not object_group and not counted and self.chance(negation)
        clause = self._in_tense(replace(clause, negated=negated), letter)
        if "T" in event.aspects:
            clause = replace(clause, time=None)
        wanted = "P" in event.aspects or (not negated and letter not in "sr" and self.chance(0.4))
        return self.placed(clause) if event.places and wanted else clause

    def placed(self, clause: Clause) -> Clause:
        """The clause with one of the places, or ways, that belong to its event."""
        place = self.group(*clause.event.places)
        lone = clause.subject.person.endswith("s") and place[0] == "together"
        return clause if lone else replace(clause, place=place)

    def narrated(self, subject: Phrase) -> bool:
        """Whether the German past is to be the preterite: now and then, and of third persons only."""
        return subject.person[0] == "3" and subject.owner != "You" and self.chance(0.5)

    def _in_tense(self, clause: Clause, letter: str) -> Clause:
        if letter == "h":
            often, every = self.chance(0.5), self.chance(0.6)
            if clause.negated:
                return replace(clause, tense="present")
            if often:
                return replace(clause, tense="present", often=self.group("often"))
            return replace(clause, tense="present", time=self.group("every") if every else None)
        if letter == "p":
            time = self.weighted([(4, None), (2, self.group("now")), (1, ("now", "gerade"))])
            return replace(clause, tense="progressive", time=None if clause.negated else time)
        longer = "long" if "L" in clause.event.aspects else ""
        if letter == "d":
            group = "oldtimes" if "B" in clause.event.aspects else longer + "past"
            time = self.group(group) if self.chance(0.8) else None
            narrative = self.narrated(clause.subject)
            if "m" in clause.event.aspects and self.chance(0.15):
                modal = self.pick(("can", "want to") if clause.negated else ("have to", "want to"))
                return replace(clause, tense="past modal", modal=modal, time=time)
            return replace(clause, tense="past", time=time, narrative=narrative)
        if letter == "r":
            return replace(clause, tense="perfect", already=("already", "schon"))
        if letter == "f":
            return replace(clause, tense="future", time=self.group(longer + "future") if self.chance(0.7) else None)
        if letter == "m":
            modal = self.weighted(MODAL_WEIGHTS[: -1 if clause.negated else None])  # "would like to" is not negated
            time = self.group("modaltime") if self.chance(0.45) and modal != "can" and not longer else None
            return replace(clause, tense="modal", modal=modal, time=time)
        return replace(clause, tense="present")
