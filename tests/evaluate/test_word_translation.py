"""Words translated by the embedding table: which count, the formulas, and the same from scikit-learn."""

from __future__ import annotations

import json
import lzma
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from xlmtrain.commands import evaluate as tool
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import DataError, NumericalError
from xlmtrain.evaluate import knn
from xlmtrain.evaluate.word_translation import PrecisionAtK, read_lexicon, translate_words, translation_table
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.interop.run import write_run
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.bpe import Code
from xlmtrain.text.vocab import SPECIALS, Vocab

DIM = 6
COUNT = 40
"""Words of each language: e0, e1 .. and d0, d1 .."""

Shares = tuple[float, float, float]
Kind = tuple[str, str, str]


def numbered() -> tuple[Vocab, list[tuple[str, str]], np.ndarray]:
    """A vocabulary, a dictionary in which some words have two translations, and vectors by which many are found."""
    rng = np.random.default_rng(4)
    names = [f"{side}{i}" for side in "ed" for i in range(COUNT)]
    vocab = Vocab((word, 999 - i) for i, word in enumerate([*names, "pie@@", "ces"]))
    entries = [(f"e{i}", f"d{i}") for i in range(COUNT - 4)] + [(f"e{i}", f"d{i + 1}") for i in range(0, 20, 3)]
    table = rng.normal(size=(len(vocab), DIM)) + 0.3
    first = len(SPECIALS)
    table[first + COUNT : first + 2 * COUNT] += table[first : first + COUNT]
    return vocab, entries, table.astype(np.float32)


def by_kind(found: list[PrecisionAtK]) -> dict[Kind, Shares]:
    return {(one.direction, one.among, one.scoring): (one.p1, one.p5, one.p10) for one in found}


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def nearest_ten(word: str, others: list[str], vectors: dict[str, np.ndarray]) -> float:
    best = sorted((cosine(vectors[word], vectors[o]) for o in others if o != word), reverse=True)[:10]
    return sum(best) / len(best)


def by_the_formulas(vocab: Vocab, entries: list[tuple[str, str]], table: np.ndarray) -> dict[Kind, Shares]:
    """One word at a time, in double precision; case plays no part."""
    vectors = {word: table[vocab.id(word)].astype(np.float64) for word in vocab.tokens}
    whole = [word for word in vocab.tokens[len(SPECIALS) :] if not word.endswith("@@")]
    shares: dict[Kind, Shares] = {}
    for direction, pairs in (("source-target", entries), ("target-source", [(t, s) for s, t in entries])):
        sources, targets = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
        for among, near, candidates in (("vocabulary", whole, whole), ("lexicon", sources, targets)):
            hubs = {word: nearest_ten(word, near, vectors) for word in candidates}
            for scoring in ("cosine", "csls"):
                places = []
                for query in sources:
                    own = nearest_ten(query, candidates, vectors)
                    scores = {
                        word: cosine(vectors[query], vectors[word])
                        if scoring == "cosine"
                        else 2 * cosine(vectors[query], vectors[word]) - own - hubs[word]
                        for word in candidates
                        if word != query
                    }
                    right = {target for source, target in pairs if source == query}
                    best = max(scores[word] for word in right)
                    places.append(1 + sum(score > best for word, score in scores.items() if word not in right))
                first, five, ten = (100 * sum(place <= k for place in places) / len(places) for k in (1, 5, 10))
                shares[direction, among, scoring] = (first, five, ten)
    return shares


@pytest.mark.parametrize("block", [1 << 24, 100, 1])
def test_the_formulas(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "BLOCK_ENTRIES", block)
    vocab, entries, table = numbered()
    found, expected = translate_words(table, vocab, entries), by_the_formulas(vocab, entries, table)
    shares = by_kind(found.precision)
    assert shares.keys() == expected.keys()
    for kind in expected:
        assert shares[kind] == pytest.approx(expected[kind]), kind
    assert len(set(expected.values())) == 8
    assert (found.entries, found.known) == (len(entries), len(entries))
    assert {
        (one.among, one.queries, one.candidates) for one in found.precision if one.direction == "source-target"
    } == {
        ("vocabulary", COUNT - 4, 2 * COUNT + 1),
        ("lexicon", COUNT - 4, COUNT - 4),
    }


def test_a_word_is_no_hub_for_being_near_to_itself() -> None:
    units = knn.unit_vectors(np.array([[1, 0], [3, 4], [0, 2]]))
    ids = torch.tensor([7, 8, 9])
    for k, means in ((1, [0.6, 0.8, 0.8]), (2, [0.3, 0.7, 0.4]), (5, [0.3, 0.7, 0.4])):
        assert knn.mean_of_nearest(units, units, k, own=(ids, ids)).tolist() == pytest.approx(means)
    assert knn.mean_of_nearest(units, units, 2).tolist() == pytest.approx([0.8, 0.9, 0.9])
    assert knn.mean_of_nearest(units[:1], units[:1], 2, own=(ids[:1], ids[:1])).tolist() == [0.0]


