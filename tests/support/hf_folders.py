"""Models of random weights that are written as folders of transformers."""

from __future__ import annotations

from typing import Any

import torch

from xlmtrain.config.model import ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.bpe import Code
from xlmtrain.text.vocab import Vocab

SENTENCES = {
    "de": ["Die Katze schläft.", "Das ist am 3. Oktober z. B. so!", "„Ja“, sagte er"],
    "en": ["It's 5 p.m. - no?", "so"],
}


def model_of(languages: list[str], text: TextConfig | None = None, **changes: Any) -> PretrainedBundle:
    """Random weights, a few whole words, and codes that also make ``wever``, which the vocabulary does not list."""
    pairs = [
        "D i",
        "Di e</w>",
        "K a",
        "Ka t",
        "z e</w>",
        "i s",
        "is t</w>",
        "s o</w>",
        "w e",
        "we v",
        "wev e",
        "weve r</w>",
        "h o",
        "ho wever</w>",
    ]
    vocab = Vocab(
        (word, 99 - i)
        for i, word in enumerate(["Die", "Kat@@", "ze", "ist", "so", "however", *"abDKiesowvrt.,!-3", "e@@", "r@@"])
    )
    config = ModelConfig(**{"dim": 16, "layers": 2, "heads": 2, "max_positions": 64, "dropout": 0.0, **changes})
    torch.manual_seed(3)
    module = LanguageModel(config, len(vocab), len(languages))
    weights = {name: weight.detach() for name, weight in module.state_dict().items()}
    codes = [Code(*pair.split(" "), 0) for pair in pairs]
    return PretrainedBundle(config, languages, vocab, weights, text or TextConfig(), codes, Provenance("made here"))


def same(first: PretrainedBundle, second: PretrainedBundle) -> bool:
    assert (first.config, first.languages, first.text) == (second.config, second.languages, second.text)
    assert first.vocab.tokens == second.vocab.tokens
    assert first.vocab.counts.tolist() == second.vocab.counts.tolist()
    assert [(code.left, code.right) for code in first.codes] == [(code.left, code.right) for code in second.codes]
    assert first.weights.keys() == second.weights.keys()
    return all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
