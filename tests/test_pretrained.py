"""A trained run in use: masks filled, words recovered, reports, batches to look at."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import shutil
import string
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch

import xlmtrain
from tests.support import programs
from tests.support.pages import check_page
from tests.support.tiny import CPU, WORDS, forkserver, tiny_config
from tests.support.training import train_alone
from tests.support.translation import bundle_of, small_model
from xlmtrain.commands import report as report_tool
from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.train import Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.inspect import describe_batch
from xlmtrain.data.loader import Loader
from xlmtrain.errors import CheckpointError, ConfigError, DataError
from xlmtrain.pretrained import PretrainedModel, load
from xlmtrain.report.model_views import Views
from xlmtrain.report.report import summary
from xlmtrain.report.run_data import RunData
from xlmtrain.runtime.precision import choose_precision
from xlmtrain.text.vocab import MASK


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for long enough to know that English is German 20 letters on."""
    path = tmp_path_factory.mktemp("trained") / "run"
    changes = {"train.steps": 150, "evaluate.every": 50, "model.dim": 32, "model.dropout": 0.0}
    train_alone(tiny_config(path, tiny_dataset, {**changes, "data.tlm": {"de-en": 4.0}, "optim.warmup_steps": 20}))
    return path


@pytest.fixture(scope="module")
def model(run: Path) -> PretrainedModel:
    return load(run)


def test_guesses_are_the_models_probabilities(model: PretrainedModel) -> None:
    guesses = model.fill_mask("a <mask> k <mask> o", "de", k=1000)
    assert len(guesses) == 2
    for place in guesses:
        assert len(place) == 54
        values = [guess.probability for guess in place]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1.0, abs=1e-5)
    ids = [1, *model.text.ids("a <mask> k <mask> o", "de"), 1]
    assert ids == [1, 14, MASK, 24, MASK, 28, 1]
    tokens = torch.tensor([ids])
    hidden = model.model.encoder(tokens, torch.arange(7)[None], torch.zeros_like(tokens))
    logits = model.model.head(hidden[0, [2, 4]], model.model.encoder.token_embeddings.weight)
    best = logits.softmax(dim=1).max(dim=1)
    assert [place[0].probability for place in guesses] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert [place[0].word for place in guesses] == [model.text.vocab.token(i) for i in best.indices.tolist()]
    assert len(model.fill_mask("a <mask>", "de", k=3)[0]) == 3


def test_language_and_translation_are_heeded(model: PretrainedModel) -> None:
    """A letter is found better beside its translation than beside that of other letters, and than by chance."""
    letters = model.text.vocab.tokens[14:]
    right = wrong = 0.0
    for first in range(WORDS):
        words = [first, (3 * first + 1) % WORDS, (9 * first + 4) % WORDS]
        masked = f"{letters[words[0]]} <mask> {letters[words[2]]}"
        for shift in (0, 7):
            english = " ".join(letters[WORDS + (word + shift) % WORDS] for word in words)
            guesses = model.fill_mask(masked, "de", k=54, translation=(english, "en"))[0]
            probability = next(guess.probability for guess in guesses if guess.word == letters[words[1]])
            right, wrong = (right, wrong + probability) if shift else (right + probability, wrong)
    assert right / WORDS > 3 / 54
    assert right > 1.1 * wrong
    assert model.fill_mask("a <mask>", "de") != model.fill_mask("a <mask>", "en")


