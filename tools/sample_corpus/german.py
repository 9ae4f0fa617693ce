"""German inflection: articles, adjectives, nouns and verbs, as tables and rules of the standard grammar.

Cases are "nom", "acc", "dat", "gen". Genders are "m", "f", "n"; "p" stands for the plural of any gender.
Persons are pairs such as "1s" or "3p"; the polite "Sie" is conjugated as "3p".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CASES = ("nom", "acc", "dat", "gen")
DEFINITE = {
    "m": ("der", "den", "dem", "des"),
    "f": ("die", "die", "der", "der"),
    "n": ("das", "das", "dem", "des"),
    "p": ("die", "die", "den", "der"),
}
# Endings of dieser/jeder, and of an adjective that no article precedes (except genitive m/n, see adjective()).
STRONG = {
    "m": ("er", "en", "em", "es"),
    "f": ("e", "e", "er", "er"),
    "n": ("es", "es", "em", "es"),
    "p": ("e", "e", "en", "er"),
}
# Endings of ein, kein and the possessives.
MIXED_ARTICLE = {**STRONG, "m": ("", "en", "em", "es"), "n": ("", "", "em", "es")}
# Endings of an adjective after der/dieser, and after ein/kein/mein.
WEAK_ADJECTIVE = {
    "m": ("e", "en", "en", "en"),
    "f": ("e", "e", "en", "en"),
    "n": ("e", "e", "en", "en"),
    "p": ("en", "en", "en", "en"),
}
MIXED_ADJECTIVE = {**WEAK_ADJECTIVE, "m": ("er", "en", "en", "en"), "n": ("es", "es", "en", "en")}
RELATIVE = {**DEFINITE, "p": ("die", "die", "denen", "deren")}

CONTRACTIONS = {
    "in dem": "im", "in das": "ins", "an dem": "am", "an das": "ans",
    "zu dem": "zum", "zu der": "zur", "bei dem": "beim", "von dem": "vom",
}  # fmt: skip

REFLEXIVE = {"1s": ("mich", "mir"), "2s": ("dich", "dir"), "1p": ("uns", "uns"), "2p": ("euch", "euch")}

SHORT_GENITIVE = ("Film", "Park", "Schal", "Kohl", "Plan", "Reh", "Arm")

PERSONS = ("1s", "2s", "3s", "1p", "2p", "3p")
IRREGULAR_PRESENT = {
    "sein": ("bin", "bist", "ist", "sind", "seid", "sind"),
    "haben": ("habe", "hast", "hat", "haben", "habt", "haben"),
    "werden": ("werde", "wirst", "wird", "werden", "werdet", "werden"),
    "wissen": ("weiß", "weißt", "weiß", "wissen", "wisst", "wissen"),
    "können": ("kann", "kannst", "kann", "können", "könnt", "können"),
    "müssen": ("muss", "musst", "muss", "müssen", "müsst", "müssen"),
    "wollen": ("will", "willst", "will", "wollen", "wollt", "wollen"),
    "dürfen": ("darf", "darfst", "darf", "dürfen", "dürft", "dürfen"),
    "sollen": ("sollte", "solltest", "sollte", "sollten", "solltet", "sollten"),  # "should"
    "mögen": ("mag", "magst", "mag", "mögen", "mögt", "mögen"),
    "möchten": ("möchte", "möchtest", "möchte", "möchten", "möchtet", "möchten"),  # "would like to"
}
INSEPARABLE = ("be", "emp", "ent", "er", "ge", "miss", "ver", "zer", "über", "unter", "wieder")


@dataclass(frozen=True)
class Verb:
    """A verb's principal parts without its separable ``prefix``, which is "" for other verbs."""

    prefix: str
    infinitive: str
    third: str
    preterite: str
    participle: str
    auxiliary: str

    def present(self, person: str) -> str:
        """The present tense, e.g. "2s" of lesen: liest."""
        if self.infinitive in IRREGULAR_PRESENT:
            return IRREGULAR_PRESENT[self.infinitive][PERSONS.index(person)]
        stem = stem_of(self.infinitive)
        if person in ("1p", "3p"):
            return self.infinitive
        if person == "1s":
            return (stem[:-2] + "l" if self.infinitive.endswith("eln") else stem) + "e"
        if person == "2p":
            return stem + ("et" if needs_e(stem) else "t")
        if person == "3s":
            return self.third
        if stem.endswith("t") and not self.third.endswith("et"):  # hält -> hältst
            return self.third + "st"
        base = self.third[:-1]
        return base + ("t" if base[-1] in "sßzx" else "st")

    def past(self, person: str) -> str:
        """The preterite, e.g. "3p" of gehen: gingen."""
        base = self.preterite
        if person in ("1s", "3s"):
            return base
        if person in ("1p", "3p"):
            return base + ("n" if base.endswith("e") else "en")
        linked = base + ("e" if base[-1] in "td" else "")
        return linked + ("st" if person == "2s" else "t")

    def imperative(self, person: str) -> str:
        """The imperative without its prefix: "2s", "2p", or "3p" for the polite form with Sie."""
        if person == "3p":
            return ("seien" if self.infinitive == "sein" else self.infinitive) + " Sie"
        if person == "2p":
            return self.present("2p")
        stem = stem_of(self.infinitive)
        if self.infinitive == "sein":
            return "sei"
        if self.third[-1:] == "t" and "i" in self.third and "i" not in stem:  # essen, isst -> iss
            return self.third if stem.endswith("t") else self.third[:-1]
        if self.infinitive.endswith("eln"):
            return stem[:-2] + "le"
        return stem + ("e" if needs_e(stem) or stem.endswith(("er", "ig")) else "")

    def full_participle(self) -> str:
        """The past participle with its prefix: angerufen."""
        return self.prefix + self.participle

    def full_infinitive(self) -> str:
        """The infinitive with its prefix: anrufen."""
        return self.prefix + self.infinitive

    def zu_infinitive(self) -> str:
        """The infinitive with zu: zu lesen, anzurufen."""
        return f"{self.prefix}zu{self.infinitive}" if self.prefix else f"zu {self.infinitive}"


