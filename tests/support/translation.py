"""The reference of the original's translation half, as models and batches of ours; it is time first, ours are not."""

from __future__ import annotations

import string
from typing import Any

import torch

from xlmtrain.config.model import ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.data.batch import Batch, EncoderInput
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.interop.xlm.conversion import from_xlm_state_dict, to_xlm_state_dict
from xlmtrain.model.translation_model import TranslationModel, as_decoder, decoder_part
from xlmtrain.text.bpe import Code
from xlmtrain.text.vocab import SPECIALS, Vocab

WORDS, LAYERS = 200, 2


def small_model(**options: Any) -> TranslationModel:
    """A model of the reference's size without dropout; ``options``: of the model."""
    config = ModelConfig(dim=64, layers=LAYERS, heads=4, dropout=0.0, attention_dropout=0.0)
    return TranslationModel(config, WORDS, 2, **options)


def reference_model(translation: dict[str, Any]) -> TranslationModel:
    """The reference's model."""
    model = small_model()
    decoder = as_decoder(from_xlm_state_dict(translation["decoder"]))
    model.load_state_dict({**from_xlm_state_dict(translation["encoder"]), **decoder})
    return model


def source_of(tokens: torch.Tensor, lengths: torch.Tensor, language: int) -> EncoderInput:
    """Sentences (S, B) of one language."""
    tokens = tokens.T.contiguous()
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    return EncoderInput(tokens, positions, torch.full_like(tokens, language), lengths)


def batch_of(case: dict[str, Any]) -> Batch:
    """A batch of source and target; the targets' order is ours."""
    source = source_of(case["source"], case["source_lengths"], int(case["source_langs"][0, 0]))
    target = source_of(case["target"], case["target_lengths"], int(case["target_langs"][0, 0]))
    selected = torch.arange(target.tokens.shape[1]) < case["target_lengths"][:, None] - 1
    index = selected.flatten().nonzero()[:, 0]
    following = target.tokens.roll(-1, 1).flatten()[index]
    return Batch(
        "mt", target.tokens, target.positions, target.languages, target.lengths, index, following, source=source
    )


def bundle_of(model: TranslationModel) -> PretrainedBundle:
    """``model`` with a vocabulary of letters, pieces of a letter, and marks; German is 0, English 1."""
    letters = string.ascii_letters
    words = [*letters, *(f"{letter}@@" for letter in letters), *".,!?"]
    words += [f"x{i}" for i in range(model.vocab_size - len(SPECIALS) - len(words))]
    vocab = Vocab([(word, 1000 - i) for i, word in enumerate(words)])
    codes = [Code("ß", "ß</w>", 1)]
    return PretrainedBundle(
        model.config, ["de", "en"], vocab, model.state_dict(), TextConfig(), codes, Provenance("a test")
    )


def original_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights or gradients under the reference's names."""
    parts = {"encoder": to_xlm_state_dict(tensors), "decoder": to_xlm_state_dict(decoder_part(tensors))}
    return {f"{part}.{name}": value for part, names in parts.items() for name, value in names.items()}
