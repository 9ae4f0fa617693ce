"""Two clauses: relative, that-, whether- and adverbial clauses, purposes."""

from __future__ import annotations

from dataclasses import replace

from .. import german
from ..composer import PEOPLE, Composer
from ..lexicon import Pair
from ..phrase import PRONOUNS, noun_phrase, pronoun
from .sentence import copula, degrees, fixed_clause, has_active, has_thing, sentence

CONJUNCTIONS = {
    "because": "weil",
    "although": "obwohl",
    "if": "wenn",
    "before": "bevor",
    "when": "als",
    "after": "nachdem",
    "but": "aber",
}


def object_relative(composer: Composer) -> Pair | None:
    """The book that I bought yesterday is interesting."""
    event = composer.event(
        lambda event: (
            event.subjects[0] in PEOPLE and has_thing(event) and event.slots["O"][1] not in ("", "some", "many", "body")
        )
    )
    classes = event.slots["O"][0]
    noun = composer.pick(composer.lexicon.nouns_of(classes))
    fitting = [adjective for adjective in composer.lexicon.adjectives_for(noun) if adjective.english_comparative]
    if not fitting or "kin" in noun.classes:
        return None
    number = "p" if noun.german_plural and composer.chance(0.25) else "s"
    head = noun_phrase(noun, "the", number)
    clause = composer.varied(composer.clause(event), "spdr", negation=0).dropping("O")
    relative_pronoun = german.RELATIVE["p" if number == "p" else noun.gender][1]
    adjective, past = composer.pick(fitting), composer.chance(0.3)
    degree = composer.pick(degrees(composer, adjective))
    that = "that " if composer.chance(0.6) else ""
    is_, ist = copula(head, past)
    return sentence(
        f"{head.subject} {that}{clause.english_main()} {is_} {degree[0]} {adjective.english}".replace("  ", " "),
        f"{head.german['nom']}, {relative_pronoun} {clause.german_subordinate()}, {ist} {degree[1]} "
        f"{adjective.german}".replace("  ", " "),
    )


def subject_relative(composer: Composer) -> Pair | None:
    """I know the man who is sitting on the bench."""
    event = composer.event(lambda event: has_active(event) and event.subjects[0] in PEOPLE)
    noun = composer.pick(composer.lexicon.nouns_of(("pro", "folk", "kid")))
    number = "p" if composer.chance(0.25) else "s"
    head = noun_phrase(noun, "the", number)
    relative_pronoun = german.RELATIVE["p" if number == "p" else noun.gender][0]
    who = replace(head, subject="who", object="who", german={"nom": relative_pronoun})
    clause = composer.varied(composer.clause(event, who), "spdr", negation=0.1)
    relative = f"{clause.english_main()}", f"{relative_pronoun} {clause.german_subordinate(with_subject=False)}"
    if composer.chance(0.5):
        opening = composer.pick(composer.lexicon.tables["acquaintance"])
        mark = "?" if opening[2] == "?" else "."
        return sentence(
            f"{opening[0]} {head.object} {relative[0]}", f"{opening[1]} {head.german['acc']}, {relative[1]}", mark
        )
    fitting = composer.lexicon.adjectives_for(noun)
    if not fitting:
        return None
    adjective = composer.pick(fitting)
    is_, ist = copula(head, clause.tense == "past" and composer.chance(0.5))
    return sentence(
        f"{head.subject} {relative[0]} {is_} {adjective.english}",
        f"{head.german['nom']}, {relative[1]}, {ist} {adjective.german}",
    )


def that_clause(composer: Composer) -> Pair | None:
    """I hope that the train will arrive on time."""
    event = composer.event(has_active)
    opening = composer.pick(composer.lexicon.tables["that"])
    subject = composer.third_person() if event.subjects[0] in PEOPLE else None
    negated = "negated" in opening
    clause = composer.varied(composer.clause(event, subject), negation=0.6 if negated else 0.2)
    if negated and not clause.negated:
        return None
    that = "that " if composer.chance(0.7) else ""
    return sentence(f"{opening[0]} {that}{clause.english_main()}", f"{opening[1]}, dass {clause.german_subordinate()}")


