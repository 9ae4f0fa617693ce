"""The symbols that a tokenizer of Hugging Face's library adds around a text, and around and between two texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

try:
    import tokenizers
except ImportError:
    tokenizers = None  # type: ignore[assignment]


def set_delimiters(
    tokenizer: Any, bos: str, eos: str, between: Sequence[str], second_type: int = 0, before: Any = None
) -> None:
    """Let ``tokenizer`` make ``bos a eos`` of a text and ``bos a between b eos`` of a pair.

    ``second_type``: token type of the second text and its end. ``before``: the step that precedes this one.
    """
    template = tokenizers.processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", *between, f"$B:{second_type}", f"{eos}:{second_type}"],
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in dict.fromkeys((bos, eos))],
    )
    tokenizer.post_processor = tokenizers.processors.Sequence([before, template]) if before else template


def delimit_as_in_training(tokenizer: Any, names: Mapping[str, str]) -> None:
    """Let ``tokenizer`` delimit texts by the ``names`` of its bos and eos, and pairs as TLM reads them."""
    bos, eos = names["bos"], names["eos"]
    set_delimiters(tokenizer, bos, eos, [eos, bos], before=tokenizer.post_processor)


def pair_layout(tokenizer: Any) -> tuple[int, bool]:
    """Return how many symbols ``tokenizer`` puts between two texts, and whether the second one has token type 1."""
    encoded = tokenizer.encode("a", "a")
    sides = list(encoded.sequence_ids)
    if 0 not in sides or 1 not in sides:
        return 1, False
    second = sides.index(1)
    return max(1, second - 1 - (len(sides) - 1 - sides[::-1].index(0))), encoded.type_ids[second] == 1


def set_pair_layout(tokenizer: Any, bos: str, eos: str, separators: int, token_types: bool) -> bool:
    """Replace the delimiters: ``eos`` as ``separators`` between two texts, of which the second one has type 1.

    Returns False, and changes nothing, if they are such already.
    """
    left, right = tokenizer.token_to_id(bos), tokenizer.token_to_id(eos)
    text, pair = tokenizer.encode("a", add_special_tokens=False).ids, tokenizer.encode("a", "a")
    wanted = [left, *text, right], [left, *text, *[right] * separators, *text, right], int(token_types)
    if (tokenizer.encode("a").ids, pair.ids, pair.type_ids[-1]) == wanted:
        return False
    # The offsets of words begin after their blanks.
    trim = tokenizers.processors.ByteLevel(trim_offsets=True) if '"ByteLevel"' in tokenizer.to_str() else None
    set_delimiters(tokenizer, bos, eos, [eos] * separators, int(token_types), trim)
    return True
