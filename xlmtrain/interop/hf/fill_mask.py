"""fill-mask for a model with language embeddings, which transformers' own pipeline leaves out.

Stands in the exported folder too, as ``fill_mask.py``; it needs nothing but transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, FillMaskPipeline


class XLMFillMask(FillMaskPipeline):
    """Passes the language's id along with the tokens.

    XLMFillMask.of("folder", "de")("Die Katze <mask> auf dem Sofa.")
    """

    lang: str

    @classmethod
    def of(cls, folder: str, lang: str, **options: Any) -> XLMFillMask:
        """The folder's model for text of the language ``lang``. Raises ValueError for one it does not have."""
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