def test_what_cannot_be_asked(model: PretrainedModel, tmp_path: Path, tiny_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="the model knows de, en"):
        model.fill_mask("a <mask>", "fr")
    with pytest.raises(DataError, match="no <mask> in 'a b'"):
        model.fill_mask("a b", "de")
    with pytest.raises(DataError, match=r"write it <mask>, not \[MASK\]"):
        model.fill_mask("a [MASK]", "de")
    with pytest.raises(ConfigError, match="a sentence is needed, as one string, not"):
        model.fill_mask(["a <mask>"], "de")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a sentence is needed, as one string, not None"):
        model.embed([None], "de")  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"not decoded, in 'Gr\\udcc3 <mask>'; is the text, or the locale, UTF-8"):
        model.fill_mask("Gr\udcc3 <mask>", "de")
    with pytest.raises(ConfigError, match="translation: a sentence and its language are needed, not 'b'"):
        model.fill_mask("a <mask>", "de", translation="b")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="pooling=max: there are mean, first"):
        model.embed(["a"], "de", pooling="max")
    with pytest.raises(DataError, match="42 tokens are more than the model's 32 positions"):
        model.fill_mask("<mask>" + " a" * 39, "de")
    with pytest.raises(ConfigError, match=r"layer=2: the model has 0 .* to 1"):
        model.embed(["a"], "de", layer=2)
    with pytest.raises(ConfigError, match="a list of sentences"):
        model.score("a b", "de")
    with pytest.raises(CheckpointError, match="no model in it; expected a run directory"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="no such file or directory"):
        load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="checkpoint=frist: there are best, last"):
        load(tmp_path, checkpoint="frist")
    (tmp_path / "config.json").write_text('{"seeds": [0]}')
    with pytest.raises(CheckpointError, match="no seed has ended its training"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="has its own codes"):
        load(tiny_dataset, codes=tiny_dataset / "codes")


def test_every_question_needs_a_known_language(model: PretrainedModel) -> None:
    questions = [
        model.tokenize,
        model.fill_mask,
        lambda s, lang: model.embed([s], lang),
        lambda s, lang: model.score([s], lang),
    ]
    for ask in questions:
        with pytest.raises(ConfigError, match="lang=DE: the model knows de, en"):
            ask("a <mask> b", "DE")
    with pytest.raises(ConfigError, match="lang=fr"):
        model.fill_mask("a <mask> b", "de", translation=("u v", "fr"))


def states(model: PretrainedModel, sentence: str, lang: str, layers: int | None = None) -> torch.Tensor:
    """The hidden states (T, D) of one sentence alone, without any batching."""
    tokens = torch.tensor([[1, *model.text.ids(sentence, lang), 1]])
    languages = torch.full_like(tokens, ["de", "en"].index(lang))
    with torch.no_grad():
        every = list(model.model.encoder.hidden_states(tokens, torch.arange(tokens.shape[1])[None], languages))
    return every[-1 if layers is None else layers][0]


