"""What things are like, how they compare, where they are, whose they are."""

from __future__ import annotations

from dataclasses import replace

from .. import english, german
from ..composer import Composer
from ..lexicon import Noun, Pair
from ..phrase import noun_phrase, pronoun
from .sentence import copula, degrees, sentence

PRONOUN_OF_GENDER = {"m": "er", "f": "sie", "n": "es", "p": "sie"}


def description(composer: Composer) -> Pair | None:
    """The soup is too hot."""
    adjective = composer.pick(composer.lexicon.adjectives)
    noun = composer.pick([noun for noun in composer.lexicon.nouns if not noun.classes.isdisjoint(adjective.classes)])
    people = not noun.classes.isdisjoint({"pro", "folk", "kid", "animal"})
    kinds: tuple[str, ...] = ("the", "the", "this") if people else ("the", "the", "this", "I", "he", "she", "we")
    if "own" not in noun.classes and "cloth" not in noun.classes:
        kinds = ("the", "the", "this")
    if "fwear" in noun.classes:
        kinds = ("the", "this", "I", "she")
    if "friends" in noun.classes:
        kinds = ("I", "you", "he", "she", "we")
    number = "p" if noun.german_plural and composer.chance(0.25) else "s"
    subject = noun_phrase(noun, composer.pick(kinds), number)
    past = composer.chance(0.3)
    is_, ist = copula(subject, past)
    negations = (("not", "nicht"), ("not very", "nicht sehr"))[: 2 if adjective.english_comparative else 1]
    degree = composer.pick((*degrees(composer, adjective), *negations))
    question = degree[0] in ("", "very", "really") and composer.chance(0.2)
    if question:
        return sentence(
            f"{is_} {subject.subject} {degree[0]} {adjective.english}".replace("  ", " "),
            f"{ist} {subject.german['nom']} {degree[1]} {adjective.german}".replace("  ", " "),
            "?",
        )
    return sentence(
        f"{subject.subject} {is_} {degree[0]} {adjective.english}".replace("  ", " "),
        f"{subject.german['nom']} {ist} {degree[1]} {adjective.german}".replace("  ", " "),
    )


def comparison(composer: Composer) -> Pair | None:
    """The horse is bigger than the donkey."""
    if composer.chance(0.4):
        return _people_compared(composer)
    name, scale = composer.pick(composer.lexicon.tables["scales"])
    adjective = next(entry for entry in composer.lexicon.adjectives if entry.english == name)
    words = [word.replace("_", " ") for word in scale.split()]
    low = int(composer.source.random() * (len(words) - 1))
    high = low + 1 + int(composer.source.random() * (len(words) - 1 - low))
    kind = composer.pick(("a", "the", "this the"))
    kinds = ("this", "the") if kind == "this the" else (kind, kind)
    lower, higher = (_noun(composer, words[index]) for index in (low, high))
    if not lower.german_plural and kind == "a":
        kinds = ("the", "the")
    first, second = noun_phrase(higher, kinds[0]), noun_phrase(lower, kinds[1])
    past = composer.chance(0.15) and kind != "a"
    is_, ist = copula(first, past)
    if composer.chance(0.35):
        return sentence(
            f"{second.subject} {is_} not as {adjective.english} as {first.subject}",
            f"{second.german['nom']} {ist} nicht so {adjective.german} wie {first.german['nom']}",
        )
    much = composer.weighted([(3, ("", "")), (1, ("much", "viel")), (1, ("a little", "etwas"))])
    return sentence(
        f"{first.subject} {is_} {much[0]} {adjective.english_comparative} than {second.subject}".replace("  ", " "),
        f"{first.german['nom']} {ist} {much[1]} {adjective.german_comparative} als {second.german['nom']}".replace(
            "  ", " "
        ),
    )


def _people_compared(composer: Composer) -> Pair | None:
    name, comparative, german_name, german_comparative = composer.pick(composer.lexicon.tables["people"])
    first = composer.name()
    second = composer.pick((composer.name(), composer.kin(first.owner or "he")))
    if first.subject == second.subject or second.person != "3s":
        return None
    is_, ist = copula(first, composer.chance(0.2))
    english_text, german_text = composer.pick(
        (
            (f"{comparative} than", f"{german_comparative} als"),
            (f"much {comparative} than", f"viel {german_comparative} als"),
            (f"as {name} as", f"genauso {german_name} wie"),
            (f"not as {name} as", f"nicht so {german_name} wie"),
        )
    )
    return sentence(
        f"{first.subject} {is_} {english_text} {second.subject}",
        f"{first.german['nom']} {ist} {german_text} {second.german['nom']}",
    )


def superlative(composer: Composer) -> Pair | None:
    """That is the oldest house in the village."""
    where = composer.pick(composer.lexicon.tables["everywhere"])
    noun = composer.pick(composer.lexicon.nouns_of(tuple(where[2].split())))
    states = composer.lexicon.tables["states"][0][0].split()
    fitting = [
        entry
        for entry in composer.lexicon.adjectives_for(noun, attribute=True)
        if entry.english_comparative and entry.german_superlative and entry.english not in states
    ]
    if not fitting:
        return None
    adjective = composer.pick(fitting)
    comparative = adjective.english_comparative
    irregular = {"better": "best", "worse": "worst"}
    if comparative.startswith("more "):
        most = "most " + comparative[5:]
    else:
        most = irregular.get(comparative, comparative[:-1] + "st")
    best = replace(adjective, english=most, german_stem=adjective.german_superlative)
    phrase = noun_phrase(noun, "the", "s", best)
    opening = composer.pick((("this is", "das ist"), ("that was", "das war"), ("is this", "ist das")))
    mark = "?" if opening[0] == "is this" else "."
    return sentence(f"{opening[0]} {phrase.object} {where[0]}", f"{opening[1]} {phrase.german['nom']} {where[1]}", mark)


