"""What only the model itself can tell: hidden words, translations found, a map, a look at its attention."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xlmtrain.config.schema import Pooling
from xlmtrain.data.batch import make_batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.sequences import pair_sequences
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.attention import attention_weights
from xlmtrain.evaluate.cloze import ClozeExample, run_cloze, whole_word_positions
from xlmtrain.evaluate.retrieval import Retrieval, retrieve
from xlmtrain.evaluate.sentence_embeddings import pca_2d
from xlmtrain.pretrained import Pretrained, load
from xlmtrain.report.record import RunRecord
from xlmtrain.text.vocab import MASK, SPECIALS

_RETRIEVED = 1000  # pairs at most: more say little more, and cost their square
_MAPPED = 40
_LONGEST = 26  # tokens of a pair whose attention is still to be read


@dataclass(frozen=True)
class PairMap:
    """Sentence vectors of translations in a plane: ``points`` of either language (N, 2), and both ``texts`` of each.

    ``share``: of the variance; ``layer``: whose states, the one that finds most translations.
    """

    languages: tuple[str, str]
    points: tuple[np.ndarray, np.ndarray]
    texts: list[tuple[str, str]]
    share: float
    layer: int


@dataclass(frozen=True)
class AttentionView:
    """``weights`` (L, H, T, T) over ``words``, of which the second language's begin at ``split``; a word was hidden."""

    weights: np.ndarray
    words: list[str]
    split: int
    truth: str
    guess: str

    def across(self) -> np.ndarray:
        """(L, H) the share of attention that goes to the other language, as a mean over the positions."""
        w, n = self.weights, self.split
        to_other = w[..., :n, n:].sum(axis=(-1, -2)) + w[..., n:, :n].sum(axis=(-1, -2))
        return to_other / w.shape[-1]


@dataclass
class Views:
    """Of one run; what its data does not allow is left empty."""

    step: int = 0
    recovered: list[ClozeExample] = field(default_factory=list)
    retrieval: dict[tuple[str, int], list[Retrieval]] = field(default_factory=dict)
    pairs: PairMap | None = None
    attention: AttentionView | None = None


def view(record: RunRecord, hidden: str, words: int) -> Views:
    """Look at the run's best model with the pairs of its validation data.

    ``hidden``: the language of which ``words`` words are hidden. Raises ConfigError if the model does not know it,
    DataError if the data is no longer what the run was trained on.
    """
    model = load(record.path)
    if hidden not in model.languages:
        raise ConfigError(f"hidden={hidden}: the model knows {', '.join(model.languages)}")
    views, data = Views(model.step), record.nested["data"]
    if not any(name.startswith("valid.") and name.count(".") == 2 for name in record.header.corpora):
        return views  # and the data need not be there
    dataset = Dataset(data["path"])
    if dataset.fingerprint != record.header.fingerprint:
        raise DataError(f"{data['path']}: this is no longer the data that {record.path} was trained on")
    pairs = dataset.pairs("valid")
    for pair in pairs:
        if hidden in pair.split("-") and not model.causal:
            views.recovered += run_cloze(model.model, dataset, "valid", pair, hidden, words)
    views.retrieval, views.pairs = _of_sentences(model, dataset, pairs[0])
    if hidden in pairs[0].split("-") and not model.causal:
        views.attention = _attention(model, dataset, pairs[0], hidden)
    return views


def _of_sentences(
    model: Pretrained, dataset: Dataset, pair: str
) -> tuple[dict[tuple[str, int], list[Retrieval]], PairMap | None]:
    """Retrieval by every pooling and layer, and the map."""
    first, second = pair.split("-")
    sides = dataset.pair("valid", pair)
    longest = model.model.encoder.position_embeddings.num_embeddings
    usable = np.flatnonzero(np.stack([s.lengths() for s in sides]).max(axis=0) + 2 <= longest)[:_RETRIEVED]
    if len(usable) < 3:
        return {}, None
    ids = {lang: [side.sentence(i).astype(np.int64) for i in usable] for lang, side in zip((first, second), sides)}
    texts = {lang: [dataset.vocab.decode(one[:-1]) for one in of] for lang, of in ids.items()}
    vectors = {lang: model.embed_ids(of, lang) for lang, of in ids.items()}
    found = {
        (pooling.value, layer): retrieve({lang: v[pooling][layer] for lang, v in vectors.items()}, texts, model.device)
        for pooling in Pooling
        for layer in range(len(vectors[first][pooling]))
    }
    mean = {layer: results for (pooling, layer), results in found.items() if pooling == Pooling.mean.value}
    best = max(mean, key=lambda layer: sum(one.top1 for one in mean[layer] if one.scoring == "cosine"))
    shown = min(_MAPPED, len(usable))
    both = np.concatenate([vectors[lang][Pooling.mean][best][:shown] for lang in (first, second)])
    plane, share = pca_2d(both)
    shown_texts = list(zip(texts[first][:shown], texts[second][:shown]))
    return found, PairMap((first, second), (plane[:shown], plane[shown:]), shown_texts, share, best)


def _attention(model: Pretrained, dataset: Dataset, pair: str, hidden: str) -> AttentionView | None:
    """The first pair that is short and has a word to hide."""
    languages = [hidden, *(lang for lang in pair.split("-") if lang != hidden)]
    sides = dict(zip(pair.split("-"), dataset.pair("valid", pair)))
    vocab = dataset.vocab
    for number in range(len(sides[hidden])):
        sentence, other = (sides[lang].sentence(number).astype(np.int64) for lang in languages)
        places = list(whole_word_positions(sentence, vocab))
        if not places or len(sentence) + len(other) + 2 > _LONGEST or min(len(sentence), len(other)) < 5:
            continue
        place = places[len(places) // 2]
        masked = sentence.copy()
        masked[place] = MASK
        ids = (dataset.language_id(languages[0]), dataset.language_id(languages[1]))
        rows = pair_sequences([masked], [other], ids)
        batch = make_batch("mlm", rows, rows.tokens, rows.tokens == MASK).to(model.device)
        guess = int(model.model.logits(batch).argmax())
        weights = attention_weights(model.model, batch)[:, 0].cpu().numpy()
        words = [vocab.word(token).replace(SPECIALS[MASK], "<mask>") for token in rows.tokens[0].tolist()]
        return AttentionView(weights, words, len(masked) + 1, vocab.word(int(sentence[place])), vocab.word(guess))
    return None
