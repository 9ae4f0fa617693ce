"""Under the original's rules, translations are the original's, token for token, and so is what is measured on them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.support.translation import batch_of, reference_model, source_of
from xlmtrain.config.prepare import TextConfig
from xlmtrain.generate.beam import BeamSettings, beam_search
from xlmtrain.generate.decoding import max_target_lengths
from xlmtrain.generate.greedy import greedy_search
from xlmtrain.interop.xlm.conversion import read_xlm_checkpoint
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.text.vocab import SPECIALS


@pytest.fixture(scope="module")
def model(translation: dict[str, Any]) -> TranslationModel:
    return reference_model(translation)


def rows(tokens: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
    """The original's translations (T, B) without the ``</s>`` at their start."""
    return [column[1:length].tolist() for column, length in zip(tokens.T, lengths.tolist())]


def limits_of(case: dict[str, Any], count: int) -> torch.Tensor:
    return torch.full((count,), case["max_len"])


@pytest.mark.parametrize("kind", ["greedy", "greedy_short"])
def test_greedy_translations(translation: dict[str, Any], model: TranslationModel, kind: str) -> None:
    case = translation["generation"]
    source = source_of(case["source"], case["source_lengths"], case["source_lang"])
    found = greedy_search(model, source, case["target_lang"], limits_of(case[kind], 9), suppress_specials=False)
    assert [ids.tolist() for ids in found] == rows(case[kind]["x"], case[kind]["lengths"])


@pytest.mark.parametrize("number", range(9))
def test_beam_search_and_all_it_kept(translation: dict[str, Any], model: TranslationModel, number: int) -> None:
    case = translation["generation"]
    source = source_of(case["source"], case["source_lengths"], case["source_lang"])
    expected = case["beam"][number]
    settings = BeamSettings(expected["beam_size"], expected["length_penalty"], expected["early_stopping"], True)
    found = beam_search(model, source, case["target_lang"], limits_of(expected, 9), settings)
    assert [best[0].ids.tolist() for best in found] == rows(expected["x"], expected["lengths"])
    for ours, theirs in zip(found, expected["hypotheses"], strict=True):
        theirs = sorted(theirs, key=lambda hypothesis: -hypothesis["score"])
        for a, b in zip(ours, theirs, strict=True):
            assert a.ids.tolist() == [*b["ids"][1:].tolist(), 1]
            assert a.score == pytest.approx(b["score"], abs=1e-5)


def test_limits_are_the_back_translations() -> None:
    lengths = torch.tensor([2, 3, 13, 100, 500])
    assert max_target_lengths(lengths, 512).tolist() == [int(1.3 * n + 5) for n in (2, 3, 13, 100)] + [512]


@pytest.mark.parametrize("kind", ["greedy", "beam4"])
def test_translations_perplexity_and_accuracy_of_the_evaluation(
    translation: dict[str, Any], model: TranslationModel, shared: Path, kind: str
) -> None:
    case, stored = translation["evaluation"][kind], translation["evaluation"]["batches"]
    bundle = read_xlm_checkpoint(shared / "reference" / "translation-checkpoint.pth", [], TextConfig())
    languages = {"de": 0, "en": 1}
    for split in ("valid", "test"):
        for a, b in (("de", "en"), ("en", "de")):
            lines, losses, hits, targets = [], 0.0, 0, 0
            for pairs in stored[split]:
                source = source_of(pairs[a], pairs[f"{a}_lengths"], languages[a])
                limits = torch.full((len(source.tokens),), int(1.5 * source.tokens.shape[1] + 10))
                if kind == "greedy":
                    found = greedy_search(model, source, languages[b], limits, suppress_specials=False)
                else:
                    settings = BeamSettings(4, case["length_penalty"], case["early_stopping"], original_rules=True)
                    found = [best[0].ids for best in beam_search(model, source, languages[b], limits, settings)]
                lines += [" ".join(bundle.vocab.tokens[i] for i in ids[:-1]).replace("@@ ", "") for ids in found]
                batch = batch_of(
                    {"source": pairs[a], "source_lengths": pairs[f"{a}_lengths"], "source_langs": source.languages}
                    | {"target": pairs[b], "target_lengths": pairs[f"{b}_lengths"]}
                    | {"target_langs": torch.full((1, 1), languages[b])}
                )
                logits = model.logits(batch)
                losses += F.cross_entropy(logits, batch.targets, reduction="sum").item()
                hits += int((logits.argmax(dim=1) == batch.targets).sum())
                targets += len(batch.targets)
            assert [line.removesuffix("@@") for line in lines] == case["hypotheses"][f"{split}.{a}-{b}"]
            scores, name = case["scores"], f"{split}_{a}-{b}_mt"
            assert math.exp(losses / targets) == pytest.approx(scores[f"{name}_ppl"], rel=1e-5)
            assert 100 * hits / targets == pytest.approx(scores[f"{name}_acc"], rel=1e-9)
    assert len(SPECIALS) == 14
