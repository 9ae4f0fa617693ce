"""Views for which the model has to run: cloze, bitext retrieval, PCA of sentence embeddings, attention."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.translate import TranslationConfig
from xlmtrain.data.batch import make_batch, make_seq2seq_batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.sequences import pair_sequences, sentence_sequences
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.cloze import (
    ClozeExample,
    attention_weights,
    run_cloze,
    source_attention_weights,
    whole_word_positions,
)
from xlmtrain.evaluate.retrieval import Retrieval, retrieve_by_layer, validation_pairs
from xlmtrain.evaluate.sentence_embeddings import pca_2d
from xlmtrain.evaluate.translation import translate_sentences
from xlmtrain.pretrained import PretrainedModel, load
from xlmtrain.report.run_data import RunData

_RETRIEVED = 1000  # pairs at most: the cost grows with their square
_PROJECTED = 40
_LONGEST = 26  # tokens of a pair whose attention can be read in a chart


@dataclass(frozen=True)
class SentencePca:
    """Sentence embeddings of translations on their first two principal components.

    ``points``: (N, 2) of each language. ``texts``: of each pair. ``share``: of the variance. ``layer``: the one with
    the best retrieval.
    """

    languages: tuple[str, str]
    points: tuple[np.ndarray, np.ndarray]
    texts: list[tuple[str, str]]
    share: float
    layer: int


@dataclass(frozen=True)
class PairAttention:
    """``weights`` (L, H, T, T) over ``words``; the second language begins at ``split``. One word was masked."""

    weights: np.ndarray
    words: list[str]
    split: int
    truth: str
    guess: str

    def across(self) -> np.ndarray:
        """Return (L, H) the share of attention that goes to the other language, as a mean over the positions."""
        w, n = self.weights, self.split
        to_other = w[..., :n, n:].sum(axis=(-1, -2)) + w[..., n:, :n].sum(axis=(-1, -2))
        return to_other / w.shape[-1]


@dataclass(frozen=True)
class SourceAttention:
    """``weights`` (L, H, T, S): attention of each token of a ``translation`` to the tokens of its ``source``."""

    weights: np.ndarray
    source: list[str]
    translation: list[str]


@dataclass
class Views:
    """The views of one run; what its data does not allow is empty. ``retrieval``: by (pooling, layer)."""

    step: int = 0
    cloze: list[ClozeExample] = field(default_factory=list)
    retrieval: dict[tuple[str, int], list[Retrieval]] = field(default_factory=dict)
    pca: SentencePca | None = None
    attention: PairAttention | None = None
    source_attention: SourceAttention | None = None


def view(run: RunData, cloze_lang: str, words: int) -> Views:
    """Run the best model on the pairs of its validation data; before the first checkpoint, every view is empty.

    ``cloze_lang``: the language in which ``words`` words are masked. Raises ConfigError if the model does not know it,
    DataError if the data is no longer what the run was trained on.
    """
    if not any(run.path.glob("checkpoints/*")):
        return Views()
    model = load(run.path)
    if cloze_lang not in model.languages:
        raise ConfigError(f"cloze_lang={cloze_lang}: the model knows {', '.join(model.languages)}")
    views, path = Views(model.step), run.settings.get("data.path")
    if path is None or not any(name.startswith("valid.") and name.count(".") == 2 for name in run.header.corpora):
        return views  # the data need not exist any more
    dataset = Dataset(path)
    if dataset.fingerprint != run.header.fingerprint:
        raise DataError(f"{path}: this is no longer the data that {run.path} was trained on")
    pairs = dataset.pairs("valid")
    cloze_pairs = [pair for pair in pairs if cloze_lang in pair.split("-") and model.fills_masks]
    for pair in cloze_pairs:
        views.cloze += run_cloze(model.model, dataset, "valid", pair, cloze_lang, words)
    _embed_pairs(views, model, dataset, pairs[0])
    if pairs[0] in cloze_pairs:
        views.attention = _attention_over_pair(model, dataset, pairs[0], cloze_lang)
    for name in run.per_language("_mt_ppl")[:1]:
        views.source_attention = _attention_to_source(model, dataset, re.split("[/_]", name)[1])
    return views


def _embed_pairs(views: Views, model: PretrainedModel, dataset: Dataset, pair: str) -> None:
    """Add retrieval by every pooling and layer, and the projection, of at least three pairs."""
    ids = validation_pairs(dataset, pair, model.model.config.max_positions, _RETRIEVED)
    count = len(next(iter(ids.values()), []))
    if count < 3:
        return
    first, second = ids
    texts = {lang: [dataset.vocab.decode(sentence[:-1]) for sentence in sentences] for lang, sentences in ids.items()}
    vectors = {lang: model.embed_ids(sentences, lang) for lang, sentences in ids.items()}
    views.retrieval = retrieve_by_layer(vectors, texts, model.device)
    top1 = [
        sum(result.top1 for result in found if result.scoring == "cosine")
        for (pooling, _), found in views.retrieval.items()
        if pooling == Pooling.mean.value
    ]
    best = top1.index(max(top1))
    shown = min(_PROJECTED, count)
    plane, share = pca_2d(np.concatenate([vectors[lang][Pooling.mean][best][:shown] for lang in (first, second)]))
    shown_texts = list(zip(texts[first][:shown], texts[second]))
    views.pca = SentencePca((first, second), (plane[:shown], plane[shown:]), shown_texts, share, best)


def _attention_over_pair(model: PretrainedModel, dataset: Dataset, pair: str, cloze_lang: str) -> PairAttention | None:
    """Return the attention on the first pair that is short and has a word to mask."""
    sides = dict(zip(pair.split("-"), dataset.pair("valid", pair)))
    languages = sorted(sides, key=lambda lang: lang != cloze_lang)
    vocab = dataset.vocab
    for number in range(len(sides[cloze_lang])):
        sentence, other = (sides[lang].sentence(number).astype(np.int64) for lang in languages)
        places = list(whole_word_positions(sentence, vocab))
        if not places or len(sentence) + len(other) + 2 > _LONGEST or min(len(sentence), len(other)) < 5:
            continue
        place = places[len(places) // 2]
        truth, sentence[place] = vocab.token(int(sentence[place])), vocab.special.mask
        ids = (dataset.language_id(languages[0]), dataset.language_id(languages[1]))
        rows = pair_sequences([sentence], [other], ids, vocab.special)
        batch = make_batch("mlm", rows, rows.tokens, rows.tokens == vocab.special.mask).to(model.device)
        guess = vocab.token(int(model.model.logits(batch).argmax()))
        weights = attention_weights(model.model, batch)[:, 0].cpu().numpy()
        words = [
            vocab.token(token).replace(vocab.tokens[vocab.special.mask], "<mask>") for token in rows.tokens[0].tolist()
        ]
        return PairAttention(weights, words, len(sentence) + 1, truth, guess)
    return None


def _attention_to_source(model: PretrainedModel, dataset: Dataset, direction: str) -> SourceAttention | None:
    """Return the attention in a translation of the first validation sentence of 6 to 12 tokens; None if none is."""
    languages, special = direction.split("-"), dataset.vocab.special
    name = f"valid.{'-'.join(sorted(languages))}.{languages[0]}"
    if not dataset.has(name):
        return None
    corpus = dataset.corpus(name)
    chosen = np.flatnonzero((corpus.lengths() >= 6) & (corpus.lengths() <= _LONGEST // 2 - 1))[:1]
    if not len(chosen):
        return None
    source_id, target_id = map(dataset.language_id, languages)
    sentence = corpus.sentence(int(chosen[0])).astype(np.int64)
    (found,) = translate_sentences(model.model, [sentence], source_id, target_id, TranslationConfig(beam=1))
    source, target = (
        sentence_sequences([ids], number, special) for ids, number in ((sentence, source_id), (found, target_id))
    )
    weights = source_attention_weights(model.model, make_seq2seq_batch("mt", source, target).to(model.device))
    words = [[dataset.vocab.token(token) for token in ids.tolist()] for ids in (sentence, found)]
    # A source begins with EOS; the position that begins the translation predicts its first token.
    return SourceAttention(weights[:, 0, :, :-1].cpu().numpy(), [dataset.vocab.token(special.eos), *words[0]], words[1])
