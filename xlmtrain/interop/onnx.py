"""Export to ONNX graphs for onnxruntime, of any number of rows and any length.

model.onnx              input_ids, attention_mask (B, T) int64 -> logits (B, T, V) fp32
sentence_vectors.onnx   input_ids, attention_mask (B, T) int64 -> sentence_embedding (B, D) fp32
tokenizer.json tokenizer_config.json README.md
de/ en/                 instead of all this a folder each, where languages differ

Padding is on the right, as the tokenizer makes it. Letters: B rows, T positions, D width, V vocabulary.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xlmtrain.config.evaluate import Pooling
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.hf.card import EXAMPLES
from xlmtrain.interop.hf.parity import row_logits
from xlmtrain.interop.hf.tokenizer import add_delimiters, tokenizer_config, tokenizer_json, write_own_tokenizer
from xlmtrain.interop.sentence_encoder import (
    LanguageFolder,
    VectorChoice,
    check_vectors,
    choose_vectors,
    comparison_rows,
    cut_after,
    language_folders,
    padded_batches,
)
from xlmtrain.model.classifier import pooled
from xlmtrain.runtime.atomic_io import write_json
from xlmtrain.text.tokenizer_json import TokenizerVocab

try:
    import onnxruntime
except ImportError:
    onnxruntime = None

TOLERANCE = 1e-4
"""Of a number, relative to the largest one if that is above 1."""
_SINGLE_FILE = 1 << 30
"""Bytes of weights that a graph still holds; those of larger ones are in a file beside it."""
_CARD = """---
language: [{languages}]
library_name: onnxruntime
tags: [onnx, fill-mask, sentence-similarity]
---
# {name}

ONNX graphs for text in {languages}, of a model pretrained for {step:,} steps with xlmtrain: `model.onnx` has the logits
of all tokens, {entries:,} a token, `sentence_vectors.onnx` a vector of {dim} numbers for each sentence. Rows and
lengths are free, up to {positions} tokens.

## Use

```python
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{name}/tokenizer.json")
tokenizer.enable_padding(pad_id={pad}, pad_token="{pad_token}")
tokenizer.enable_truncation({positions})
batch = tokenizer.encode_batch(["{example}", "..."])
inputs = {{
    "input_ids": np.array([encoding.ids for encoding in batch]),
    "attention_mask": np.array([encoding.attention_mask for encoding in batch]),
}}

(vectors,) = onnxruntime.InferenceSession("{name}/sentence_vectors.onnx").run(None, inputs)
(logits,) = onnxruntime.InferenceSession("{name}/model.onnx").run(None, inputs)
place = batch[0].ids.index({mask})
print([tokenizer.id_to_token(int(i)) for i in logits[0, place].argsort()[::-1][:5]])
```

## Vectors

{choice}

Before the export, logits and vectors were compared with xlmtrain's on {count:,} sentences: they differ by at most
{difference:.1e}.

