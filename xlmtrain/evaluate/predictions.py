"""Masked sentences with what the model puts there, to look at."""

from __future__ import annotations

import torch

from xlmtrain.config.schema import Precision
from xlmtrain.data.batch import Batch
from xlmtrain.data.validation import ValidationSet
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.precision import autocast
from xlmtrain.text.vocab import PAD, Vocab

_SHOWN_TOKENS = 64


@torch.no_grad()
def sample_predictions(
    model: LanguageModel, chosen: ValidationSet, vocab: Vocab, count: int, precision: Precision, device: torch.device
) -> str:
    """The first ``count`` rows of the set as Markdown: ``[truth > guess]`` at each target, bold where they agree."""
    was_training = model.training
    model.eval()
    lines: list[str] = []
    for batch in chosen.batches():
        with autocast(precision, device):
            guesses = model.logits(batch.to(device)).argmax(dim=1).cpu()
        lines += _rows(batch, guesses, vocab)[: count - len(lines)]
        if len(lines) >= count:
            break
    model.train(was_training)
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def _rows(batch: Batch, guesses: torch.Tensor, vocab: Vocab) -> list[str]:
    length = batch.tokens.shape[1]
    marks = {
        int(place): (int(target), int(guess))
        for place, target, guess in zip(batch.target_index, batch.targets, guesses)
    }
    lines = []
    for row, tokens in enumerate(batch.tokens.tolist()):
        words = []
        for column, token in enumerate(tokens[:_SHOWN_TOKENS]):
            if token == PAD:
                break
            truth, guess = marks.get(row * length + column, (None, None))
            if truth is None or guess is None:
                words.append(vocab.word(token))
            elif truth == guess:
                words.append(f"**[{vocab.word(truth)}]**")
            else:
                words.append(f"[{vocab.word(truth)} > {vocab.word(guess)}]")
        lines.append(" ".join(words).replace("<", "&lt;"))
    return lines