def test_how_near_translations_are() -> None:
    vocab, entries, table = numbered()
    found = translate_words(table, vocab, entries)
    left, right = (table[[vocab.id(entry[side]) for entry in entries]].astype(np.float64) for side in (0, 1))
    others = np.roll(right, len(entries) // 2, axis=0)
    for ours, theirs in ((found.cosine, right), (found.random_cosine, others)):
        assert ours == pytest.approx(np.mean([cosine(x, y) for x, y in zip(left, theirs)]), abs=1e-6)
    for ours, theirs in ((found.distance, right), (found.random_distance, others)):
        assert ours == pytest.approx(np.sqrt(((left - theirs) ** 2).sum(axis=1)).mean(), abs=1e-6)
    assert found.cosine > found.random_cosine + 0.1
    assert translate_words(table, vocab, entries * 2).cosine == found.cosine  # what comes twice counts once


def test_scikit_learn_says_the_same() -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise", reason="scikit-learn is not installed")
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(0)
    names = [f"{side}{i}" for side in "ed" for i in range(200)]
    vocab = Vocab((word, 999 - i) for i, word in enumerate(names))
    table = rng.normal(size=(len(vocab), 12))
    english, german = table[len(SPECIALS) :][:200], table[len(SPECIALS) :][200:]
    german += english
    found = by_kind(translate_words(table, vocab, [(f"e{i}", f"d{i}") for i in range(200)]).precision)
    for direction, x, y in (("source-target", english, german), ("target-source", german, english)):
        cosines = pairwise.cosine_similarity(x, y)
        near = [
            1 - neighbors.NearestNeighbors(n_neighbors=10, metric="cosine").fit(b).kneighbors(a)[0].mean(axis=1)
            for a, b in ((x, y), (y, x))
        ]
        for scoring, scores in (("cosine", cosines), ("csls", 2 * cosines - near[0][:, None] - near[1])):
            place = np.argsort(-scores, axis=1).argsort(axis=1).diagonal()
            expected = tuple(100 * (place < k).mean() for k in (1, 5, 10))
            assert found[direction, "lexicon", scoring] == pytest.approx(expected)


CASES = Vocab(
    (word, 99 - i) for i, word in enumerate(["in", "Cat", "cat", "Katze", "Hund", "dog", "ces", "Sie", "sie", "she"])
)


def planted(*groups: tuple[str, ...]) -> np.ndarray:
    """Words of a group have the same direction, and every group has one of its own."""
    table = np.zeros((len(CASES), len(CASES)), dtype=np.float32)
    for number, word in enumerate(CASES.tokens):
        table[number, next((i for i, group in enumerate(groups) if word in group), number)] = 1.0
    return table


def test_which_words_count() -> None:
    """Case is taken from the dictionary where the vocabulary has it, otherwise from the vocabulary."""
    table = planted(("cat", "Katze"), ("dog", "Hund"))
    entries = [("cat", "katze"), ("DOG", "hund"), ("in", "in"), ("a cat", "Katze"), ("mouse", "Hund"), ("pie@@", "ces")]
    found = translate_words(table, CASES, entries)
    assert (found.entries, found.known) == (6, 2)
    assert found.cosine == 1.0
    assert found.random_cosine == 0.0
    assert set(by_kind(found.precision).values()) == {(100.0, 100.0, 100.0)}
    assert {one.queries for one in found.precision} == {2}
    # the vocabulary has Cat, but the dictionary says cat
    assert translate_words(planted(("Cat", "Katze"), ("dog", "Hund")), CASES, entries).cosine == 0.5
    # no spelling is the dictionary's: the more frequent
    assert translate_words(planted(("Cat", "Katze")), CASES, [("CAT", "Katze"), ("dog", "Hund")]).cosine == 0.5


def test_an_answer_of_other_case_is_right() -> None:
    entries = [("she", "sie"), ("dog", "Hund")]
    found = by_kind(translate_words(planted(("she", "Sie"), ("dog", "Hund")), CASES, entries).precision)
    assert found["source-target", "vocabulary", "cosine"][0] == found["source-target", "lexicon", "csls"][0] == 100.0
    assert found["target-source", "vocabulary", "cosine"][0] == 50.0  # the question is sie, which is near to nothing


def test_a_table_that_finds_everything_alike_has_found_nothing() -> None:
    vocab, entries, table = numbered()
    for value in (1.0, 0.0):
        found = translate_words(np.full_like(table, value), vocab, entries)
        assert {shares for kind, shares in by_kind(found.precision).items()} == {(0.0, 0.0, 0.0)}


def test_nothing_to_say() -> None:
    vocab, entries, table = numbered()
    with pytest.raises(
        DataError, match="bilingual_lexicon: 0 of its 2 entries have two words that are whole in the vocab"
    ):
        translate_words(table, vocab, [("mouse", "Maus"), ("pie@@", "d1")])
    with pytest.raises(DataError, match="bilingual_lexicon: 1 of its 2 entries"):
        translate_words(table, vocab, [("e1", "d1"), ("e2", "e2")])
    table[3, 1] = math.nan
    with pytest.raises(NumericalError, match="not finite"):
        translate_words(table, vocab, entries)


def test_lexicons(tmp_path: Path) -> None:
    expected = [("guinea pig", "Meerschweinchen"), ("Öl", "Öl")]
    for name, text in (
        ("tabs", "guinea pig\tMeerschweinchen\tnoun\r\n\nÖl \t Öl\n"),
        ("tabs.xz", "guinea pig\tMeerschweinchen\nÖl\tÖl"),
    ):
        content = text.encode()
        (tmp_path / name).write_bytes(lzma.compress(content) if name.endswith("xz") else content)
        assert read_lexicon(tmp_path / name) == expected
    (tmp_path / "muse").write_text("cat katze\ndog  hund\n", encoding="utf-8")
    assert read_lexicon(tmp_path / "muse") == [("cat", "katze"), ("dog", "hund")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\tKatze\nguinea pig Meerschweinchen\n", ":2: not a word, a tab and its translation: 'guinea pig Meer"),
        (b"cat\n", ":1: not a word, a tab"),
        (b"cat\tKatze\n\n\tHund\n", ":3: not a word, a tab"),
        (b"cat\t\n", ":1: not a word"),
        (b"cat\tK\xe4tzchen\n", ":1: not UTF-8"),
        (b"\n", ": no entries in it"),
    ],
)
def test_what_is_no_lexicon(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_lexicon(path)
    assert str(caught.value).startswith(f"{path}{message}")
    with pytest.raises(DataError, match=r"bilingual_lexicon: .*none.tsv is not there"):
        read_lexicon(tmp_path / "none.tsv")


def test_the_lexicons_at_hand(shared: Path) -> None:
    directory = shared / "corpora" / "dict"
    assert len(read_lexicon(directory / "wiktionary.en-de.tsv")) == 67_035
    assert len(read_lexicon(directory / "wiktionary.en-de.single.txt")) == 51_916
    assert read_lexicon(directory / "yacle_train5k.en-de.tsv")[:2] == [("of", "von"), ("to", "zu")]


def test_the_tool(tmp_path: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Words from the table, together with perplexities."""
    vocab = Vocab.read(tiny_dataset / "vocab")
    torch.manual_seed(1)
    config = ModelConfig(dim=8, layers=1, heads=2, max_positions=32)
    weights = LanguageModel(config, len(vocab), 2).state_dict()
    saved = PretrainedBundle(
        config, ["de", "en"], vocab, weights, TextConfig(), [Code("ß", "ß</w>", 1)], Provenance("here")
    )
    (tmp_path / "run").mkdir()
    write_run(saved, tmp_path / "run")
    entries = [("a", "t"), ("b", "s"), ("c", "r"), ("d", "xyz")]
    (tmp_path / "d.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in entries), encoding="utf-8")
    texts = [f"bilingual_lexicon={tmp_path / 'd.tsv'}", f"data={tiny_dataset}", f"output={tmp_path / 'f.json'}"]
    tool.main([f"model={tmp_path / 'run'}", *texts, "device=cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"data={tiny_dataset}, split=valid, sequence_length=32, pairs_per_batch=32, mask_prob=0.15"
    assert lines[1].split() == ["perplexity", "accuracy"]
    found = translate_words(weights["encoder.token_embeddings.weight"], vocab, entries)
    assert lines[13:] == [f"{tmp_path / 'd.tsv'}:", *translation_table(found)]
    assert lines[14] == "3 of 4 entries are two different whole words of the vocabulary"
    figures = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert figures.keys() == {"model", "step", "settings", "perplexity", "bilingual_lexicon"}
    assert figures["settings"]["mask_prob"] == 0.15
    assert figures["perplexity"]["valid/mlm_ppl"] > 10
    assert figures["bilingual_lexicon"]["cosine"] == found.cosine
    kinds = [(row["direction"], row["among"], row["scoring"]) for row in figures["bilingual_lexicon"]["precision"]]
    assert kinds == list(product(("source-target", "target-source"), ("vocabulary", "lexicon"), ("cosine", "csls")))


def test_a_lexicon_as_programs_for_tables_save_it(tmp_path: Path) -> None:
    path = tmp_path / "en-de.tsv"
    path.write_bytes('\ufeff"English"\t"German"\r\n"house"\t"Haus"\r\n\r\n"say ""a"""\t"a"\r\n'.encode())
    assert read_lexicon(path) == [("house", "Haus"), ('say "a"', "a")]
