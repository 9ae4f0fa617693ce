"""What the sentence patterns share. A pattern draws one sentence pair, or None where the draw does not fit it."""

from __future__ import annotations

from collections.abc import Callable

from .. import english, german
from ..clause import Clause
from ..composer import Composer
from ..lexicon import Adjective, Event, Pair
from ..phrase import OWNERS, Phrase

Pattern = Callable[[Composer], "Pair | None"]
DEGREES = (("", ""), ("", ""), ("very", "sehr"), ("really", "wirklich"), ("quite", "ziemlich"))


def sentence(english_text: str, german_text: str, mark: str = ".") -> Pair:
    """The pair with capitals at the start and ``mark`` at the end."""
    return tuple(text[0].upper() + text[1:] + mark for text in (english_text, german_text))  # type: ignore[return-value]


def copula(subject: Phrase, past: bool) -> Pair:
    """ "is" and "ist", or their forms in the past and the plural."""
    person = subject.person
    return english.be(subject.english_person, past), ("war" if person in ("1s", "3s") else "waren") if past else (
        german.IRREGULAR_PRESENT["sein"][german.PERSONS.index(person)]
    )


def degrees(composer: Composer, adjective: Adjective) -> tuple[Pair, ...]:
    """The adverbs of degree that suit an adjective; repeated as often as they should weigh."""
    if not adjective.english_comparative:
        return (("", ""), ("really", "wirklich"))
    too = composer.lexicon.tables["too"][0][0].split()
    return (*DEGREES, ("too", "zu")) if adjective.english in too else DEGREES


def has_active(event: Event) -> bool:
    """Whether the event is said in the active voice; a few are given for the passive alone."""
    return bool(set(event.aspects) & set("hspdrfm"))


def has_thing(event: Event) -> bool:
    """Whether the event has a thing as its direct object, so that one can ask for it."""
    return has_active(event) and "{O}" in event.german and "R" not in event.slots


def fixed_clause(composer: Composer, subject: Phrase, english_text: str, german_text: str) -> Clause:
    """A clause of two fixed texts, the German verb last; "not" before the English one negates both.

    "{own}" in the English text stands for the subject's possessive.
    """
    negated = english_text.startswith("not ")
    english_text = english_text.removeprefix("not ").replace("{own}", OWNERS[subject.owner or "it"][0])
    event = Event((), english_text, german_text, {}, "", ())
    return Clause(composer.lexicon, subject, event, {}, negated=negated, short=composer.chance(0.6))
