"""A fill-mask pipeline that passes the language id, which transformers' own pipeline does not.

Exported folders contain a copy of this file as ``fill_mask.py``. It needs nothing but transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, FillMaskPipeline


class XLMFillMask(FillMaskPipeline):
    """FillMaskPipeline for a model with language embeddings.

    XLMFillMask.from_pretrained("folder", "de")("Die Katze <mask> auf dem Sofa.")
    """

    lang: str

    @classmethod
    def from_pretrained(cls, folder: str, lang: str, **options: Any) -> XLMFillMask:
        """Load the folder's model for text in ``lang``. Raises ValueError if the model does not have the language."""
        model = AutoModelForMaskedLM.from_pretrained(folder)
        if lang not in model.config.lang2id:
            raise ValueError(f"lang={lang!r}: the model knows {', '.join(model.config.lang2id)}")
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, subfolder=lang)
        pipeline = cls(model=model, tokenizer=tokenizer, **options)
        pipeline.lang = lang
        return pipeline

    def _forward(self, model_inputs: Any) -> Any:  # type: ignore[override]
        language = self.model.config.lang2id[self.lang]
        model_inputs["langs"] = torch.full_like(model_inputs["input_ids"], language)
        return super()._forward(model_inputs)
