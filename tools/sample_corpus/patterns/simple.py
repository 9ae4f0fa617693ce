"""One clause about an event: statements, questions, commands, the passive."""

from __future__ import annotations

from dataclasses import replace

from .. import english, german
from ..composer import PEOPLE, Composer
from ..lexicon import Event, Pair
from ..phrase import Phrase, pronoun
from .sentence import fixed_clause, has_active, has_thing, sentence

ASKED_PLACES = {"reading", "indoors", "outside", "incity", "shops", "meetplace", "kitchen"}  # answers to "where"


def statement(composer: Composer) -> Pair | None:
    """Anna has not yet read the book."""
    clause = composer.varied(composer.clause(composer.event(has_active)))
    front = clause.time is not None and clause.tense not in ("progressive",) and composer.chance(0.35)
    return sentence(clause.english_main(front), clause.german_main(front))


def yes_no_question(composer: Composer) -> Pair | None:
    """Did you read the book yesterday?"""
    event = composer.event(has_active)
    clause = composer.varied(composer.clause(event, composer.asked(event)), negation=0.08)
    clause = replace(clause, narrative=False)
    if clause.modal == "may" or (clause.modal and clause.negated):
        return None
    return sentence(clause.english_question(), clause.german_question(), "?")


def wh_question(composer: Composer) -> Pair | None:
    """When, why or where did Anna read the book?"""
    event = composer.event(has_active)
    clause = composer.varied(composer.clause(event, composer.asked(event)), "spdfm", negation=0)
    if clause.modal == "may":
        return None
    words = [("why", "warum")]
    if clause.tense in ("past", "future") or clause.modal == "have to":
        words.append(("when", "wann"))
    if event.places and clause.tense in ("past", "progressive", "future"):
        words.append(("where", "wo"))
    word = composer.pick(words)
    if word[0] == "where" and ASKED_PLACES.isdisjoint(event.places):
        return None
    clause = replace(clause, narrative=False, place=None, time=None if word[0] == "when" else clause.time)
    return sentence(clause.english_question(word[0]), clause.german_question(word[1]), "?")


def who_question(composer: Composer) -> Pair | None:
    """Who has already read the book?"""
    event = composer.event(lambda event: has_active(event) and event.subjects[0] in PEOPLE)
    clause = composer.clause(event)
    who = replace(clause.subject, subject="who", german={"nom": "wer"}, person="3s", owner=None, pronoun=False)
    clause = replace(composer.varied(composer.clause(event, who), "sdprfm", negation=0), narrative=False)
    return sentence(clause.english_main(), clause.german_main(), "?")


def can_ask_for_thing(event: Event) -> bool:
    """Whether one can ask what is done: not of "have a cold", "take photos" or "brush one's teeth"."""
    return (
        has_thing(event)
        and event.slots["O"][1] != "body"
        and not event.english.startswith(("have", "keep", "take {O}"))
    )


def what_question(composer: Composer) -> Pair | None:
    """What is Anna reading?"""
    event = composer.event(lambda event: event.subjects[0] == "person" and can_ask_for_thing(event))
    clause = composer.varied(composer.clause(event, composer.asked(event)), "pdfm", negation=0).dropping("O")
    if clause.modal == "may":
        return None
    clause = replace(clause, narrative=False)
    return sentence(clause.english_question("what"), clause.german_question("was"), "?")


def imperative(composer: Composer) -> Pair | None:
    """Please close the door."""
    event = composer.event(lambda event: "i" in event.aspects)
    from_person = composer.pick(("you", "you", "you_p", "You"))
    subject = pronoun(from_person)
    clause = replace(composer.clause(event, subject), short=True)
    verb = clause.german_verb()
    polite = composer.chance(0.5)
    negated = "k" not in event.aspects and composer.chance(0.2)
    time = composer.group("imptime") if composer.chance(0.25) and not negated else None
    clause = replace(clause, time=time, negated=negated)
    person = {"you": "2s", "you_p": "2p", "You": "3p"}[from_person]
    middle = clause.german_middle()
    german_words = [verb.imperative(person), *middle, verb.prefix]
    english_words = [event.english.split()[0], clause.english_complements(), time[0] if time else ""]
    if negated:
        english_words.insert(0, "don't")
    if polite:
        english_words.insert(0, "please")
        german_words.insert(0, "bitte")
    return sentence(*(" ".join(word for word in words if word) for words in (english_words, german_words)))