def stem_of(infinitive: str) -> str:
    """The stem of the present: lesen -> les, wandern -> wander, sammeln -> sammel."""
    return infinitive[:-2] if infinitive.endswith("en") else infinitive[:-1]


def needs_e(stem: str) -> bool:
    """Whether -e- is put before the endings -st, -t, -te: arbeitet, öffnet, but lernt, wohnt."""
    return stem[-1] in "td" or bool(re.search(r"([^aeiouäöülrhmn]|ch)[mn]$", stem))


def weak_verb(infinitive: str, prefix: str = "", auxiliary: str = "haben") -> Verb:
    """A verb conjugated by rule: machen, macht, machte, gemacht."""
    stem = stem_of(infinitive)
    link = "e" if needs_e(stem) else ""
    unstressed = infinitive.endswith("ieren") or infinitive.startswith(INSEPARABLE)
    participle = ("" if unstressed else "ge") + stem + link + "t"
    return Verb(prefix, infinitive, f"{stem}{link}t", f"{stem}{link}te", participle, auxiliary)


def contract(text: str) -> str:
    """Merge prepositions with the article that follows: in dem -> im."""
    return re.sub(r"\b(in|an|zu|bei|von) (dem|das|der)\b", lambda m: CONTRACTIONS.get(m.group(), m.group()), text)


def noun_form(noun: str, gender: str, plural: str, number: str, case: str, genitive: str, weak: bool) -> str:
    """A noun in ``number`` ("s" or "p") and ``case``; ``weak`` nouns (der Junge) take the plural's form throughout."""
    if number == "p":
        return plural + ("n" if case == "dat" and plural[-1] not in "ns" else "")
    if weak and case != "nom":
        return plural
    return genitive if case == "gen" and gender in "mn" else noun


def genitive_of(noun: str) -> str:
    """The genitive singular of a masculine or neuter noun: des Autos, des Mannes, des Hauses."""
    syllables = len(re.findall(r"[aeiouäöüyé]+", noun.lower()))
    long_form = (
        noun[-1] in "sßxz"
        or noun.endswith(("sch", "st"))
        or (syllables == 1 and noun[-1] not in "aeiouyé" and noun not in SHORT_GENITIVE)
    )
    if noun.endswith(("nis", "Bus")):
        return noun + "ses"
    return noun + ("es" if long_form else "s")


def article(kind: str, gender: str, case: str) -> str:
    """The article of a noun phrase. ``kind`` is "the", "a", "no", "this", or a possessive stem such as "mein"."""
    index = CASES.index(case)
    if kind == "the":
        return DEFINITE[gender][index]
    if kind == "this":
        return "dies" + STRONG[gender][index]
    stem = {"a": "ein", "no": "kein"}.get(kind, kind)
    ending = MIXED_ARTICLE[gender][index]
    return ("eur" if stem == "euer" and ending else stem) + ending


def adjective(stem: str, kind: str, gender: str, case: str) -> str:
    """An attributive adjective after the article ``kind``, "" standing for none."""
    index = CASES.index(case)
    if kind == "":
        ending = "en" if case == "gen" and gender in "mn" else STRONG[gender][index]
    else:
        ending = (WEAK_ADJECTIVE if kind in ("the", "this") else MIXED_ADJECTIVE)[gender][index]
    return stem + ending
