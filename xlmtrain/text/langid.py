"""Which language a text is in: by its commonest words for a whole file, by a classifier for a line.

The words are enough to notice files that were swapped; only German and English, which this program is made for, are
told apart that way, and text of other languages is not judged. Lines are classified by py3langid where it is installed
(an extra).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from xlmtrain.errors import ConfigError

try:
    from py3langid import langid
except ImportError:
    langid = None

MARKERS = {
    "de": frozenset(
        [
            "der",
            "die",
            "das",
            "und",
            "nicht",
            "ist",
            "ein",
            "eine",
            "zu",
            "den",
            "mit",
            "auf",
            "für",
            "sich",
            "dem",
            "auch",
            "von",
            "wir",
            "werden",
            "sie",
        ]
    ),
    "en": frozenset(
        [
            "the",
            "of",
            "and",
            "to",
            "a",
            "in",
            "is",
            "that",
            "it",
            "was",
            "for",
            "on",
            "with",
            "this",
            "be",
            "are",
            "not",
            "have",
            "by",
            "you",
        ]
    ),
}
_OWNER = {word.encode(): language for language, words in MARKERS.items() for word in words}
_LINES_LOOKED_AT = 100
_ENOUGH = 20
UNDECIDED = "und"


def marker_words(lines: Sequence[bytes]) -> Counter[str]:
    """How many of the first lines' words are among the commonest of each language that is known."""
    words = b" ".join(lines[:_LINES_LOOKED_AT]).lower().split()
    return Counter(owner for word in words if (owner := _OWNER.get(word)))


def detected_language(language: str, words: Mapping[str, int]) -> str | None:
    """The language that the text is clearly in, by its ``words``, if that is not ``language``, itself one we know."""
    if language not in MARKERS:
        return None
    likeliest = max(MARKERS, key=lambda other: words.get(other, 0))
    clear = words.get(likeliest, 0) >= max(_ENOUGH, 4 * words.get(language, 0))
    return likeliest if clear else None


def make_langid_filter(language: str, confidence: float) -> Callable[[str], bool]:
    """Whether a line is, with at least ``confidence``, in another language than ``language``.

    Raises ConfigError if py3langid is missing or does not know the language.
    """
    if langid is None:
        raise ConfigError("clean.langid_confidence needs the package py3langid; install it with: pip install py3langid")
    model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True, min_confidence=confidence)
    if language not in model.labels:
        raise ConfigError(f"clean.langid_confidence: py3langid does not know the language {language}")
    return lambda line: model.classify(line)[0] not in (language, UNDECIDED)
