"""The programs on Hugging Face folders, against transformers and scikit-learn, which know nothing of this program.

One folder was exported, the other is transformers' own: random weights, its own files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.tiny import ALONE, WORDS
from tests.support.toy import LETTERS, toy_config, toy_model
from tests.support.training import NoSignals
from xlmtrain.commands import evaluate as evaluate_tool
from xlmtrain.finetune.finetune import finetune
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.text.vocab import SPECIALS

pytestmark = pytest.mark.slow
transformers = pytest.importorskip("transformers")
neighbors = pytest.importorskip("sklearn.neighbors")
metrics = pytest.importorskip("sklearn.metrics")
linear_model = pytest.importorskip("sklearn.linear_model")

PAIRS = 80


@pytest.fixture(scope="module", params=["exported", "transformers"])
def folder(request: pytest.FixtureRequest, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """English words are the German ones and some noise, so that some translations are found and others are not."""
    path: Path = tmp_path_factory.mktemp(request.param) / "hf"
    path.mkdir()
    noise = 1.25 * torch.randn(WORDS, 32, generator=torch.Generator().manual_seed(1))
    first = len(SPECIALS)
    if request.param == "exported":
        saved = toy_model(tiny_dataset, aligned=False)
        table = saved.weights["encoder.token_embeddings.weight"]
        table[first + WORDS : first + 2 * WORDS] = table[first : first + WORDS] + noise * table.std()
        write_hf_folder(saved, path)
        return path
    torch.manual_seed(5)
    model = transformers.XLMWithLMHeadModel(
        transformers.XLMConfig(
            vocab_size=first + 2 * WORDS,
            emb_dim=32,
            n_layers=2,
            n_heads=4,
            max_position_embeddings=64,
            n_langs=2,
            lang2id={"de": 0, "en": 1},
            id2lang={0: "de", 1: "en"},
            embed_init_std=0.3,
            init_std=0.3,
            bos_index=0,
            eos_index=1,
            pad_index=2,
            unk_index=3,
            mask_index=5,
            pad_token_id=2,
        )
    )
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[first + WORDS :] = table[first : first + WORDS] + noise * table[first:].std()
    model.save_pretrained(path)
    words = [*SPECIALS, *(f"{letter}</w>" for letter in LETTERS)]
    (path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (path / "merges.txt").write_text("#version: 0.2\nß ß</w>\n", encoding="utf-8")
    (path / "tokenizer_config.json").write_text('{"do_lowercase_and_remove_accent": false}', encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return transformers.AutoModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    rng, place = np.random.default_rng(2), tmp_path_factory.mktemp("sentences")
    numbers = [rng.permutation(WORDS)[: rng.integers(3, 9)] for _ in range(PAIRS)]
    files = {"de": place / "dev.de", "en": place / "dev.en"}
    for (lang, path), shift in zip(files.items(), (0, WORDS)):
        lines = [" ".join(LETTERS[n + shift] for n in some) for some in numbers]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert lang in path.name
    return files


def layers(theirs: Any, folder: Path, line: str, lang: str) -> list[torch.Tensor]:
    """The states (T, D) of a sentence after the embeddings and every block."""
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    row = [1, *(ids[f"{letter}</w>"] for letter in line.split()), 1]
    langs = torch.full((1, len(row)), theirs.config.lang2id[lang])
    with torch.no_grad():
        states = theirs(torch.tensor([row]), langs=langs, output_hidden_states=True).hidden_states
    return [state[0] for state in states]


def figures(folder: Path, tmp_path: Path, *arguments: str) -> dict[str, Any]:
    evaluate_tool.main([f"model={folder}", f"output={tmp_path / 'figures.json'}", "device=cpu", *arguments])
    found: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    return found


def test_sentences_found(theirs: Any, folder: Path, sentences: dict[str, Path], tmp_path: Path) -> None:
    found = figures(folder, tmp_path, f"retrieval={sentences['de'].parent}/dev.{{lang}}")["retrieval"]["found"]
    states = {
        lang: [layers(theirs, folder, line, lang) for line in path.read_text(encoding="utf-8").splitlines()]
        for lang, path in sentences.items()
    }
    pools = {"mean": lambda state: state.mean(dim=0).numpy(), "first": lambda state: state[0].numpy()}
    checked = []
    for row in found:
        if row["scoring"] != "cosine" or (row["pooling"], row["layer"]) == ("first", 0):  # alike in all sentences
            continue
        vectors = {
            lang: np.stack([pools[row["pooling"]](state[row["layer"]]) for state in some])
            for lang, some in states.items()
        }
        source, target = row["direction"].split("-")
        nearest = neighbors.NearestNeighbors(n_neighbors=PAIRS, metric="cosine").fit(vectors[target])
        order = nearest.kneighbors(vectors[source])[1]
        ranks = 1 + np.argwhere(order == np.arange(PAIRS)[:, None])[:, 1]
        assert row["top1"] == pytest.approx(100 * (ranks == 1).mean(), abs=1.3)  # one sentence at a near tie
        assert row["mrr"] == pytest.approx((1 / ranks).mean(), abs=2e-3)
        checked.append(row["top1"])
    assert len(checked) == 2 * 5
    assert max(checked) > 5
    assert min(checked) < 90


def test_words_found(theirs: Any, folder: Path, tmp_path: Path) -> None:
    entries = [(LETTERS[i], LETTERS[i + WORDS]) for i in range(WORDS)]
    (tmp_path / "d.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in entries), encoding="utf-8")
    found = figures(folder, tmp_path, f"bilingual_lexicon={tmp_path / 'd.tsv'}")["bilingual_lexicon"]
    table = theirs.get_input_embeddings().weight.detach().numpy()[len(SPECIALS) : len(SPECIALS) + 2 * WORDS]
    vectors = dict(zip(LETTERS, table))
    assert found["known"] == WORDS
    cosines = metrics.pairwise.cosine_similarity(table[:WORDS], table[WORDS:])
    assert found["cosine"] == pytest.approx(np.diag(cosines).mean(), abs=1e-5)
    precision = {(one["direction"], one["among"], one["scoring"]): one for one in found["precision"]}
    for direction, pairs in (("source-target", entries), ("target-source", [(b, a) for a, b in entries])):
        spelled = {target.lower() for _, target in pairs}  # case is no difference between answers
        for among, words in (("vocabulary", LETTERS), ("lexicon", [w for w in LETTERS if w.lower() in spelled])):
            nearest = neighbors.NearestNeighbors(n_neighbors=len(words), metric="cosine")
            nearest.fit(np.stack([vectors[word] for word in words]))
            ranks = []
            for source, target in pairs:
                order = [
                    words[i].lower() for i in nearest.kneighbors(vectors[source][None])[1][0] if words[i] != source
                ]
                ranks.append(order.index(target.lower()))
            row = precision[direction, among, "cosine"]
            assert (row["queries"], row["candidates"]) == (WORDS, len(words))
            expected = [100 * np.mean(np.array(ranks) < most) for most in (1, 5, 10)]
            assert [row["p1"], row["p5"], row["p10"]] == pytest.approx(expected)
            assert row["p1"] < 100


def test_labels_found(theirs: Any, folder: Path, tmp_path: Path) -> None:
    """The head alone learns, so transformers' own states and the head's weights must give the same labels; a logistic
    regression on these states is what such a head comes to."""
    config = toy_config(tmp_path, layers=[], epochs=60, lr=3e-2)
    tests = finetune(config, read_model(folder), ALONE, NoSignals())
    assert tests is not None
    place = tmp_path / "run" / "seed-0"
    head = load_file(next((place / "checkpoints").glob("step-*")) / "model.safetensors")
    labels = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["labels"]
    learned, truth = _states(theirs, folder, Path(config.task.train["en"]), "en")
    regression = linear_model.LogisticRegression(C=1e4, max_iter=5000).fit(learned, truth)
    for lang, path in config.task.test.items():
        states, truth = _states(theirs, folder, Path(path), lang)
        said = states @ head["head.out.weight"].numpy().T + head["head.out.bias"].numpy()
        guesses = [labels[i] for i in said.argmax(axis=1)]
        (score,) = tests[lang]
        assert score.metrics["accuracy"] == pytest.approx(100 * metrics.accuracy_score(truth, guesses))
        assert score.metrics["f1"] == pytest.approx(100 * metrics.f1_score(truth, guesses, average="macro"))
        assert score.confusion == metrics.confusion_matrix(truth, guesses, labels=labels).tolist()
        assert abs(score.metrics["accuracy"] - 100 * regression.score(states, truth)) < 15


def _states(theirs: Any, folder: Path, path: Path, lang: str) -> tuple[np.ndarray, list[str]]:
    """The first state of the last layer of each example (N, D), and the labels."""
    labels, texts = zip(*_examples(path))
    return np.stack([layers(theirs, folder, text, lang)[-1][0].numpy() for text in texts]), list(labels)


def _examples(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        label, text = line.split("\t")
        yield label, text
