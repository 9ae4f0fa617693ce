import pytest

from xlmtrain.config.prepare import TextConfig
from xlmtrain.text.pipeline import TextPipeline
from xlmtrain.text.vocab import MASK, UNK, Vocab

WORDS = ["K@@", "Kat@@", "en", "ä", "ö@@", "ß", ".", "sofa", "Sofa", "auf", "<", ">", "mask", "s"]


@pytest.fixture
def codes(tmp_path):
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
    (tmp_path / "codes").write_text("".join(f"{pair} 1\n" for pair in pairs), encoding="utf-8")
    return tmp_path / "codes"


@pytest.fixture
def vocab():
    return Vocab([(word, 1) for word in WORDS])


def expected(text):
    return [MASK if word == "<special1>" else UNK if word == "?" else 14 + WORDS.index(word) for word in text.split()]


def test_raw_sentence_to_ids(codes, vocab):
    pipeline = TextPipeline(TextConfig(), codes, vocab)
    assert pipeline.tokens("Katen  auf Sofa.", "de") == ["Kat@@", "en", "auf", "Sofa", "."]
    assert pipeline.ids("Katen  auf Sofa.", "de") == expected("Kat@@ en auf Sofa .")
    assert pipeline.ids("ä öß Ü", "de") == expected("ä ö@@ ß ?")
    assert pipeline.ids("", "de") == []


def test_lowercase_is_applied_as_in_preparation(codes, vocab):
    pipeline = TextPipeline(TextConfig(lowercase=True), codes, vocab)
    assert pipeline.ids("Sofa", "en") == expected("sofa")
    assert pipeline.ids("<mask> SOFA", "en", keep_mask=True) == expected("<special1> sofa")


def test_mask_comes_through_where_asked_for_and_is_ordinary_text_elsewhere(codes, vocab):
    pipeline = TextPipeline(TextConfig(), codes, vocab)
    line = "Katen <mask> auf Sofa<mask>."
    assert pipeline.ids(line, "de", keep_mask=True) == expected("Kat@@ en <special1> auf Sofa <special1> .")
    assert pipeline.tokens("<mask>", "de", keep_mask=True) == ["<special1>"]
    assert pipeline.ids("<mask>", "de") == expected("< mask >")


def test_no_text_makes_a_special_id_by_itself(codes, vocab):
    pipeline = TextPipeline(TextConfig(), codes, vocab)
    for line in ("<s>", "</s>", "<special1>", "maskhere", "maskherex <pad>", "MASKHERE <mask"):
        ids = pipeline.ids(line, "en") + pipeline.ids(line, "en", keep_mask=True)
        assert all(id == UNK or id >= 14 for id in ids), line
    assert pipeline.ids("maskhere <mask>", "en", keep_mask=True).count(MASK) == 1
