"""Sentences found by their vectors: the formulas, what counts as found, and the same from other libraries' numbers."""

from __future__ import annotations

import json
import lzma
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import xlmtrain
from xlmtrain.commands import evaluate as tool
from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import ConfigError, DataError, NumericalError
from xlmtrain.evaluate import knn
from xlmtrain.evaluate.parallel_text import aligned_sentences
from xlmtrain.evaluate.retrieval import Retrieval, retrieval_table, retrieve
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.run import write_run
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.bpe import Code
from xlmtrain.text.vocab import EOS, Vocab

LETTERS = "abcdefghijklmnopqrst"
Figures = dict[tuple[str, str], tuple[float, float]]


def by_kind(found: list[Retrieval]) -> Figures:
    return {(one.direction, one.scoring): (one.top1, one.mrr) for one in found}


def different(count: int, *languages: str) -> dict[str, list[str]]:
    return {language: [f"{language} {i}" for i in range(count)] for language in languages}


def random_vectors(count: int, dim: int = 8) -> dict[str, np.ndarray]:
    """Translations that are like each other, but not too much."""
    rng = np.random.default_rng(5)
    english = rng.normal(size=(count, dim)) + 0.5
    return {
        "en": english.astype(np.float32),
        "de": (english + rng.normal(size=(count, dim)) + rng.normal(size=dim)).astype(np.float32),
    }


def by_the_formulas(vectors: dict[str, np.ndarray]) -> Figures:
    """One sentence at a time, in double precision; no two sentences are the same."""

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))

    figures: Figures = {}
    for source, target in (("en", "de"), ("de", "en")):
        xs, ys = (list(vectors[language].astype(np.float64)) for language in (source, target))
        near_x = [sum(sorted((cosine(x, y) for y in ys), reverse=True)[:4]) / 4 for x in xs]
        near_y = [sum(sorted((cosine(x, y) for x in xs), reverse=True)[:4]) / 4 for y in ys]
        for scoring in ("cosine", "margin"):
            places = []
            for i, x in enumerate(xs):
                scores = [cosine(x, y) for y in ys]
                if scoring == "margin":
                    scores = [score / (near_x[i] / 2 + near_y[j] / 2) for j, score in enumerate(scores)]
                places.append(1 + sum(score > scores[i] for score in scores))
            top1 = 100 * sum(place == 1 for place in places) / len(places)
            figures[f"{source}-{target}", scoring] = (top1, sum(1 / place for place in places) / len(places))
    return figures


@pytest.mark.parametrize("entries", [1 << 24, 100, 1])
def test_the_formulas(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "BLOCK_ENTRIES", entries)
    vectors = random_vectors(37)
    found, expected = by_kind(retrieve(vectors, different(37, "en", "de"))), by_the_formulas(vectors)
    assert found.keys() == expected.keys()
    for kind, figures in expected.items():
        assert found[kind] == pytest.approx(figures, rel=1e-6), kind
    assert len(set(expected.values())) == 4  # neither scorings nor directions can be mixed up
    assert all(0 < top1 < 100 for top1, _ in expected.values())


def test_scikit_learn_says_the_same() -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise", reason="scikit-learn is not installed")
    neighbors = pytest.importorskip("sklearn.neighbors")
    vectors = random_vectors(300, 16)
    found = by_kind(retrieve(vectors, different(300, "en", "de")))
    for source, target in (("en", "de"), ("de", "en")):
        x, y = vectors[source], vectors[target]
        cosines = pairwise.cosine_similarity(x, y)
        near = [
            1 - neighbors.NearestNeighbors(n_neighbors=4, metric="cosine").fit(b).kneighbors(a)[0].mean(axis=1)
            for a, b in ((x, y), (y, x))
        ]
        margins = cosines / ((near[0][:, None] + near[1]) / 2)
        for scoring, scores in (("cosine", cosines), ("margin", margins)):
            place = np.argsort(-scores, axis=1).argsort(axis=1).diagonal() + 1
            expected = (100 * (place == 1).mean(), (1 / place).mean())
            assert found[f"{source}-{target}", scoring] == pytest.approx(expected, rel=1e-6)


def test_more_languages_than_two() -> None:
    vectors = {**random_vectors(9), "nl": random_vectors(9)["en"]}
    found = by_kind(retrieve(vectors, different(9, "en", "de", "nl")))
    assert len(found) == 12
    assert found["en-nl", "cosine"] == found["nl-en", "margin"] == (100.0, 1.0)
    assert found["en-de", "cosine"] == found["nl-de", "cosine"]
    assert found["nl-de", "cosine"] == pytest.approx(by_the_formulas(vectors)["en-de", "cosine"])


