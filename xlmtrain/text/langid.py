"""Language identification: by the commonest words for a whole file, by a classifier for a line.

The common words detect files that were swapped. They are listed for German and English only; text in other languages is
not judged. Lines are classified by py3langid, an optional package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from xlmtrain.errors import ConfigError

try:
    from py3langid import langid
except ImportError:
    langid = None

_MARKER_WORDS = {
    "de": "der die das und nicht ist ein eine zu den mit auf für sich dem auch von wir werden sie",
    "en": "the of and to a in is that it was for on with this be are not have by you",
}
MARKERS = {language: frozenset(words.split()) for language, words in _MARKER_WORDS.items()}
_LANGUAGE_OF = {word.encode(): language for language, words in MARKERS.items() for word in words}
_LINES_READ = 100
_MIN_MARKERS = 20
UNDECIDED = "und"


def marker_words(lines: Sequence[bytes]) -> Counter[str]:
    """Count the marker words of each known language in the first lines."""
    words = b" ".join(lines[:_LINES_READ]).lower().split()
    return Counter(language for word in words if (language := _LANGUAGE_OF.get(word)))


def detected_language(language: str, words: Mapping[str, int]) -> str | None:
    """Return the language that text labelled ``language`` is clearly in, by its :func:`marker_words`.

    None if that is ``language``, if it is not clear, or if ``language`` has no marker words.
    """
    if language not in MARKERS:
        return None
    likeliest = max(MARKERS, key=lambda other: words.get(other, 0))
    clear = words.get(likeliest, 0) >= max(_MIN_MARKERS, 4 * words.get(language, 0))
    return likeliest if clear else None


def make_langid_filter(language: str, confidence: float) -> Callable[[str], bool]:
    """Return a function: is a line, with at least ``confidence``, in another language than ``language``?

    Raises ConfigError if py3langid is missing or does not know the language.
    """
    if langid is None:
        raise ConfigError("clean.langid_confidence needs the package py3langid; install it with: pip install py3langid")
    model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True, min_confidence=confidence)
    if language not in model.labels:
        raise ConfigError(f"clean.langid_confidence: py3langid does not know the language {language}")
    return lambda line: model.classify(line)[0] not in (language, UNDECIDED)
