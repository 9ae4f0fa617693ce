"""Sentences about animals and their translations, prepared from text of both kinds."""

from __future__ import annotations

from itertools import product
from pathlib import Path

SUBJECTS = {"Katze": "cat", "Kuh": "cow", "Maus": "mouse", "Ente": "duck", "Straße": "street"}


VERBS = {"schläft": "sleeps", "wartet": "waits", "singt": "sings", "glänzt": "shines"}


PLACES = {"im Garten": "in the garden", "am Fluss": "by the river", "heute früh": "early today"}


PAIRS = [
    (f"Die {s} {v} {p}.", f"The {SUBJECTS[s]} {VERBS[v]} {PLACES[p]}.") for s, v, p in product(SUBJECTS, VERBS, PLACES)
]


def write_animals(place: Path) -> list[str]:
    """Write the text into a directory; return the settings of ``prepare`` that name its files."""
    for split, pairs in (("train", PAIRS[::2] + PAIRS[1::4]), ("valid", PAIRS[3::4])):
        for side, language in enumerate(("de", "en")):
            lines = [pair[side] for pair in pairs]
            (place / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = [
        setting
        for split in ("train", "valid")
        for setting in (
            f"{split}.mono={{de: [{place}/{split}.de], en: [{place}/{split}.en]}}",
            f'{split}.pairs={{de-en: ["{place}/{split}.{{lang}}"]}}',
        )
    ]
    return [*texts, "bpe.merges=60", "workers=1"]