def test_a_model_that_finds_everything_alike_has_found_nothing() -> None:
    for vector in (1.0, 0.0):
        same = np.full((20, 3), vector, dtype=np.float32)
        for _, figures in by_kind(retrieve({"en": same, "de": same}, different(20, "en", "de"))).items():
            assert figures == pytest.approx((0, 1 / 20))


def test_a_repeated_sentence_has_several_right_answers() -> None:
    """English 0 and 1 are the same, and German 2 and 3; the vectors always prefer the other one of the two."""
    unit = np.eye(4, dtype=np.float32)
    swapped = {"en": unit, "de": unit[[1, 0, 3, 2]]}
    sentences = {"en": ["yes", "yes", "yeah", "well"], "de": ["ja", "doch", "na", "na"]}
    assert set(by_kind(retrieve(swapped, sentences)).values()) == {(100.0, 1.0)}
    apart = by_kind(retrieve(swapped, different(4, "en", "de")))
    assert apart["en-de", "cosine"] == (0.0, pytest.approx(1 / 4))  # it ties with the wrong ones
    # only what is the same in one of the languages is right
    crossed = {"en": unit, "de": unit[[2, 3, 0, 1]]}
    assert by_kind(retrieve(crossed, sentences))["en-de", "cosine"][0] == 0.0