{training}
"""


def export_onnx(
    bundle: PretrainedBundle, directory: Path, name: str, lang: str | None, data: str | None, sentences: str | None
) -> tuple[VectorChoice, dict[str, float]]:
    """Write ``directory``, called ``name``; return the choice, and folder -> largest difference from our model.

    ``lang``: language that is built in; None writes a subfolder for each, if they differ. ``data``: as for
    :func:`choose_vectors`; ``sentences``: as for :func:`export_hf_folder`. Raises ConfigError if a package is missing,
    DataError if numbers differ.
    """
    missing = [package for package in ("onnx", "onnxruntime", "onnxscript", "transformers") if not find_spec(package)]
    if missing:
        raise ConfigError(f"format=onnx: needs {', '.join(missing)}; install it: pip install 'xlmtrain[onnx]'")
    folders, choice, differences = language_folders(bundle, lang, directory, name), choose_vectors(bundle, data), {}
    special, names = bundle.vocab.special, getattr(bundle.vocab, "names", {"pad": "<pad>", "mask": "<mask>"})
    for folder in folders:
        folder.path.mkdir(exist_ok=True)
        _write_tokenizer(folder.model, folder.path)
        _write_graph(folder.path / "model.onnx", folder.model, None)
        _write_graph(folder.path / "sentence_vectors.onnx", cut_after(folder.model, choice.layer), choice.pooling)
        rows = comparison_rows(bundle, folder, sentences)
        logits, vectors = (_Session(folder.path / name) for name in ("model.onnx", "sentence_vectors.onnx"))
        difference = max(
            _check_logits(logits, bundle, folder, rows),
            check_vectors(vectors, bundle, folder, choice, rows, TOLERANCE),
        )
        card = _CARD.format(
            **folder.card_fields(choice, bundle, len(rows), difference),
            entries=len(bundle.vocab),
            pad=special.pad,
            pad_token=names["pad"],
            mask=special.mask,
            example=EXAMPLES.get(folder.languages[0], "<mask>").replace("<mask>", names["mask"]),
        )
        (folder.path / "README.md").write_text(card, encoding="utf-8")
        differences[folder.title] = difference
    return choice, differences


class _Graph(nn.Module):
    """A model as a function of ids and attention mask: its logits, or with ``pooling`` sentence vectors."""

    def __init__(self, bundle: PretrainedBundle, pooling: Pooling | None) -> None:
        super().__init__()
        self.model, self.causal, self.pooling = bundle.module(), bundle.causal, pooling
        self.unknown = bundle.vocab.special.unk

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits or vectors. Ids behind the vocabulary, symbols that only merges use, are read as UNK."""
        model, lengths = self.model, attention_mask.sum(dim=1)
        ids = torch.where(input_ids < model.vocab_size, input_ids, self.unknown)
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        states = model.encoder(ids, positions, torch.zeros_like(ids), lengths, self.causal)
        if self.pooling is not None:
            return pooled(states, lengths, self.pooling)
        return model.head(states.flatten(0, 1), model.encoder.token_embeddings.weight).unflatten(0, ids.shape)


class _Session:
    """A graph in onnxruntime, on the CPU."""

    def __init__(self, path: Path) -> None:
        self._session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        """Return the output for ids and attention mask (B, T)."""
        (output,) = self._session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        result: np.ndarray = output
        return result


def _write_graph(path: Path, bundle: PretrainedBundle, pooling: Pooling | None) -> None:
    graph = _Graph(bundle, pooling).eval()
    ids = torch.full((2, 7), bundle.vocab.special.eos)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    size = sum(weight.nbytes for weight in graph.state_dict().values())
    axes = {0: "batch", 1: "length"}
    with _quiet_exporter(), torch.no_grad():
        torch.onnx.export(
            graph,
            (ids, mask),
            path,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits" if pooling is None else "sentence_embedding"],
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
            dynamo=True,
            external_data=size > _SINGLE_FILE,
            verbose=False,
        )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide what the exporter reports: its steps, packages that it would use, its own calls that will be removed."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("torch.onnx", "onnx_ir", "onnxscript"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in levels:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)


def _write_tokenizer(bundle: PretrainedBundle, folder: Path) -> None:
    positions, languages = bundle.config.max_positions, bundle.languages
    if isinstance(bundle.vocab, TokenizerVocab):
        write_own_tokenizer(bundle.vocab, folder, languages, positions, token_types=False)
        add_delimiters(bundle.vocab, folder)
        return
    content = tokenizer_json(bundle.vocab, bundle.codes, languages[0], bundle.text)
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    write_json(folder / "tokenizer_config.json", tokenizer_config(languages, positions, bundle.text))


def _check_logits(
    session: _Session, bundle: PretrainedBundle, folder: LanguageFolder, rows: Sequence[list[int]]
) -> float:
    """Return the largest difference between two logits of ``rows``. Raises DataError if it is too large."""
    model, number, largest = bundle.module(), bundle.languages.index(folder.languages[0]), 0.0
    remaining = iter(rows)
    for ids, mask in padded_batches(rows, bundle.vocab.special.pad):
        for found in session(ids, mask):
            with torch.no_grad():
                expected = row_logits(model, next(remaining), number, bundle.causal).numpy()
            difference = float(np.abs(found[: len(expected)] - expected).max())
            largest = max(largest, difference)
            if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
                raise DataError(
                    f"{folder.title}: logits of onnxruntime differ by {difference:.2g}; nothing was exported"
                )
    return largest
