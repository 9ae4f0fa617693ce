"""The tasks against scikit-learn and transformers: numbers that come about without any of this program's code."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.toy import toy_model
from xlmtrain.evaluate.retrieval import retrieve
from xlmtrain.evaluate.sentence_embeddings import pca_2d
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.pretrained import load


@pytest.mark.parametrize("shape", [(30, 8), (5, 40)])
def test_the_plane_is_scikit_learns(shape: tuple[int, int]) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    vectors = np.random.default_rng(0).normal(size=shape) * np.linspace(3, 0.1, shape[1]) + 5
    plane, share = pca_2d(vectors)
    pca = decomposition.PCA(2, svd_solver="full").fit(vectors)
    expected = pca.transform(vectors)
    signs = np.sign((plane * expected).sum(axis=0))
    np.testing.assert_allclose(plane, expected * signs, atol=1e-9)
    assert share == pytest.approx(pca.explained_variance_ratio_.sum())


def test_translations_found_are_scikit_learns_nearest_neighbours() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(1)
    english = rng.normal(size=(200, 12)).astype(np.float32)
    german = (english + rng.normal(size=(200, 12)) * 1.3).astype(np.float32)
    sentences = {"de": [f"Satz {i}" for i in range(200)], "en": [f"sentence {i}" for i in range(200)]}
    found = retrieve({"de": german, "en": english}, sentences)
    cosine = {one.direction: one for one in found if one.scoring == "cosine"}
    for direction, queries, answers in (("de-en", german, english), ("en-de", english, german)):
        order = neighbors.NearestNeighbors(n_neighbors=200, metric="cosine").fit(answers).kneighbors(queries)[1]
        ranks = 1 + np.argwhere(order == np.arange(200)[:, None])[:, 1]
        assert 5 < cosine[direction].top1 < 95
        assert cosine[direction].top1 == pytest.approx(100 * (ranks == 1).mean())
        assert cosine[direction].mrr == pytest.approx((1 / ranks).mean())


@pytest.mark.slow
def test_a_hugging_face_model_retrieves_what_transformers_and_scikit_learn_say(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    """From a folder: ids, vectors and neighbours are made by transformers and scikit-learn alone."""
    transformers, neighbors = pytest.importorskip("transformers"), pytest.importorskip("sklearn.neighbors")
    write_hf_folder(toy_model(tiny_dataset, aligned=False), tmp_path / "hf")
    rng, letters = np.random.default_rng(2), string.ascii_letters
    numbers = [rng.integers(20, size=rng.integers(3, 9)) for _ in range(60)]
    sentences = {
        "de": [" ".join(letters[n] for n in some) for some in numbers],
        "en": [" ".join(letters[n + 20] for n in some) for some in numbers],
    }
    ours = load(tmp_path / "hf", device="cpu")
    found = retrieve({lang: ours.embed(lines, lang) for lang, lines in sentences.items()}, sentences)

    theirs = transformers.AutoModel.from_pretrained(tmp_path / "hf").eval()
    vocabulary = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf", trust_remote_code=True).get_vocab()
    vectors = {}
    for lang, number in theirs.config.lang2id.items():
        rows = [[1, *(vocabulary[f"{letter}</w>"] for letter in line.split()), 1] for line in sentences[lang]]
        with torch.no_grad():
            states = [theirs(torch.tensor([row]), langs=torch.full((1, len(row)), number))[0][0] for row in rows]
        vectors[lang] = np.stack([state.mean(dim=0).numpy() for state in states])
    for one in found:
        if one.scoring == "cosine":
            first, second = one.direction.split("-")
            nearest = neighbors.NearestNeighbors(n_neighbors=60, metric="cosine").fit(vectors[second])
            order = nearest.kneighbors(vectors[first])[1]
            ranks = 1 + np.argwhere(order == np.arange(60)[:, None])[:, 1]
            assert one.top1 == pytest.approx(100 * (ranks == 1).mean())
            assert one.mrr == pytest.approx((1 / ranks).mean(), abs=1e-3)
