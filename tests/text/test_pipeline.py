"""One sentence at a time: the ids of preparation, and a mask where one is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.foreign_tokenizers import write_tokenizer
from xlmtrain.config.prepare import TextConfig
from xlmtrain.text.bpe import Code
from xlmtrain.text.pipeline import BpePipeline, TokenizerPipeline
from xlmtrain.text.tokenizer_json import read_tokenizer
from xlmtrain.text.vocab import MASK, UNK, Vocab

WORDS = ["K@@", "Kat@@", "en", "ä", "ö@@", "ß", ".", "sofa", "Sofa", "auf", "<", ">", "mask", "s"]


@pytest.fixture
def codes() -> list[Code]:
    """Codes that join every word of WORDS."""
    pairs = [
        "e n</w>",
        "K a",
        "Ka t",
        "S o",
        "f a</w>",
        "So fa</w>",
        "s o",
        "so fa</w>",
        "a u",
        "au f</w>",
        "m a",
        "s k</w>",
        "ma sk</w>",
    ]
    return [Code(*pair.split(" "), 1) for pair in pairs]


@pytest.fixture
def vocab() -> Vocab:
    return Vocab([(word, 1) for word in WORDS])


def expected(text: str) -> list[int]:
    return [MASK if word == "<special1>" else UNK if word == "?" else 14 + WORDS.index(word) for word in text.split()]


def test_raw_sentence_to_ids(codes: list[Code], vocab: Vocab) -> None:
    pipeline = BpePipeline(TextConfig(), codes, vocab)
    assert pipeline.tokens("Katen  auf Sofa.", "de") == ["Kat@@", "en", "auf", "Sofa", "."]
    assert pipeline.ids("Katen  auf Sofa.", "de") == expected("Kat@@ en auf Sofa .")
    assert pipeline.ids("ä öß Ü", "de") == expected("ä ö@@ ß ?")
    assert pipeline.ids("", "de") == []


def test_lowercase_is_applied_as_in_preparation(codes: list[Code], vocab: Vocab) -> None:
    pipeline = BpePipeline(TextConfig(lowercase=True), codes, vocab)
    assert pipeline.ids("Sofa", "en") == expected("sofa")
    assert pipeline.ids("<mask> SOFA", "en") == expected("<special1> sofa")


def test_mask_comes_through_and_its_neighbours_are_tokenized_as_beside_a_word(codes: list[Code], vocab: Vocab) -> None:
    pipeline = BpePipeline(TextConfig(), codes, vocab)
    assert pipeline.ids("Katen <mask> auf Sofa<mask>.", "de") == expected("Kat@@ en <special1> auf Sofa <special1> .")
    assert pipeline.tokens("<mask>", "de") == ["<special1>"]
    assert pipeline.ids("<MASK>", "de") == expected("< ? ? ? ? >")


def test_no_text_makes_a_special_id_by_itself(codes: list[Code], vocab: Vocab) -> None:
    pipeline = BpePipeline(TextConfig(lowercase=True, remove_accents=True), codes, vocab)
    for line in ("<s>", "</s>", "<special1>", "maskhere", "Mäskhere", "maskherex <pad>", "MASKHERE <mask"):
        assert all(id == UNK or id >= 14 for id in pipeline.ids(line, "en")), line
        assert pipeline.ids(f"{line} <mask>", "en").count(MASK) == 1, line


def test_text_is_a_line_even_if_a_byte_is_a_line_break(tmp_path: Path) -> None:
    vocab = read_tokenizer(write_tokenizer("byte_bpe", tmp_path / "bytes"))
    pipeline = TokenizerPipeline(vocab)
    symbols = ("a", "\u010a", "b", "\u0109", "c", "\u010d", "\u0120", "d")
    ids = list(map(vocab.tokenizer.token_to_id, symbols))
    assert vocab.tokenizer.decode(ids) == "a\nb\tc\r d"
    assert pipeline.text(ids, "de") == "a b c  d"
    assert pipeline.text(pipeline.ids("x\u00a0y z", "de"), "de") == "x\u00a0y z"
