"""What is so unlikely in good data that somebody should look before a model is trained on it, in words.

Preparation says it of the raw text and of what became of it, training and ``tools/show_data.py`` of what they find on
disk (:mod:`xlmtrain.data.quality`).
"""

from __future__ import annotations

from collections.abc import Iterator

UNKNOWN = 0.01
"""Share of unknown subwords from which on somebody should look."""

LARGE_VOCAB = 200_000
_WIDTH = 1024
_PARTS = 0.01
_JUDGED = 1000


def vocab_warnings(size: int, parts: int) -> Iterator[str]:
    """Of a vocabulary of ``size`` entries, ``parts`` of which are no whole words and not the end of one."""
    if size > LARGE_VOCAB:
        yield (
            f"a vocabulary of {size:,}: the embeddings of a model of {_WIDTH} dimensions alone would have "
            f"{size * _WIDTH / 1e6:,.0f} million parameters; take fewer bpe.merges, or vocab.max_size"
        )
    if size > _JUDGED and parts < _PARTS * size:
        yield (
            f"of the vocabulary's {size:,} entries {parts:,} are parts of words, ending with @@: was BPE forgotten, or "
            "bpe.merges too many? Words that are not in it cannot be told apart"
        )


def unk_warnings(corpus: str, rate: float) -> Iterator[str]:
    """Of a corpus of whose subwords the share ``rate`` is not in the vocabulary."""
    if rate > UNKNOWN:
        yield (
            f"{corpus}: {rate:.1%} of the subwords are not in the vocabulary; were codes and vocabulary made from text "
            "like this?"
        )
