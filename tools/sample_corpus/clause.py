"""Clauses in both languages: what is said, and how each language puts it in order."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from . import english, german
from .lexicon import Event, Lexicon, Pair
from .phrase import Phrase

# modal key -> (English, negated, past, German infinitive); "to" in the English asks for do-support.
MODALS = {
    "can": ("can", "cannot", "could", "können"),
    "have to": ("have to", "have to", "had to", "müssen"),
    "should": ("should", "should not", "", "sollen"),
    "may": ("may", "must not", "", "dürfen"),
    "want to": ("want to", "want to", "wanted to", "wollen"),
    "would like to": ("would like to", "", "", "möchten"),
}
SHORT = {
    "do not": "don't", "does not": "doesn't", "did not": "didn't", "is not": "isn't", "are not": "aren't",
    "was not": "wasn't", "were not": "weren't", "has not": "hasn't", "have not": "haven't", "will not": "won't",
    "cannot": "can't", "could not": "couldn't", "should not": "shouldn't", "must not": "mustn't",
}  # fmt: skip
# Verbs whose past is the preterite even in speech.
ALWAYS_PRETERITE = ("sein", "haben", "wissen", "mögen", "können", "müssen", "wollen")


@dataclass(frozen=True)
class Clause:
    """One proposition: a subject, an event whose slots are filled, tense, polarity and circumstances.

    ``tense``: present, progressive, past, perfect, pluperfect, future, modal or past modal. ``narrative`` asks for
    the German preterite where English has the past; otherwise it is the perfect. ``often`` stands in mid position in
    English; ``already`` is the pair for the perfect. ``dropped`` names a slot that a question word or relative
    pronoun stands for.
    """

    lexicon: Lexicon
    subject: Phrase
    event: Event
    fills: dict[str, Phrase]
    tense: str = "present"
    negated: bool = False
    modal: str = ""
    narrative: bool = False
    short: bool = True
    time: Pair | None = None
    often: Pair | None = None
    place: Pair | None = None
    already: Pair | None = None
    dropped: str = ""

    def dropping(self, slot: str) -> Clause:
        """The clause with a gap in place of a slot."""
        return replace(self, dropped=slot)

    # --- English

    def _english_verbs(self, inverted: bool) -> Pair:
        """The auxiliary ("" if none) and the rest of the verb group."""
        person = self.subject.english_person
        base = self.event.english.split()[0]
        verb = self.lexicon.english_verb(base)
        has = "has" if person == "3s" else "have"
        support = self.negated or inverted
        if self.tense in ("modal", "past modal"):
            return self._english_modal(base, inverted)
        if self.tense == "progressive":
            return english.be(person, past=False), verb.ing()
        if self.tense in ("perfect", "pluperfect"):
            return ("had" if self.tense == "pluperfect" else has), verb.participle
        if self.tense == "future":
            return "will", base
        past = self.tense == "past"
        if base == "be":
            return english.be(person, past), ""
        if support:
            return ("did" if past else "does" if person == "3s" else "do"), base
        return "", (verb.past if past else verb.third() if person == "3s" else base)

    def _english_modal(self, base: str, inverted: bool) -> Pair:
        plain, negative, past, _ = MODALS[self.modal]
        if self.modal not in ("have to", "want to"):
            first, _, rest = (past if self.tense == "past modal" else plain).partition(" ")
            if self.negated and negative.startswith("must"):
                first = "must"
            return first, f"{rest} {base}".strip()
        third = self.subject.english_person == "3s"
        if self.negated or inverted:
            return ("did" if self.tense == "past modal" else "does" if third else "do"), f"{plain} {base}"
        if self.tense == "past modal":
            return "", f"{past} {base}"
        finite = {"have to": "has to", "want to": "wants to"}[plain] if third else plain
        return "", f"{finite} {base}"

    def english_main(self, front: bool = False) -> str:
        """A statement without its full stop; ``front`` puts the time first."""
        auxiliary, rest = self._english_verbs(inverted=False)
        if self.negated:
            auxiliary = self._negate(auxiliary)
        words = [self.subject.subject, auxiliary, *self._mid(), rest, self._english_rest(front)]
        text = _join(words)
        if front and self.time:
            text = self.time[0] + ("," if " " in self.time[0] else "") + " " + text
        return text

    def english_question(self, word: str = "") -> str:
        """A question without its mark, after ``word`` such as "Why"."""
        auxiliary, rest = self._english_verbs(inverted=True)
        negation = ""
        if self.negated and self.short:
            auxiliary = self._negate(auxiliary)
        elif self.negated:
            negation = "not"
        subject = self.subject.subject
        return _join([word, auxiliary, subject, negation, *self._mid(), rest, self._english_rest(False)])

    def _negate(self, auxiliary: str) -> str:
        text = "cannot" if auxiliary == "can" else f"{auxiliary} not"
        return SHORT.get(text, text) if self.short else text

    def _mid(self) -> list[str]:
        words = [self.often[0]] if self.often else []
        return words + (["already"] if self.already and not self.negated else [])

    def _english_rest(self, fronted: bool) -> str:
        words = [self.english_complements()]
        if self.place:
            words.append(self.place[0])
        if self.time and not fronted:
            words.append(self.time[0])
        if self.already and self.negated:
            words.append("yet")
        return _join(words)

    def english_complements(self) -> str:
        """What follows the verb."""
        text = " ".join(self.event.english.split()[1:])
        for name, phrase in self.fills.items():
            text = text.replace("{" + name + "}", "" if name == self.dropped else phrase.object)
        return _join([text])

    # --- German

    def _german_verbs(self) -> tuple[str, str, str]:
        """The finite verb, and the end of the clause in a main and in a subordinate clause."""
        verb = self.german_verb()
        person = self.subject.person
        infinitive = verb.full_infinitive()
        if self.tense == "future":
            helper = self.lexicon.german_verb("werden").present(person)
            return helper, infinitive, f"{infinitive} {helper}"
        if self.tense in ("modal", "past modal"):
            modal = self.lexicon.german_verb(MODALS[self.modal][3])
            finite = modal.past(person) if self.tense == "past modal" else modal.present(person)
            return finite, infinitive, f"{infinitive} {finite}"
        if self.tense == "pluperfect":
            helper = self.lexicon.german_verb(verb.auxiliary).past(person)
            return helper, verb.full_participle(), f"{verb.full_participle()} {helper}"
        always_preterite = verb.infinitive in ALWAYS_PRETERITE
        if self.tense == "perfect" or (self.tense == "past" and not self.narrative and not always_preterite):
            helper = self.lexicon.german_verb(verb.auxiliary).present(person)
            return helper, verb.full_participle(), f"{verb.full_participle()} {helper}"
        finite = verb.past(person) if self.tense == "past" else verb.present(person)
        return finite, verb.prefix, verb.prefix + finite

    def german_verb(self) -> german.Verb:
        """The verb of the event."""
        return self.lexicon.german_verb(self.event.german.split()[-1])

    def german_main(self, front: bool = False) -> str:
        """A statement with the verb in second place."""
        finite, end, _ = self._german_verbs()
        if front and self.time:
            return _join([self.time[1], finite, *self._german_inverted(front=True), end])
        return _join([self.subject.german["nom"], finite, *self.german_middle(), end])

    def german_question(self, word: str = "") -> str:
        """A question: the verb comes first, or after ``word``."""
        finite, end, _ = self._german_verbs()
        return _join([word, finite, *self._german_inverted(), end])

    def _german_inverted(self, front: bool = False) -> list[str]:
        """Subject and middle field after the verb: pronouns go before a subject that is none itself."""
        subject, middle = self.subject.german["nom"], self.german_middle(front)
        ahead = 0 if self.subject.pronoun else len(self._sort_complements()[0])
        return [*middle[:ahead], subject, *middle[ahead:]]

    def german_subordinate(self, with_subject: bool = True) -> str:
        """The clause with the verb at its end, to stand after a conjunction or a relative pronoun."""
        _, _, end = self._german_verbs()
        subject = self.subject.german["nom"] if with_subject else ""
        return _join([subject, *self.german_middle(), end])

    def german_middle(self, front: bool = False) -> list[str]:
        """The middle field: pronouns, names, time, definite objects, negation, place, indefinite objects, the rest."""
        pronouns, names, definite, indefinite, rest = self._sort_complements()
        circumstances = [pair[1] for pair in (None if front else self.time, self.often) if pair]
        particle = []
        if self.already:
            particle.append("noch" if self.negated else self.already[1])
        if self.negated and not any("kein" in text for text in indefinite + rest):
            particle.append("nicht")
        place = [self.place[1]] if self.place else []
        return pronouns + names + circumstances + definite + particle + place + indefinite + rest

    def _sort_complements(self) -> tuple[list[str], list[str], list[str], list[str], list[str]]:
        pronouns: list[str] = []
        names: list[str] = []
        definite: list[str] = []
        indefinite: list[str] = []
        rest: list[str] = []
        for piece in re.findall(r"\{.*?\}|\S+", self.event.german)[:-1]:
            slot = re.fullmatch(r"\{(\w)(?::(\w+))?\}", piece)
            if piece == "*":  # what stands before the mark precedes "nicht"
                definite, rest = [*definite, german.contract(" ".join(rest))], []
            elif piece.startswith("sich"):
                pronouns.append(self._reflexive(piece))
            elif not slot:
                rest.append(piece)
            elif slot[1] != self.dropped:
                phrase = self.fills[slot[1]]
                case = slot[2] or "acc"
                if rest or self.event.slots[slot[1]][0][0].startswith("@"):
                    rest.append(phrase.german[case])
                elif phrase.pronoun:
                    pronouns.append(phrase.german[case])
                elif phrase.name:
                    names.append(phrase.german[case])
                elif phrase.definite:
                    definite.append(phrase.german[case])
                else:
                    indefinite.append(phrase.negative[case] if self.negated else phrase.german[case])
        return pronouns, names, definite, indefinite, [german.contract(" ".join(rest))]

    def _reflexive(self, piece: str) -> str:
        forms = german.REFLEXIVE.get(self.subject.person)
        return forms[piece.endswith(":dat")] if forms else "sich"


def _join(words: list[str]) -> str:
    return re.sub(r" +", " ", " ".join(word for word in words if word)).strip()
