"""Does a translation help? Hide a word of a sentence, and let the model find it with and without the other language."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from xlmtrain.data.batch import make_batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.sequences import Sequences, pair_sequences, sentence_sequences
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.rng import generator
from xlmtrain.text.vocab import CONTINUATION, MASK, SPECIALS, Vocab


@dataclass(frozen=True)
class ClozeExample:
    """One hidden word: the sentence with ``<mask>``, its translation, and what the model put there."""

    sentence: str
    translation: str
    truth: str
    alone: str
    with_translation: str


def run_cloze(
    model: LanguageModel, dataset: Dataset, split: str, pair: str, hidden: str, count: int
) -> list[ClozeExample]:
    """Hide a word of the language ``hidden`` in each of the first ``count`` pairs that have one and fit the model.

    A word is a whole one: a token that neither continues nor is continued, of letters only, and longer than three,
    which leaves out most articles and pronouns. The choice is fixed.
    """
    languages = pair.split("-")
    sides = dict(zip(languages, dataset.pair(split, pair)))
    other = languages[1 - languages.index(hidden)]
    vocab, longest = dataset.vocab, model.encoder.position_embeddings.num_embeddings
    found: list[ClozeExample] = []
    for number in range(len(sides[hidden])):
        corpora = sides[hidden], sides[other]
        sentence, translation = (corpus.sentence(number).astype(np.int64) for corpus in corpora)
        words = list(whole_word_positions(sentence, vocab))
        if words and max(len(sentence), len(translation)) < longest:
            place = words[generator(0, "recovery", number).integers(len(words))]
            ids = (dataset.language_id(hidden), dataset.language_id(other))
            found.append(_recover(model, vocab, sentence, translation, place, ids))
        if len(found) == count:
            break
    return found


def _recover(
    model: LanguageModel,
    vocab: Vocab,
    sentence: np.ndarray,
    translation: np.ndarray,
    place: int,
    languages: tuple[int, int],
) -> ClozeExample:
    masked = sentence.copy()
    masked[place] = MASK
    alone = _best(model, sentence_sequences([masked], languages[0]))
    together = _best(model, pair_sequences([masked], [translation], languages))
    return ClozeExample(
        vocab.decode(masked[:-1]).replace(SPECIALS[MASK], "<mask>"),
        vocab.decode(translation[:-1]),
        vocab.word(sentence[place]),
        vocab.word(alone),
        vocab.word(together),
    )


@torch.no_grad()
def _best(model: LanguageModel, rows: Sequences) -> int:
    return int(model.logits(make_batch("mlm", rows, rows.tokens, rows.tokens == MASK)).argmax())


def whole_word_positions(sentence: np.ndarray, vocab: Vocab) -> Iterator[int]:
    """Places of the tokens in ``sentence`` (with its EOS) that are words to hide."""
    words = [vocab.word(token) for token in sentence]
    for place, word in enumerate(words[:-1]):
        if word.isalpha() and len(word) > 3 and not (place and words[place - 1].endswith(CONTINUATION)):
            yield place
