"""Batches as text, to look at."""

from __future__ import annotations

from collections.abc import Iterator

from xlmtrain.data.batch import Batch
from xlmtrain.text.vocab import MASK, SPECIALS, Vocab


def describe_batch(batch: Batch, vocab: Vocab, languages: list[str], rows: int) -> Iterator[str]:
    """What the batch is, then its first ``rows`` rows: text as the model sees it, and token by token.

    A token is shown as ``word``, ``seen(truth)`` where it is to be predicted, then ``language:position``.
    """
    count, length = batch.tokens.shape
    padding = batch.tokens.numel() - batch.unpadded
    yield (
        f"== {batch.name}: {count} rows x {length} tokens, {len(batch.targets)} to predict, "
        f"{padding / batch.tokens.numel():.1%} padding"
    )
    truth = dict(zip(batch.target_index.tolist(), batch.targets.tolist()))
    for row in range(min(rows, count)):
        used = length if batch.lengths is None else int(batch.lengths[row])
        text = vocab.decode(batch.tokens[row, :used].tolist())
        yield f"-- row {row}, {used} tokens: {text.replace(SPECIALS[MASK], '<mask>')}"
        shown = []
        for column in range(used):
            token = int(batch.tokens[row, column])
            word = "<mask>" if token == MASK else vocab.word(token)
            if (place := row * length + column) in truth:
                word = f"{word}({vocab.word(truth[place])})"
            language = languages[int(batch.languages[row, column])]
            shown.append(f"{word} {language}:{int(batch.positions[row, column])}")
        yield "   " + " | ".join(shown)
