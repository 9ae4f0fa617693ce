"""BLEU of tokenized text is multi-bleu.perl's; of raw text it is sacreBLEU's."""

from __future__ import annotations

from typing import Any

import pytest

from xlmtrain.errors import ConfigError
from xlmtrain.evaluate import bleu
from xlmtrain.evaluate.bleu import raw_text_scores, tokenized_bleu
from xlmtrain.text.vocab import join_subwords

HYPOTHESES = ["The dog runs over the green field.", "A man and a woman go home.", ""]
REFERENCES = ["The dog runs over the field.", "A man and a woman are walking home.", "Nobody."]


@pytest.mark.parametrize("number", range(6))
def test_the_line_of_multi_bleu(translation: dict[str, Any], number: int) -> None:
    case = translation["bleu"][number]
    found = tokenized_bleu(case["hypothesis"], case["reference"])
    assert str(found) == case["line"]
    assert round(found.value, 2) == case["value"]


@pytest.mark.parametrize("kind", ["greedy", "beam4"])
def test_the_originals_evaluation(translation: dict[str, Any], kind: str) -> None:
    case = translation["evaluation"][kind]
    for name, lines in case["hypotheses"].items():
        split, direction = name.split(".")
        found = tokenized_bleu(lines, translation["evaluation"]["references"][name])
        assert round(found.value, 2) == case["scores"][f"{split}_{direction}_mt_bleu"]


def test_the_originals_traps_are_not_ours() -> None:
    """All-empty output has 0, not -1; a line without a reference is no word of it."""
    assert tokenized_bleu(["", ""], ["a b", "c"]).value == 0
    assert tokenized_bleu([], []).value == tokenized_bleu(["a"], [""]).value == 0
    with pytest.raises(ValueError, match="shorter"):
        tokenized_bleu(["a", "b"], ["a"])


def test_subwords_are_joined_as_by_the_original(translation: dict[str, Any]) -> None:
    case = translation["restore_segmentation"]
    assert [join_subwords(line) for line in case["in"]] == case["out"]


def test_raw_text_is_scored_by_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    one, other = raw_text_scores(HYPOTHESES, REFERENCES)
    expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert one.startswith("BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert f" = {expected:.2f} " in one
    assert other.startswith("chrF2|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert other.endswith(f" = {sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score:.2f}")


def test_without_sacrebleu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bleu, "BLEU", None)
    with pytest.raises(ConfigError, match="needs the sacrebleu package; install it with: pip install sacrebleu"):
        list(raw_text_scores(HYPOTHESES, REFERENCES))
