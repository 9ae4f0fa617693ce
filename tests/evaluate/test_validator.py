"""Have the languages met? Models that were built to know, or not to know, and figures that come about otherwise."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.tiny import ALONE, WORDS, NeverStops, run_processes, tiny_config
from tests.support.toy import toy_model
from tests.support.training import records, train_alone
from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.validation import parallel_cloze_sets
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.perplexity import Interrupted, evaluate_perplexity
from xlmtrain.evaluate.retrieval import retrieve
from xlmtrain.evaluate.validator import CrossLingualEvaluation, Validator
from xlmtrain.evaluate.word_translation import translate_words
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.pretrained import PretrainedModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.text.vocab import EOS, MASK, SPECIALS

LETTERS = "abcdefghijklmnopqrst"
ENTRIES = [(LETTERS[i], "uvwxyzABCDEFGHIJKLMN"[i]) for i in range(WORDS)]


class Reader(LanguageModel):
    """Knows that an English word is the German one 20 on, and reads it off the other side; else it says the first
    word of its language."""

    def logits_in_parts(self, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        logits = torch.zeros(len(batch.targets), self.encoder.token_embeddings.num_embeddings)
        length = batch.tokens.shape[1]
        for target, place in enumerate(batch.target_index.tolist()):
            row, column = divmod(place, length)
            tokens, languages = batch.tokens[row].tolist(), batch.languages[row].tolist()
            language, position = languages[column], int(batch.positions[row, column])
            seen = [
                tokens[other]
                for other in range(length)
                if languages[other] != language and batch.positions[row, other] == position and tokens[other] != 0
            ]
            there = [token for token in seen if token >= len(SPECIALS)]
            shift = WORDS if language == 1 else -WORDS
            logits[target, there[0] + shift if there else len(SPECIALS) + WORDS * language] = 5.0
        yield logits, batch.targets


def config_on(data: Path, changes: dict[str, Any] | None = None) -> Config:
    return tiny_config("run", data, {"evaluate.max_pairs": 100, **(changes or {})})


def test_a_model_that_reads_the_translation_is_right_with_it_alone(tiny_dataset: Path) -> None:
    config, dataset = config_on(tiny_dataset), Dataset(tiny_dataset)
    model = Reader(config.model, len(dataset.vocab), 2)
    figures = evaluate_perplexity(model, parallel_cloze_sets(config, dataset), Precision.fp32, ALONE)
    sure = math.exp(5) / (math.exp(5) + len(dataset.vocab) - 1)
    for name in ("de-en_cloze_parallel", "en-de_cloze_parallel", "cloze_parallel"):
        assert figures[f"valid/{name}_acc"] == 100
        assert figures[f"valid/{name}_ppl"] == pytest.approx(1 / sure)
    for name in ("de-en_cloze_mono", "en-de_cloze_mono", "cloze_mono"):
        assert 0 <= figures[f"valid/{name}_acc"] < 25
        assert figures[f"valid/{name}_ppl"] > 20


@pytest.mark.parametrize("parallel", [False, True])
def test_figures_are_those_of_one_sentence_after_the_other(tiny_dataset: Path, parallel: bool) -> None:
    """The rows are built from the text again, without batches and padding; only the choice of words is taken over."""
    config, dataset = config_on(tiny_dataset), Dataset(tiny_dataset)
    torch.manual_seed(0)
    model = LanguageModel(config.model, len(dataset.vocab), 2).eval()
    sets = {one.name: one for one in parallel_cloze_sets(config, dataset)}
    figures = evaluate_perplexity(model, list(sets.values()), Precision.fp32, ALONE)
    pairs = [[side.sentence(i).tolist() for side in dataset.pair("valid", "de-en")] for i in range(25)]
    for language, name in enumerate(("de-en", "en-de")):
        losses, hits = [], []
        for batch in sets[f"valid/{name}_cloze_mono"].batches():
            for row, tokens in enumerate(batch.tokens.tolist()):
                at = [place % len(tokens) for place in batch.target_index.tolist() if place // len(tokens) == row]
                truth = batch.targets[[p // len(tokens) == row for p in batch.target_index.tolist()]].tolist()
                masked = list(tokens)
                for place, token in zip(at, truth):
                    masked[place] = token
                (pair,) = {tuple(map(tuple, p)) for p in pairs if p[language] == masked[1 : 1 + len(p[language])]}
                mine = [EOS, *(MASK if p + 1 in at else t for p, t in enumerate(pair[language]))]
                other = [EOS, *pair[1 - language]] if parallel else []
                both = [mine, other] if language == 0 else [other, mine]
                start = len(other) if language == 1 else 0
                ids = torch.tensor([both[0] + both[1]])
                positions = torch.tensor([[*range(len(both[0])), *range(len(both[1]))]])
                languages = torch.tensor([[0] * len(both[0]) + [1] * len(both[1])])
                with torch.no_grad():
                    states = model.encoder(ids, positions, languages)[0, [start + place for place in at]]
                    logits = model.head(states, model.encoder.token_embeddings.weight).double()
                losses += (-logits.log_softmax(dim=1)[range(len(at)), truth]).tolist()
                hits += [int(guess) == token for guess, token in zip(logits.argmax(dim=1), truth)]
        key = f"valid/{name}_{'cloze_parallel' if parallel else 'cloze_mono'}"
        assert figures[f"{key}_ppl"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
        assert figures[f"{key}_acc"] == pytest.approx(100 * sum(hits) / len(hits))


def crosslingual_on(distributed: Distributed, data: Path, lexicon: Path, aligned: bool) -> dict[str, float]:
    config, saved = config_on(data, {"evaluate.bilingual_lexicon": str(lexicon)}), toy_model(data, aligned)
    evaluation = CrossLingualEvaluation(config.evaluate, Dataset(data), saved.config.max_positions, causal=False)
    return evaluation(saved.module(), distributed, NeverStops())


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    (tmp_path / "en-de.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in ENTRIES), encoding="utf-8")
    return tmp_path / "en-de.tsv"


def test_languages_that_have_met_and_that_have_not(tiny_dataset: Path, lexicon: Path) -> None:
    met, apart = (crosslingual_on(ALONE, tiny_dataset, lexicon, aligned) for aligned in (True, False))
    assert met["valid/retrieval_acc"] == met["valid/de-en_retrieval_acc"] == met["valid/en-de_retrieval_acc"] == 100
    assert apart["valid/retrieval_acc"] < 50
    assert met["bli/en-de_cosine_p1"] == 100
    assert met["bli/cosine"] == pytest.approx(1)
    assert apart["bli/en-de_cosine_p1"] < 50
    assert abs(apart["bli/cosine"]) < 0.5


def test_figures_are_the_tasks(tiny_dataset: Path, lexicon: Path) -> None:
    """What xlmtrain evaluate says of the same sentences and words; the layer that finds most counts."""
    figures, saved = crosslingual_on(ALONE, tiny_dataset, lexicon, False), toy_model(tiny_dataset, False)
    dataset, model = Dataset(tiny_dataset), PretrainedModel(saved)
    sides = dict(zip(("de", "en"), dataset.pair("valid", "de-en")))
    usable = [i for i in range(25) if len(sides["de"].sentence(i)) > 1]
    texts = {lang: [dataset.vocab.decode(side.sentence(i)[:-1]) for i in usable] for lang, side in sides.items()}
    vectors = {lang: model.embed_layers(lines, lang)[Pooling.mean] for lang, lines in texts.items()}
    top1 = {}
    for layer in range(3):
        for one in retrieve({lang: v[layer] for lang, v in vectors.items()}, texts):
            name = f"retrieval/{one.direction}_layer{layer}_{one.scoring}"
            assert figures[f"{name}_top1"] == pytest.approx(one.top1)
            assert figures[f"{name}_mrr"] == pytest.approx(one.mrr)
            if one.scoring == "cosine":
                top1[one.direction, layer] = one.top1
    best = max(range(3), key=lambda layer: top1["de-en", layer] + top1["en-de", layer])
    assert figures["valid/en-de_retrieval_acc"] == pytest.approx(top1["en-de", best])
    assert figures["valid/retrieval_acc"] == pytest.approx((top1["de-en", best] + top1["en-de", best]) / 2)
    words = translate_words(saved.weights["encoder.token_embeddings.weight"], saved.vocab, ENTRIES, ("en", "de"))
    assert figures["bli/cosine"] == pytest.approx(words.cosine)
    (csls,) = [p for p in words.precision if (p.direction, p.among, p.scoring) == ("de-en", "vocabulary", "csls")]
    found = [figures[f"bli/de-en_csls_p{most}"] for most in (1, 5, 10)]
    assert found == pytest.approx([csls.p1, csls.p5, csls.p10])


def test_two_processes_find_what_one_finds_with_half_the_work(
    tiny_dataset: Path, lexicon: Path, tmp_path: Path
) -> None:
    alone, whole = shared_out(ALONE, tiny_dataset, lexicon)
    (first, one), (second, other) = run_processes(2, shared_out, tmp_path, tiny_dataset, lexicon)
    assert first == second
    assert first.keys() == alone.keys()
    for name, value in alone.items():
        assert first[name] == pytest.approx(value, rel=1e-5), name
    assert one + other == whole + 1  # each is asked once more at the end
    assert abs(one - other) <= 2


def shared_out(distributed: Distributed, data: Path, lexicon: Path) -> tuple[dict[str, float], int]:
    """The figures, and how often this process was asked whether to stop: before each batch, and at the end."""
    stop = NeverStops()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xlmtrain.evaluate.sentence_embeddings.BATCH_TOKENS", 24)
        config, saved = config_on(data, {"evaluate.bilingual_lexicon": str(lexicon)}), toy_model(data, aligned=False)
        evaluation = CrossLingualEvaluation(config.evaluate, Dataset(data), saved.config.max_positions, causal=False)
        figures = evaluation(saved.module(), distributed, stop)
    return figures, stop.asked


def test_it_stops_when_asked(tiny_dataset: Path) -> None:
    saved = toy_model(tiny_dataset)
    evaluation = CrossLingualEvaluation(config_on(tiny_dataset).evaluate, Dataset(tiny_dataset), 32, causal=False)
    model = saved.module()
    model.train()
    with pytest.raises(Interrupted):
        evaluation(model, ALONE, lambda: True)
    assert model.training


def test_training_watches_them_meet(tiny_dataset: Path, lexicon: Path, tmp_path: Path) -> None:
    changes = {
        "train.steps": 10,
        "evaluate.max_pairs": 10,
        "evaluate.bilingual_lexicon": str(lexicon),
        "evaluate.metric": "valid/cloze_parallel_ppl",
    }
    train_alone(tiny_config(tmp_path / "run", tiny_dataset, changes))
    found = [record for record in records(tmp_path / "run") if "valid/retrieval_acc" in record]
    assert [record["step"] for record in found] == [0, 5, 10]
    names = {
        "valid/de-en_cloze_parallel_acc",
        "valid/cloze_mono_ppl",
        "valid/mlm_ppl",
        "bli/cosine",
        "bli/en-de_csls_p10",
    }
    names |= {f"retrieval/en-de_layer{layer}_margin_mrr" for layer in (0, 1)}
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    for record in found:
        assert record.keys() >= names
        for name in names:
            (point,) = [event.value for event in board.Scalars(name) if event.step == record["step"]]
            assert point == pytest.approx(record[name], rel=1e-5)
    best = json.loads((tmp_path / "run" / "checkpoints" / "best.json").read_text(encoding="utf-8"))
    assert best["value"] == min(record["valid/cloze_parallel_ppl"] for record in found)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"evaluate.max_pairs": 0, "evaluate.metric": "valid/retrieval_acc"},
            ConfigError,
            "is none of valid/de-en",
        ),
        ({"evaluate.bilingual_lexicon": "nowhere.tsv"}, DataError, "bilingual_lexicon: nowhere.tsv is not there"),
    ],
)
def test_refused(tiny_dataset: Path, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Validator(config_on(tiny_dataset, changes), Dataset(tiny_dataset))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"valid/cloze_parallel", "valid/cloze_mono", "valid/retrieval"}),
        (
            {"data.tlm": {}},
            {"valid/cloze_parallel", "valid/cloze_mono", "valid/retrieval"},
        ),  # TLM's gain is seen beside MLM's lack
        (
            {"data.mlm": {}, "data.tlm": {}, "data.clm": {"de": 1.0}, "evaluate.metric": "valid/clm_ppl"},
            {"valid/retrieval"},
        ),
        ({"evaluate.max_pairs": 0}, set()),
    ],
)
def test_what_there_is_to_see(tiny_dataset: Path, changes: dict[str, Any], expected: set[str]) -> None:
    config, dataset = config_on(tiny_dataset, changes), Dataset(tiny_dataset)
    torch.manual_seed(0)
    model = LanguageModel(config.model, len(dataset.vocab), 2)
    figures = Validator(config, dataset)(model, Precision.fp32, ALONE, NeverStops())
    kinds = {name.rpartition("_")[0] for name in figures}
    assert kinds & {"valid/cloze_parallel", "valid/cloze_mono", "valid/retrieval"} == expected