def whereabouts(composer: Composer) -> Pair | None:
    """Where is my key? It is on the table."""
    preposition, german_preposition, classes = composer.pick(composer.lexicon.tables["positions"])
    things = ("small", "cloth", "tool", "carry") if preposition in ("on", "in") else ("small", "tool", "carry")
    thing = composer.pick(composer.lexicon.nouns_of(things))
    place = composer.pick(composer.lexicon.nouns_of(tuple(classes.split())))
    if thing.english == place.english or ("carry" in thing.classes and preposition == "in"):
        return None
    number = "p" if thing.german_plural and composer.chance(0.25) else "s"
    verb = "steh" if not thing.classes.isdisjoint({"upright"}) else "lieg"
    ending = "en" if number == "p" else "t"
    is_ = english.be("3" + number, False)
    where = noun_phrase(place, "the")
    german_place = german.contract(f"{german_preposition} {where.german['dat']}")
    english_place = f"{preposition} {where.object}"
    kind = composer.pick(("question", "statement", "there"))
    if kind == "there":
        count = small_number(composer) if number == "p" else None
        number_phrase = noun_phrase(thing, "" if count else "a", number, count=count)
        return sentence(
            f"there {is_} {number_phrase.object} {english_place}",
            f"{german_place} {verb}{ending} {number_phrase.german['nom']}",
        )
    owner = composer.pick(("the", "I", "you", "he", "she") if "cloth" in thing.classes else ("the", "I", "you", "we"))
    subject = noun_phrase(thing, owner, number)
    if kind == "statement":
        return sentence(
            f"{subject.subject} {is_} {english_place}", f"{subject.german['nom']} {verb}{ending} {german_place}"
        )
    ist = "ist" if number == "s" else "sind"
    he = PRONOUN_OF_GENDER["p" if number == "p" else thing.gender]
    it = "It is" if number == "s" else "They are"
    return sentence(
        f"where {is_} {subject.subject}? {it} {english_place}",
        f"wo {ist} {subject.german['nom']}? {he.capitalize()} {verb}{ending} {german_place}",
    )


def belonging(composer: Composer) -> Pair | None:
    """The roof of the house is old. Anna's bicycle is new."""
    if composer.chance(0.5):
        name, wholes = composer.pick(composer.lexicon.tables["parts"])
        part, whole = _noun(composer, name), _noun(composer, composer.pick(wholes.split()).replace("_", " "))
        first, second = noun_phrase(part, "the"), noun_phrase(whole, composer.pick(("the", "the", "this")))
        opening = composer.pick(composer.lexicon.tables["of"])
        if name not in opening[2].split():
            return None
        mark = "?" if opening[0].split()[0] in ("do", "what", "have", "who") else "."
        return sentence(
            f"{opening[0]} {first.object} of {second.object}",
            f"{opening[1]} {first.german[opening[3]]} {second.german['gen']}",
            mark,
        )
    thing = composer.pick(composer.lexicon.nouns_of(("own", "cloth")))
    fitting = composer.lexicon.adjectives_for(thing)
    if not fitting or not thing.classes.isdisjoint({"folk", "fwear"}):
        return None
    adjective, name_phrase = composer.pick(fitting), composer.name()
    if " " in name_phrase.subject or name_phrase.subject in ("Thomas", "Jonas", "Felix", "Max", "Lukas"):
        owner = composer.kin("I")
        text = f"{owner.object}'s" if owner.person == "3s" else f"{owner.object}'"
        german_noun = noun_phrase(thing, "the").german["nom"]
        german_text = f"{german_noun} {owner.german['gen']}"
    else:
        text = f"{name_phrase.subject}'s"
        german_text = f"{name_phrase.subject}s {thing.german}"
    is_, ist = copula(noun_phrase(thing, "the"), composer.chance(0.2))
    return sentence(f"{text} {thing.english} {is_} {adjective.english}", f"{german_text} {ist} {adjective.german}")


def occupation(composer: Composer) -> Pair | None:
    """His sister is a doctor."""
    row = composer.pick(composer.lexicon.tables["jobs"])
    person = composer.pick(
        (composer.name(), composer.kin("I"), composer.kin("he"), pronoun(composer.pick(("he", "she"))))
    )
    if person.owner not in ("he", "she") or person.person != "3s":
        return None
    job = row[1] if person.owner == "he" else row[2]
    kind = composer.pick(("is", "was", "wants", "works") if row[0] != "student" else ("is", "was", "wants"))
    city = composer.pick(composer.lexicon.tables["cities"])
    name = english.with_a(row[0])
    return {
        "is": sentence(f"{person.subject} is {name} in {city[0]}", f"{person.german['nom']} ist {job} in {city[1]}"),
        "was": sentence(f"{person.subject} used to be {name}", f"{person.german['nom']} war früher {job}"),
        "wants": sentence(f"{person.subject} wants to become {name}", f"{person.german['nom']} will {job} werden"),
        "works": sentence(
            f"{person.subject} works as {name} in {city[0]}", f"{person.german['nom']} arbeitet als {job} in {city[1]}"
        ),
    }[kind]


def _noun(composer: Composer, name: str) -> Noun:
    return next(noun for noun in composer.lexicon.nouns if noun.english == name)


def small_number(composer: Composer) -> Pair:
    row = composer.pick(composer.lexicon.tables["numbers"][:8])
    return row[0], row[1]