def test_embeddings_are_those_of_each_sentence_alone(model: PretrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = ["a b c d e f g", "k", "", "c d", "h i j k l m n o p q r s t"] * 3
    monkeypatch.setattr("xlmtrain.evaluate.sentence_embeddings.BATCH_TOKENS", 24)  # several batches, of unequal lengths
    for pooling, layer in (("mean", None), ("first", None), ("mean", 0), ("first", 1)):
        vectors = model.embed(sentences, "de", pooling, layer)
        assert vectors.shape == (15, 32)
        assert vectors.dtype == "float32"
        for sentence, vector in zip(sentences, vectors):
            alone = states(model, sentence, "de", layer)
            expected = alone[0] if pooling == "first" else alone.mean(dim=0)
            assert torch.allclose(torch.from_numpy(vector), expected, atol=1e-6)
    every = model.embed_layers(sentences, "de")
    for layer in (0, 1):
        for pooling in Pooling:
            assert (every[pooling][layer] == model.embed(sentences, "de", pooling, layer)).all()
    assert not torch.equal(states(model, "a b", "de"), states(model, "a b", "en"))
    assert model.embed([], "de").shape == (0, 32)


def test_score_is_the_probability_of_each_word_given_the_others(
    model: PretrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = ["a d k", "", "t", "a b c d e f g h i j"]
    monkeypatch.setattr("xlmtrain.evaluate.sentence_embeddings.BATCH_TOKENS", 16)
    scores = model.score(sentences, "de")
    for sentence, score in zip(sentences, scores):
        words = sentence.split()
        total = 0.0
        for place, word in enumerate(words):
            masked = " ".join([*words[:place], "<mask>", *words[place + 1 :]])
            guesses = model.fill_mask(masked, "de", k=54)[0]
            total += math.log(next(guess.probability for guess in guesses if guess.word == word))
        assert score.tokens == len(words)
        assert score.log_probability == pytest.approx(total, abs=1e-4)
    assert scores[0].perplexity == pytest.approx(math.exp(-scores[0].log_probability / 3))
    assert math.isnan(scores[1].perplexity)
    # what the language does is likelier than what it does not: after a comes e, after e comes o
    assert model.score(["a b e n"], "de")[0].perplexity < 1.0 + model.score(["a a a a"], "de")[0].perplexity


def test_half_precision_rounds_the_same_answers(run: Path, model: PretrainedModel) -> None:
    """Products of bf16 have 8 bits: the answers differ, by little. Vectors and scores are fp32."""
    half, sentences = load(run, precision="bf16", device="cpu"), ["a b c d e f g", "k", "c d"]
    for vectors, exact in (
        (half.embed(sentences, "de"), model.embed(sentences, "de")),
        (half.embed_layers(sentences, "de")[Pooling.first], model.embed_layers(sentences, "de")[Pooling.first]),
    ):
        assert vectors.dtype == "float32"
        assert 1e-5 < abs(vectors - exact).max() < 0.05 * abs(exact).max()
    (guesses,), (exact_guesses,) = (one.fill_mask("a <mask> k", "de", k=54) for one in (half, model))
    assert sum(guess.probability for guess in guesses) == pytest.approx(1.0, abs=1e-5)
    assert guesses[0].word == exact_guesses[0].word
    assert guesses[0].probability == pytest.approx(exact_guesses[0].probability, rel=0.1)
    (score,), (exact_score,) = (one.score(["a d k"], "de") for one in (half, model))
    assert score.log_probability != exact_score.log_probability
    assert score.log_probability == pytest.approx(exact_score.log_probability, rel=0.05)
    assert load(run, precision="auto", device="cpu").precision is choose_precision(Precision.auto, CPU)


def test_a_checkpoint_is_loaded_like_its_run(run: Path) -> None:
    paths = list((run / "checkpoints").glob("step-*"))
    assert {load(path).step for path in paths} == {int(path.name.removeprefix("step-")) for path in paths}
    assert len(paths) > 1
    assert xlmtrain.load(run).step == load(run).step


def test_best_and_last(run: Path) -> None:
    assert load(run, "last").step == 150
    best = json.loads((run / "checkpoints" / "best.json").read_text(encoding="utf-8"))["step"]
    assert load(run, "best").step == load(run).step == best


def test_report_has_every_evaluation(run: Path) -> None:
    text = summary(RunData(run), Views())
    assert text.startswith("# run\n")
    assert "150 steps" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("| ") and line.split()[1].isdigit()] == [
        "0",
        "50",
        "100",
        "150",
    ]


def test_batches_as_text(tiny_dataset: Path) -> None:
    dataset = Dataset(tiny_dataset)
    loader = Loader(tiny_config("run", tiny_dataset), dataset)
    batch = next(b for b in loader.make(0, loader.sampler.initial_state()).batches if b.objective == "tlm")
    shown = list(describe_batch(batch, dataset.vocab, dataset.languages, 2))
    rows, length = batch.tokens.shape
    assert shown[0].startswith(f"== {batch.name}: {rows} rows x {length} tokens, {len(batch.targets)} to predict, ")
    assert len(shown) == 1 + 2 * min(rows, 2)
    first = shown[2].split(" | ")
    assert len(first) == (length if batch.lengths is None else int(batch.lengths[0]))
    assert first[0].strip() == "</s> de:0"
    assert sum(" en:0" in part for part in first) == 1  # where the second sentence begins
    assert sum(part.count("(") for part in first) == int((batch.target_index < length).sum())


def test_loading_initializes_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, normal_ imports TorchDynamo, which takes longer than all the rest."""
    bundle = bundle_of(small_model())
    monkeypatch.setattr(torch.Tensor, "normal_", None)
    assert PretrainedModel(bundle).embed(["a"], "de").shape == (1, 64)


def test_a_model_without_masked_words_fills_no_masks() -> None:
    bundle = bundle_of(small_model())
    bundle.provenance.settings = {"data": {"mlm": {}, "mt": {"de-en": 1.0}, "dae": {"de": 1.0}}}
    translator = PretrainedModel(bundle)
    for ask in (lambda: translator.fill_mask("a <mask>", "de"), lambda: translator.score(["a"], "de")):
        with pytest.raises(ConfigError, match=r"trained by mt and dae alone, .* use translate or embed, or train with"):
            ask()
    assert translator.embed(["a"], "de").shape == (1, 64)
    bundle.provenance.settings["data"]["tlm"] = {"de-en": 1.0}
    assert PretrainedModel(bundle).fill_mask("a <mask>", "de", k=1)


def test_wrong_arguments_are_refused(model: PretrainedModel, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in (0, -1, "5"):
        with pytest.raises(ConfigError, match=rf"^k={k!r}: give a number from 1 up"):
            model.fill_mask("a <mask>", "de", k)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^layer='1': the model has 0"):
        model.embed(["a"], "de", layer="1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^device=gpu: not a device of torch"):
        load(run, device="gpu")
    with pytest.raises(ConfigError, match=r"^precision=half: there are .*bf16"):
        load(run, precision="half")
    with pytest.raises(ConfigError, match=r"^path=None: give the path of a model"):
        load(None)  # type: ignore[arg-type]
    monkeypatch.setenv("HOME", str(run.parent))
    assert load(f"~/{run.name}").languages == model.languages


def _requests(count: int) -> list[tuple[str, str]]:
    """Sentences of several lengths and both languages; some have words that only one request has."""
    draw = random.Random(3)
    letters = {"de": string.ascii_letters[:WORDS], "en": string.ascii_letters[WORDS : 2 * WORDS]}
    made = []
    for number in range(count):
        lang = draw.choice(["de", "en"])
        words = [draw.choice(letters[lang]) for _ in range(draw.randint(1, 9))] + [f"x{number}."] * draw.randint(0, 1)
        made.append((lang, f"{' '.join(words)} <mask>"))
    return made


def _answer(model: PretrainedModel, request: tuple[str, str]) -> tuple[list[str], list[str], list[float], float]:
    lang, sentence = request
    guesses = model.fill_mask(sentence, lang)[0]
    vector = model.embed([sentence], lang)[0]
    return model.tokenize(sentence, lang), [g.word for g in guesses], [g.probability for g in guesses], float(vector[0])


def test_threads_and_asyncio_get_the_answers_of_one_thread(run: Path, model: PretrainedModel) -> None:
    requests = _requests(400)
    expected = [_answer(model, request) for request in requests]
    shared, interval = load(run), sys.getswitchinterval()

    async def serve(pool: ThreadPoolExecutor) -> list[object]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, _answer, shared, request) for request in requests))

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(partial(_answer, shared), requests)) == expected
            assert asyncio.run(serve(pool)) == expected
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("start", ["forkserver", "fork"])
def test_a_model_is_sent_to_other_processes(model: PretrainedModel, start: str) -> None:
    """Pickled for the first; inherited by the second, while a thread of the parent has the tokenizer."""
    requests = _requests(20)
    expected = [_answer(model, request) for request in requests]
    if start == "forkserver":
        with ProcessPoolExecutor(2, mp_context=forkserver()) as pool:
            found = list(pool.map(partial(_answer, model), requests, timeout=120))
        for (*words, guesses, score), (*expected_words, expected_guesses, expected_score) in zip(found, expected):
            assert words == expected_words
            # Sums of another process may have another order: threads are its own.
            assert guesses == pytest.approx(expected_guesses, rel=1e-5)
            assert score == pytest.approx(expected_score, rel=1e-5)
        assert len(found) == len(expected)
        return
    torch.set_num_threads(2)
    with model.text._tokenizer("de"):
        child = os.fork()
        if not child:  # with two threads it could wait for one of the parent's
            os._exit(torch.get_num_threads() != 1 or [_answer(model, request) for request in requests] != expected)
    torch.set_num_threads(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_report_is_written_whoever_reads_what_is_printed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a pipe whose reader has left, as ``head`` does, and into one in ASCII."""
    copied = shutil.copytree(run, tmp_path / "größe")
    mine, theirs = os.pipe()
    os.close(mine)
    left = os.fdopen(theirs, "w", 1, "utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", left)
        with pytest.raises(BrokenPipeError):
            report_tool.main([f"run={copied}", "words=1"])
    with suppress(BrokenPipeError):
        left.close()
    check_page((copied / "report.html").read_text(encoding="utf-8"))
    words = (programs.script("report"), f"run={copied}", "words=1")
    program = programs.run(*words, environment={"PYTHONIOENCODING": "ascii:strict"})
    assert program.stderr == ""
    assert "gr\\xf6\\xdfe/report.html" in program.stdout
