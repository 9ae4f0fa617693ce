"""Noun phrases in both languages."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import english, german
from .lexicon import Adjective, Noun, Pair

# Owner of a thing: English possessive, German possessive stem.
OWNERS = {
    "I": ("my", "mein"), "you": ("your", "dein"), "he": ("his", "sein"), "she": ("her", "ihr"),
    "it": ("its", "sein"), "it_f": ("its", "ihr"), "we": ("our", "unser"), "you_p": ("your", "euer"),
    "they": ("their", "ihr"), "You": ("your", "Ihr"), "girl": ("her", "sein"),
}  # fmt: skip
# English subject, object; German nominative, accusative, dative; person of each verb; owner
PRONOUNS = {
    "I": ("I", "me", "ich", "mich", "mir", "1s"),
    "you": ("you", "you", "du", "dich", "dir", "2s"),
    "he": ("he", "him", "er", "ihn", "ihm", "3s"),
    "she": ("she", "her", "sie", "sie", "ihr", "3s"),
    "we": ("we", "us", "wir", "uns", "uns", "1p"),
    "you_p": ("you", "you", "ihr", "euch", "euch", "2p"),
    "they": ("they", "them", "sie", "sie", "ihnen", "3p"),
    "You": ("you", "you", "Sie", "Sie", "Ihnen", "3p"),
}


@dataclass(frozen=True)
class Phrase:
    """A noun phrase with all the forms a clause may ask for. ``person`` is the German one ("3p" for Sie)."""

    subject: str
    object: str
    german: dict[str, str]
    person: str = "3s"
    owner: str | None = None
    definite: bool = True
    pronoun: bool = False
    name: bool = False
    negative: dict[str, str] = field(default_factory=dict)

    @property
    def english_person(self) -> str:
        """The person of the English verb: "you" is a plural there."""
        return "3p" if self.person in ("2s", "2p") else self.person


def pronoun(name: str) -> Phrase:
    """A personal pronoun; the polite "Sie" is "You"."""
    subject, obj, nom, acc, dat, person = PRONOUNS[name]
    return Phrase(subject, obj, {"nom": nom, "acc": acc, "dat": dat}, person, name, pronoun=True)


def noun_phrase(
    noun: Noun, kind: str, number: str = "s", adjective: Adjective | None = None, count: Pair | None = None
) -> Phrase:
    """A noun with article ``kind``: "the", "a", "this", "" or the name of an owner; ``count`` is a numeral pair.

    The kind "body <owner>" has the owner's possessive in English and the definite article in German.
    """
    word = noun.english_plural if number == "p" else noun.english
    inner = f"{adjective.english} {word}" if adjective else word
    demonstrative = "these" if number == "p" else "this"
    body, kind = kind.startswith("body "), kind.removeprefix("body ")
    if kind in OWNERS:
        text = f"{OWNERS[kind][0]} {inner}"
    elif count:
        text = f"{count[0]} {inner}"
    else:
        text = {"the": f"the {inner}", "this": f"{demonstrative} {inner}", "a": english.with_a(inner), "": inner}[kind]
    german_kind = "the" if body else OWNERS[kind][1] if kind in OWNERS else kind
    indefinite = kind in ("a", "") and not count
    return Phrase(
        text,
        text,
        _german_forms(noun, german_kind, number, adjective, count),
        "3" + number,
        _owner_of(noun, number),
        definite=kind not in ("a", "") or count is not None,
        negative=_german_forms(noun, "no", number, adjective, None) if indefinite else {},
    )


def _owner_of(noun: Noun, number: str) -> str | None:
    if number == "p":
        return "they"
    if noun.english == "girl":  # das Mädchen is neuter
        return "girl"
    if noun.classes.isdisjoint({"pro", "folk", "kin", "kid"}):
        return "it_f" if noun.gender == "f" else "it"
    return {"m": "he", "f": "she", "n": "it"}[noun.gender]


def _german_forms(
    noun: Noun, kind: str, number: str, adjective: Adjective | None, count: Pair | None
) -> dict[str, str]:
    gender = "p" if number == "p" else noun.gender
    genitive = german.genitive_of(noun.german)
    forms = {}
    for case in german.CASES:
        words = [count[1] if count else (german.article(kind, gender, case) if kind else "")]
        if adjective:
            words.append(german.adjective(adjective.german_stem, "" if count else kind, gender, case))
        words.append(german.noun_form(noun.german, noun.gender, noun.german_plural, number, case, genitive, noun.weak))
        forms[case] = " ".join(word for word in words if word)
    return forms