def passive(composer: Composer) -> Pair | None:
    """The bridge was built last year."""
    event = composer.event(lambda event: "a" in event.aspects)
    english_verb = composer.lexicon.english_verb(event.english.split()[0])
    german_verb = composer.lexicon.german_verb(event.german.split()[-1])
    clause = composer.clause(event)
    slot = next(iter(event.slots))
    patient = composer.object(event.slots[slot], None)
    if patient.person != "3s" and patient.person != "3p":
        return None
    past = f"{english_verb.participle} {clause.dropping(slot).english_complements()}".strip()
    rest = " ".join(clause.dropping(slot).german_middle())
    participle = f"{rest} {german_verb.full_participle()}".strip()
    werden = composer.lexicon.german_verb("werden")
    is_, was = english.be(patient.person, False), english.be(patient.person, True)
    modal = composer.lexicon.german_verb("müssen").present(patient.person)
    has_to = "has to" if patient.person == "3s" else "have to"
    kind = composer.pick(("past", "past", "present", "future", "modal"))
    time = composer.group({"past": "past", "present": "now", "future": "future", "modal": "modaltime"}[kind])
    if kind in ("past", "present") and composer.chance(0.3):
        agent = composer.pick((composer.name(), composer.kin("I")))
        if event.subjects[0] not in PEOPLE:
            agent = composer.object((event.subjects, "the", ""), None)
        past += f" by {agent.object}"
        participle = german.contract(f"von {agent.german['dat']}") + f" {participle}"
    patterns = {
        "past": (f"{was} {past} {time[0]}", f"{werden.past(patient.person)} {time[1]} {participle}"),
        "present": (f"{is_} being {past} {time[0]}", f"{werden.present(patient.person)} {time[1]} {participle}"),
        "future": (f"will be {past} {time[0]}", f"wird {time[1]} {participle} werden"),
        "modal": (f"{has_to} be {past} {time[0]}", f"{modal} {time[1]} {participle} werden"),
    }
    english_text, german_text = patterns[kind]
    if kind == "future" and patient.person == "3p":
        german_text = german_text.replace("wird", "werden", 1)
    return sentence(f"{patient.subject} {english_text}", f"{patient.german['nom']} {german_text}")


def likes(composer: Composer) -> Pair | None:
    """Anna likes reading novels."""
    event = composer.event(lambda event: "g" in event.aspects)
    clause = composer.clause(event)
    fills = dict(clause.fills)
    for name, spec in event.slots.items():
        if spec[1] in ("any", "a", "many"):
            fills[name] = composer.object((spec[0], "", "p"), None)
    clause = replace(clause, fills=fills)
    if event.places and composer.chance(0.4):
        clause = composer.placed(clause)
    verb = composer.lexicon.english_verb(event.english.split()[0])
    like = "likes" if clause.subject.english_person == "3s" else "like"
    gern = composer.weighted([(3, ("", "gern")), (1, ("very much", "sehr gern"))])
    place = clause.place[0] if clause.place else ""
    words = [clause.subject.subject, like, verb.ing(), clause.english_complements(), place, gern[0]]
    german_clause = replace(clause, often=(gern[1], gern[1]))
    return sentence(" ".join(word for word in words if word), german_clause.german_main())


def weather(composer: Composer) -> Pair | None:
    """It was very cold in Berlin yesterday."""
    row = composer.pick(composer.lexicon.tables["weather"])
    it = Phrase("it", "it", {"nom": "es"})
    clause = fixed_clause(composer, it, row[0], row[1])
    clause = replace(clause, event=replace(clause.event, aspects=row[2]))
    clause = composer.varied(clause, "pdf" if "p" in row[2] else "df")
    if clause.tense in ("past modal", "perfect"):
        return None
    city = composer.pick(composer.lexicon.tables["cities"])
    place = composer.weighted([(3, (f"in {city[0]}", f"in {city[1]}")), (1, ("in the mountains", "in den Bergen"))])
    clause = replace(clause, place=place if not clause.negated else None)
    front = clause.time is not None and clause.tense != "progressive" and composer.chance(0.4)
    return sentence(clause.english_main(front), clause.german_main(front))