def test_the_margin_takes_hubs_down() -> None:
    """The first English sentence is near to all German ones, and so comes first by cosine."""
    english = np.eye(6, dtype=np.float32) + 0.05
    german = 0.6 * np.eye(6, dtype=np.float32)
    german[:, 0] += 1.0
    found = by_kind(retrieve({"en": english, "de": german}, different(6, "en", "de")))
    assert found["de-en", "cosine"] == pytest.approx((100 / 6, (1 + 5 / 2) / 6))
    assert found["de-en", "margin"] == (100.0, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_vectors_that_are_no_numbers_find_nothing(bad: float) -> None:
    vectors = random_vectors(5)
    vectors["de"][3, 1] = bad
    with pytest.raises(NumericalError, match="a vector of the model is not finite"):
        retrieve(vectors, different(5, "en", "de"))


def write(path: Path, *lines: bytes) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def test_sentences_of_aligned_files(tmp_path: Path) -> None:
    text = "Guten Tag!\r\n\n Ja. \nÖl\n"
    (tmp_path / "dev.de.xz").write_bytes(lzma.compress(text.encode()))
    (tmp_path / "dev.en.xz").write_bytes(lzma.compress(b"Hello!\nAnd?\nYes.\n  \n"))
    found = aligned_sentences(f"{tmp_path}/dev.{{lang}}.xz", ["fr", "de", "en"])
    assert found == {"de": ["Guten Tag!", "Ja."], "en": ["Hello!", "Yes."]}


def test_a_byte_order_mark_and_compression_without_a_suffix(tmp_path: Path) -> None:
    (tmp_path / "de").write_bytes(b"\xef\xbb\xbfGuten Tag!\r\nJa.\r\n")
    (tmp_path / "en").write_bytes(lzma.compress(b"\xef\xbb\xbfHello!\nYes.\n"))
    found = aligned_sentences(f"{tmp_path}/{{lang}}", ["de", "en"])
    assert found == {"de": ["Guten Tag!", "Ja."], "en": ["Hello!", "Yes."]}


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    template = f"{tmp_path}/{{lang}}"
    with pytest.raises(ConfigError, match=r"retrieval=dev.de: has no \{lang\} in it"):
        aligned_sentences("dev.de", ["de", "en"])
    with pytest.raises(ConfigError, match=r"two of the model's languages are needed, there is none \(.* knows de, en"):
        aligned_sentences(template, ["de", "en"])
    write(tmp_path / "de", b"eins", b"zwei")
    with pytest.raises(ConfigError, match=f"there is {tmp_path}/de "):
        aligned_sentences(template, ["de", "en"])
    write(tmp_path / "en", b"one", b"two", b"three")
    with pytest.raises(DataError, match=r"de has 2 lines, .*en has more"):
        aligned_sentences(template, ["de", "en"])
    write(tmp_path / "en", b"one", b"tw\xff")
    with pytest.raises(DataError, match="en:2: not UTF-8"):
        aligned_sentences(template, ["de", "en"])
    write(tmp_path / "en", b"", b" ")
    with pytest.raises(DataError, match=r"no sentences in .*de, .*en"):
        aligned_sentences(template, ["de", "en"])


@pytest.fixture(scope="module")
def saved() -> PretrainedBundle:
    """Random weights; a word is one letter."""
    torch.manual_seed(2)
    vocab = Vocab((letter, 99 - i) for i, letter in enumerate(LETTERS + LETTERS.upper()))
    config = ModelConfig(dim=16, layers=2, heads=2, max_positions=24, dropout=0.0)
    weights = {name: 2 * weight.detach() for name, weight in LanguageModel(config, len(vocab), 2).state_dict().items()}
    return PretrainedBundle(
        config, ["de", "en"], vocab, weights, TextConfig(), [Code("ß", "ß</w>", 1)], Provenance("made here")
    )


@pytest.fixture
def run(saved: PretrainedBundle, tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    write_run(saved, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> str:
    """English is German in capitals, a word less."""
    directory, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(3)
    german = [" ".join(rng.choice(list(LETTERS), size=rng.integers(2, 12))) for _ in range(40)]
    (directory / "dev.de").write_text("\n".join(german) + "\n", encoding="utf-8")
    (directory / "dev.en").write_text("\n".join(line[2:].upper() for line in german) + "\n", encoding="utf-8")
    return f"{directory}/dev.{{lang}}"


def test_transformers_hidden_states_give_the_same(saved: PretrainedBundle, files: str, tmp_path: Path) -> None:
    """Every layer of transformers' own model, a sentence at a time, against our model read from the same folder."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    write_hf_folder(saved, tmp_path)
    ours, theirs = xlmtrain.load(tmp_path, device="cpu"), transformers.XLMModel.from_pretrained(tmp_path).eval()
    sentences = aligned_sentences(files, ["de", "en"])
    vectors = {lang: ours.embed_layers(lines, lang) for lang, lines in sentences.items()}
    expected: dict[str, dict[Pooling, Any]] = {}
    for number, lang in enumerate(("de", "en")):
        means, firsts = [], []
        for line in sentences[lang]:
            ids = torch.tensor([[EOS, *map(saved.vocab.id, line.split()), EOS]])
            with torch.no_grad():
                states = theirs(ids, langs=torch.full_like(ids, number), output_hidden_states=True).hidden_states
            means.append([state[0].mean(dim=0).numpy() for state in states])
            firsts.append([state[0, 0].numpy() for state in states])
        expected[lang] = {pooling: np.stack(of_all).swapaxes(0, 1) for pooling, of_all in zip(Pooling, (means, firsts))}
    kinds = set()
    for pooling in Pooling:
        assert vectors["de"][pooling].shape == (3, 40, 16)
        for layer in range(3):
            found, other = (
                retrieve({lang: of[lang][pooling][layer] for lang in sentences}, sentences)
                for of in (vectors, expected)
            )
            for lang in sentences:
                np.testing.assert_allclose(vectors[lang][pooling][layer], expected[lang][pooling][layer], atol=1e-5)
            assert by_kind(found) == by_kind(other)
            kinds.add(tuple(by_kind(found).values()))
    assert len(kinds) == 6  # each layer and pooling gives figures of its own


def test_the_tool(run: Path, files: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main([f"model={run}", f"retrieval={files}", f"output={tmp_path / 'f.json'}", "device=cpu"])
    figures = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert figures.keys() == {"model", "step", "retrieval"}
    assert figures["retrieval"]["sentences"] == 40
    sentences, model = aligned_sentences(files, ["de", "en"]), xlmtrain.load(run, device="cpu")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{files}: 40 sentences; top-1 (MRR)"
    rows = figures["retrieval"]["found"]
    assert len(rows) == 24
    for pooling in Pooling:
        for layer in range(3):
            vectors = {lang: model.embed(lines, lang, pooling, layer) for lang, lines in sentences.items()}
            found = retrieve(vectors, sentences)
            written = [row for row in rows if (row["pooling"], row["layer"]) == (pooling.value, layer)]
            assert written == [{"pooling": pooling.value, "layer": layer, **vars(one)} for one in found]
            row = retrieval_table({(pooling.value, layer): found}).splitlines()[-1]
            assert row.split() in [line.split() for line in printed]
    with pytest.raises(DataError, match=r"f.json: exists already"):
        tool.main([f"model={run}", f"retrieval={files}", f"output={tmp_path / 'f.json'}", "device=cpu"])


def test_the_tool_refuses(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, output = f"model={run}", f"output={tmp_path / 'f.json'}"
    with pytest.raises(ConfigError, match="data: data, retrieval, bilingual_lexicon or zero_shot_probe is needed"):
        tool.main([model, output])
    with pytest.raises(ConfigError, match=r"retrieval=dev\.de: has no"):
        tool.main([model, output, "retrieval=dev.de"])
    long = tmp_path / "long.{lang}"
    for language in ("de", "en"):
        Path(str(long).replace("{lang}", language)).write_text("a\n" + "b " * 30 + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="32 tokens are more than the model's 24 positions: 'b b"):
        tool.main([model, output, f"retrieval={long}", "device=cpu"])
    assert capsys.readouterr().out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"run", "long.de", "long.en"}
