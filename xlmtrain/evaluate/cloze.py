"""Masked words with the model's predictions, and attention weights, for people to read.

Letters: B sequences, T positions, S positions of a source, L layers, H heads, K width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from xlmtrain.config.train import Precision
from xlmtrain.data.batch import Batch, make_batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.sequences import SequenceBatch, pair_sequences, sentence_sequences
from xlmtrain.data.validation import ValidationSet
from xlmtrain.model.attention import CrossAttention, RowGroup
from xlmtrain.model.block import Block
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.precision import autocast, eval_mode
from xlmtrain.runtime.rng import generator
from xlmtrain.text.vocab import Vocab

_SHOWN_TOKENS = 64


@dataclass(frozen=True)
class ClozeExample:
    """One masked word: the sentence with ``<mask>``, its translation, the word, and the model's two predictions.

    ``mono``: predicted from the sentence only. ``parallel``: predicted from the sentence and its translation.
    """

    sentence: str
    translation: str
    gold: str
    mono: str
    parallel: str


def run_cloze(
    model: LanguageModel, dataset: Dataset, split: str, pair: str, masked: str, count: int
) -> list[ClozeExample]:
    """Mask a word of the language ``masked`` in each of the first ``count`` pairs that have one and fit the model.

    The choice among :func:`whole_word_positions` is the same at every call.
    """
    languages, corpora = pair.split("-"), dataset.pair(split, pair)
    side = languages.index(masked)
    ids = (dataset.language_id(masked), dataset.language_id(languages[1 - side]))
    vocab, max_positions = dataset.vocab, model.config.max_positions
    found: list[ClozeExample] = []
    for number in range(len(corpora[side])):
        if len(found) == count:
            break
        sentence, translation = (corpora[i].sentence(number).astype(np.int64) for i in (side, 1 - side))
        words = list(whole_word_positions(sentence, vocab))
        if not words or max(len(sentence), len(translation)) >= max_positions:
            continue
        # The purpose "recovery" keys the random numbers: another word would mask other words.
        place = words[generator(0, "recovery", number).integers(len(words))]
        gold, sentence[place] = sentence[place], vocab.special.mask
        found.append(
            ClozeExample(
                vocab.decode(sentence[:-1]).replace(vocab.tokens[vocab.special.mask], "<mask>"),
                vocab.decode(translation[:-1]),
                vocab.token(gold),
                vocab.token(_best(model, sentence_sequences([sentence], ids[0], vocab.special))),
                vocab.token(_best(model, pair_sequences([sentence], [translation], ids, vocab.special))),
            )
        )
    return found


@torch.no_grad()
def _best(model: LanguageModel, sequences: SequenceBatch) -> int:
    batch = make_batch("mlm", sequences, sequences.tokens, sequences.tokens == model.special.mask)
    return int(model.logits(batch).argmax())


def whole_word_positions(sentence: np.ndarray, vocab: Vocab) -> Iterator[int]:
    """Yield the positions in ``sentence`` (with its EOS) of tokens that are whole words of more than three letters.

    The length leaves out most articles and pronouns.
    """
    begins = vocab.begins_word(sentence)
    for place in np.flatnonzero(begins[:-1] & begins[1:]).tolist():
        word = vocab.token(sentence[place])
        if word.isalpha() and len(word) > 3:
            yield place


def sample_predictions(
    model: LanguageModel, chosen: ValidationSet, vocab: Vocab, count: int, precision: Precision, device: torch.device
) -> str:
    """Return the first ``count`` sequences as Markdown, with ``[gold > predicted]``, or ``**[gold]**`` if equal."""
    lines: list[str] = []
    for batch in chosen.batches():
        with eval_mode(model), autocast(precision, device):
            predicted = model.logits(batch.to(device)).argmax(dim=1).cpu()
        lines += _marked_sequences(batch, predicted, vocab)[: count - len(lines)]
        if len(lines) >= count:
            break
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def _marked_sequences(batch: Batch, predicted: torch.Tensor, vocab: Vocab) -> list[str]:
    marks = {}
    for place, gold, guess in zip(batch.target_index.tolist(), batch.targets.tolist(), predicted.tolist()):
        word = vocab.token(gold)
        marks[place] = f"**[{word}]**" if gold == guess else f"[{word} > {vocab.token(guess)}]"
    lines = []
    for row, tokens in enumerate(batch.tokens.tolist()):
        used = [token for token in tokens[:_SHOWN_TOKENS] if token != vocab.special.pad]
        words = [marks.get(row * len(tokens) + column) or vocab.token(token) for column, token in enumerate(used)]
        lines.append(" ".join(words).replace("<", "&lt;"))
    return lines


@torch.no_grad()
def attention_weights(model: LanguageModel, batch: Batch) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(K)), (L, B, H, T, T) float32, with a row for each query position.

    Fused attention does not materialize these matrices, so they are recomputed from the hidden states. The batch must
    be bidirectional and without padding.
    """
    assert batch.lengths is None
    assert not batch.causal
    layers = []
    states = model.encoder.hidden_states(batch.tokens, batch.positions, batch.languages)
    rows, length = batch.positions.shape
    views = model.encoder.attention_views(batch.positions, [RowGroup(rows, length)], False)
    for x, block in zip(states, model.encoder.blocks):
        assert isinstance(block, Block)
        view, attention = views[block.local], block.attention
        qkv = attention.project(block.attention_norm(x) if block.pre_norm else x, view.rotation)
        q, k, _ = qkv.unflatten(2, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if view.key_mask is not None:
            scores = scores.masked_fill(~view.key_mask, -torch.inf)
        layers.append(scores.softmax(dim=-1))
    return torch.stack(layers).float()


@torch.no_grad()
def source_attention_weights(model: LanguageModel, batch: Batch) -> torch.Tensor:
    """Return the attention of each target position to the source, (L, B, H, T, S) float32.

    ``batch`` must have a source, and no padding.
    """
    assert isinstance(model, TranslationModel)
    assert batch.source is not None
    assert batch.source.lengths is None
    layers = []

    def record(module: CrossAttention, inputs: tuple[torch.Tensor, torch.Tensor, None]) -> None:
        x, source, _ = inputs
        keys, _ = module.keys_values(source)
        q = module.query(x).unflatten(2, (module.heads, -1)).transpose(1, 2)
        layers.append((q @ keys.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1))

    hooks = [
        module.register_forward_pre_hook(record)
        for module in model.decoder.modules()
        if isinstance(module, CrossAttention)
    ]
    try:
        model.logits(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(layers).float()
