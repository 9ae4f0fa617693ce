"""A fill-mask pipeline that passes the language id and reads ``targets`` as words, unlike transformers' own.

Exported folders contain a copy of this file as ``fill_mask.py``. It needs nothing but transformers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, FillMaskPipeline


class XLMFillMask(FillMaskPipeline):
    """FillMaskPipeline for a model with language embeddings and a vocabulary of subwords.

    XLMFillMask.from_pretrained("folder", "de")("Die Katze <mask> auf dem Sofa.", targets=["liegt", "sitzt"])
    """

    lang: str

    @classmethod
    def from_pretrained(cls, folder: str, lang: str, **options: Any) -> XLMFillMask:
        """Load the folder's model for text in ``lang``. Raises ValueError if the model does not have the language."""
        model = AutoModelForMaskedLM.from_pretrained(folder)
        if lang not in model.config.lang2id:
            raise ValueError(f"lang={lang!r}: the model knows {', '.join(model.config.lang2id)}")
        # A model of one language has no subfolders.
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, subfolder=lang if len(model.config.lang2id) > 1 else "")
        pipeline = cls(model=model, tokenizer=tokenizer, **options)
        pipeline.lang = lang
        return pipeline

    def get_target_ids(self, targets: str | list[str], *_: Any) -> np.ndarray:
        """Return the ids of ``targets``, each a word. Raises ValueError for a word that is not one subword.

        transformers looks a target up in the vocabulary, where ``Haus</w>`` is the word, and ``Haus`` a beginning.
        """
        tokenizer: Any = self.tokenizer
        ids = []
        for word in [targets] if isinstance(targets, str) else targets:
            found = tokenizer(word, add_special_tokens=False)["input_ids"]
            if len(found) != 1 or found[0] == tokenizer.unk_token_id:
                pieces = " ".join(tokenizer.convert_ids_to_tokens(found))
                raise ValueError(f"targets: {word!r} is not one subword of the vocabulary, but {pieces!r}")
            ids += found
        if not ids:
            raise ValueError("targets: give at least one word")
        return np.unique(ids)

    def _forward(self, model_inputs: Any) -> Any:  # type: ignore[override]
        positions, tokens = self.model.config.max_position_embeddings, model_inputs["input_ids"].shape[1]
        if tokens > positions:
            raise ValueError(f"{tokens} tokens are more than the model's {positions} positions")
        language = self.model.config.lang2id[self.lang]
        model_inputs["langs"] = torch.full_like(model_inputs["input_ids"], language)
        return super()._forward(model_inputs)