def whether_clause(composer: Composer) -> Pair | None:
    """I do not know whether Anna has already read the book."""
    event = composer.event(has_active)
    opening = composer.pick(composer.lexicon.tables["whether"])
    subject = composer.third_person() if event.subjects[0] in PEOPLE else None
    clause = replace(composer.varied(composer.clause(event, subject), "pdrfm", negation=0), narrative=False)
    word = composer.pick((("whether", "ob"), ("whether", "ob"), ("why", "warum"), ("when", "wann")))
    if word[0] == "when":
        if clause.tense not in ("past", "future"):
            return None
        clause = replace(clause, time=None)
    return sentence(
        f"{opening[0]} {word[0]} {clause.english_main()}", f"{opening[1]}, {word[1]} {clause.german_subordinate()}"
    )


def meanwhile(composer: Composer) -> Pair | None:
    """While Anna is cooking, Paul is reading the newspaper."""
    clauses = []
    for _ in range(2):
        event = composer.event(
            lambda event: (
                "p" in event.aspects
                and event.subjects[0] == "person"
                and not {"reading", "indoors", "kitchen", "bath", "atmeal", "outside", "ingarden"}.isdisjoint(
                    event.places
                )
            )
        )
        clauses.append(replace(composer.clause(event, composer.third_person()), tense="progressive"))
    first, second = clauses
    heads = {clause.subject.subject.split()[-1].removesuffix("s") for clause in clauses}
    if len(heads) < 2 or first.event == second.event or second.subject.pronoun:
        return None
    return sentence(
        f"while {first.english_main()}, {second.english_main()}",
        f"während {first.german_subordinate()}, {second.german_question()}",
    )


def linked(composer: Composer) -> Pair | None:
    """Anna stayed at home because she was ill."""
    word = composer.pick(tuple(CONJUNCTIONS))
    row = composer.pick(composer.lexicon.tables[word])
    subject = composer.person()
    if subject.owner not in PRONOUNS:
        return None
    again = pronoun(subject.owner)
    past = "past" if word in ("when", "after") else composer.pick(("present", "past", "past"))
    tenses = {"if": (composer.pick(("present", "future", "future")), "present"), "after": (past, "pluperfect")}
    tense, part_tense = tenses.get(word, (past, past))
    if word in ("when", "after") and subject.person[0] == "2":  # the preterite is not said of "du" and "ihr"
        return None
    narrative = word in ("when", "after") or composer.narrated(subject)
    main = replace(fixed_clause(composer, subject, row[0], row[1]), tense=tense, narrative=narrative)
    part = replace(fixed_clause(composer, again, row[2], row[3]), tense=part_tense, narrative=narrative)
    lasting = row[0].startswith(("be ", "live ", "like ", "speak "))
    if tense == "past" and not lasting and word not in ("when", "after", "but") and composer.chance(0.5):
        main = replace(main, time=composer.group("past"))
    if word == "but":
        return sentence(
            f"{main.english_main()}, but {part.english_main()}", f"{main.german_main()}, aber {part.german_main()}"
        )
    if composer.chance(0.25 if word == "because" else 0.5):
        first, second = replace(part, subject=subject), replace(main, subject=again, time=None)
        return sentence(
            f"{word} {first.english_main()}, {second.english_main()}",
            f"{CONJUNCTIONS[word]} {first.german_subordinate()}, {second.german_question()}",
        )
    return sentence(
        f"{main.english_main()} {word} {part.english_main()}",
        f"{main.german_main()}, {CONJUNCTIONS[word]} {part.german_subordinate()}",
    )


def purpose(composer: Composer) -> Pair | None:
    """Paul goes to the bakery to buy fresh bread."""
    row = composer.pick(composer.lexicon.tables["purpose"])
    clause = fixed_clause(composer, composer.person(), row[0], row[1])
    tense = composer.pick(("present", "past", "past", "future", "modal"))
    clause = replace(clause, tense=tense, modal="want to" if tense == "modal" else "")
    if tense == "past":
        clause = replace(clause, time=composer.group("past"), narrative=composer.narrated(clause.subject))
    elif tense == "future":
        clause = replace(clause, time=composer.group("future"))
    elif tense == "present":
        clause = replace(clause, time=composer.group("every"))
    front = clause.time is not None and composer.chance(0.3)
    words = row[3].split()
    aim = " ".join([*words[:-1], composer.lexicon.german_verb(words[-1]).zu_infinitive()])
    unfronted = replace(clause, time=None if front else clause.time)
    text = f"{unfronted.english_main()} to {row[2]}"
    if front and clause.time:
        text = f"{clause.time[0]}{',' if ' ' in clause.time[0] else ''} {text}"
    elif clause.time:
        text = f"{replace(clause, time=None).english_main()} {clause.time[0]} to {row[2]}"
    return sentence(text, f"{clause.german_main(front)}, um {aim}")
