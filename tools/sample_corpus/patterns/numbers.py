"""Prices, ages, dates, times and amounts."""

from __future__ import annotations

from ..composer import Composer
from ..lexicon import Noun, Pair
from ..phrase import noun_phrase
from .nominal import small_number
from .sentence import copula, sentence


def numbers(composer: Composer) -> Pair | None:
    """The book costs twelve euros. My brother is fifteen years old."""
    kind = composer.pick(("price", "age", "date", "clock", "count"))
    if kind == "price":
        noun, number = _within(composer, "prices")
        subject = noun_phrase(noun, composer.pick(("the", "this")))
        cost = composer.pick((("costs", "kostet"), ("cost", "kostete")))
        return sentence(
            f"{subject.subject} {cost[0]} {number[0]} euros", f"{subject.german['nom']} {cost[1]} {number[1]} Euro"
        )
    if kind == "age":
        noun, number = _within(composer, "ages")
        kinds = ("the", "this") if "kid" in noun.classes else ("I", "you", "he", "she", "we")
        person = noun_phrase(noun, composer.pick(kinds))
        is_, ist = copula(person, False)
        return sentence(
            f"{person.subject} {is_} {number[0]} years old", f"{person.german['nom']} {ist} {number[1]} Jahre alt"
        )
    if kind == "date":
        return _date(composer)
    if kind == "clock":
        return _timetable(composer)
    place = composer.pick(composer.lexicon.tables["exist"])
    noun = composer.pick(composer.lexicon.nouns_of(tuple(place[2].split())))
    things = noun_phrase(noun, "", "p", count=small_number(composer))
    return sentence(f"there are {things.object} {place[0]}", f"es gibt {things.german['acc']} {place[1]}")


def _within(composer: Composer, table: str) -> tuple[Noun, Pair]:
    """A noun and a number in the range that the table gives for its class."""
    classes, limits = composer.pick(composer.lexicon.tables[table])
    first, last = (int(limit) for limit in limits.split())
    row = composer.pick(composer.lexicon.tables["numbers"][first : last + 1])
    return composer.pick(composer.lexicon.nouns_of(tuple(classes.split()))), (row[0], row[1])


def _timetable(composer: Composer) -> Pair:
    hours = composer.lexicon.tables["numbers"][:11]
    index = int(composer.source.random() * 10)
    hour, following = hours[index], hours[index + 1]
    clock = composer.pick(
        (
            (f"at {hour[0]} o'clock", f"um {hour[1]} Uhr"),
            (f"at half past {hour[0]}", f"um halb {following[1]}"),
            (f"at quarter past {hour[0]}", f"um Viertel nach {hour[1]}"),
            (f"at quarter to {hour[0]}", f"um Viertel vor {hour[1]}"),
        )
    )
    city = composer.pick(composer.lexicon.tables["cities"])
    bus, bus_de = composer.pick(
        (("the train", "der Zug"), ("the bus", "der Bus"), ("the next train", "der nächste Zug"))
    )
    day = composer.pick(composer.lexicon.tables["weekdays"])
    return composer.pick(
        (
            sentence(f"{bus} to {city[0]} leaves {clock[0]}", f"{bus_de} nach {city[1]} fährt {clock[1]} ab"),
            sentence(f"{bus} from {city[0]} arrives {clock[0]}", f"{bus_de} aus {city[1]} kommt {clock[1]} an"),
            sentence(f"let us meet on {day[0]} {clock[0]}", f"treffen wir uns am {day[1]} {clock[1]}"),
            sentence(f"the course begins on {day[0]} {clock[0]}", f"der Kurs beginnt am {day[1]} {clock[1]}"),
        )
    )


def _date(composer: Composer) -> Pair:
    month = composer.pick(composer.lexicon.tables["months"])
    ordinal = composer.pick(composer.lexicon.tables["ordinals"])
    date = f"on the {ordinal[0]} of {month[0]}", f"am {ordinal[1]} {month[1]}"
    if composer.chance(0.4):
        owner = composer.pick((composer.name(), composer.kin("I")))
        was, wurde = ("was", "wurde") if owner.person == "3s" else ("were", "wurden")
        return sentence(f"{owner.subject} {was} born {date[0]}", f"{owner.german['nom']} {wurde} {date[1]} geboren")
    event = noun_phrase(composer.pick(composer.lexicon.nouns_of(("event",))), composer.pick(("the", "we")))
    return sentence(f"{event.subject} begins {date[0]}", f"{event.german['nom']} beginnt {date[1]}")
