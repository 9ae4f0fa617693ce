"""The README of an exported model."""

from __future__ import annotations

from collections.abc import Iterator

from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.hf.parity import ParityReport

_USE = """```python
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

# One language: nothing to think of. {subfolders} hold the same model for text of one language each.
for guess in pipeline("fill-mask", model="{name}/{lang}", top_k=5)("{example}"):
    print(guess["token_str"], round(guess["score"], 3))

# All languages in one model: say which language each token is in. Left out, it is silently left away.
model = AutoModelForMaskedLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}", subfolder="{lang}")
inputs = tokenizer("{example}", return_tensors="pt")
langs = torch.full_like(inputs["input_ids"], model.config.lang2id["{lang}"])
logits = model(**inputs, langs=langs).logits
```"""
_USE_ONE = """```python
from transformers import pipeline

for guess in pipeline("fill-mask", model="{name}", top_k=5)("{example}"):
    print(guess["token_str"], round(guess["score"], 3))
```"""
_EXAMPLES = {"de": "Die Katze <mask> auf dem Sofa.", "en": "The cat is <mask> on the sofa."}
_RECIPE = {
    "data": ("mlm", "tlm", "clm", "sampling_alpha", "sequence_length"),
    "mask": ("rate", "mask", "random", "frequency_alpha"),
    "optim": ("lr", "schedule", "warmup_steps", "beta1", "beta2", "weight_decay"),
    "train": ("steps", "batch_tokens", "precision"),
}


def model_card(model: PretrainedBundle, agreement: ParityReport, name: str) -> str:
    """Markdown for the folder ``name``: what it is, how to use it, what it was made from, how good it is."""
    sections = [_header(model, name), _use(model, name), _text(model, agreement), _data(model), _recipe(model)]
    return "\n\n".join(["\n".join(section) for section in [*sections, _figures(model)]]).rstrip() + "\n"


def _header(model: PretrainedBundle, name: str) -> Iterator[str]:
    config = model.config
    parameters = sum(weight.numel() for weight in model.weights.values())
    yield "---"
    yield f"language: [{', '.join(model.languages)}]"
    yield "library_name: transformers"
    yield "pipeline_tag: fill-mask"
    yield "---"
    yield f"# {name}"
    yield ""
    yield (
        f"A masked language model of {' and '.join(model.languages)} (XLM, Lample & Conneau 2019): {config.layers} "
        f"layers of {config.dim} units, {config.heads} heads, {parameters:,} parameters, vocabulary "
        f"{len(model.vocab):,}, up to {config.max_positions} tokens. Pretrained for {model.history.step:,} steps with "
        "xlmtrain."
    )


def _use(model: PretrainedBundle, name: str) -> Iterator[str]:
    lang = next((language for language in model.languages if language in _EXAMPLES), model.languages[0])
    subfolders = ", ".join(f"{name}/{language}" for language in model.languages)
    example = _EXAMPLES.get(lang, "<mask> .")
    yield "## Use"
    yield ""
    template = _USE if len(model.languages) > 1 else _USE_ONE
    yield template.format(name=name, lang=lang, example=example, subfolders=subfolders)
    if len(model.languages) > 1:
        ids = ", ".join(f"{language} = {i}" for i, language in enumerate(model.languages))
        yield ""
        yield (
            f"Language ids: {ids}. `fill_mask.py` has a pipeline that passes them: "
            f'`XLMFillMask.of("{name}", "{lang}")("{example}")`. The tokenizer in the folder itself has the rules of '
            f"{model.languages[0]}, those in the subfolders the rules of their language."
        )


def _text(model: PretrainedBundle, agreement: ParityReport) -> Iterator[str]:
    yield "## Text"
    yield ""
    if not model.codes:
        yield (
            "There is no tokenizer: the BPE codes were not known. Logits differ from the original model's by at most "
            f"{agreement.difference:.1e}."
        )
        return
    case = "lower-cased" if model.text.lowercase else "cased"
    accents = "accents stripped" if model.text.remove_accents else "accents and umlauts kept"
    compared = ", ".join(f"{count:,} sentences of {language}" for language, count in agreement.sentences.items())
    yield (
        f"Raw text goes in: the tokenizer normalizes punctuation, applies Moses' rules and {len(model.codes):,} BPE "
        f"codes as in training: {case}, {accents}. A sentence is `</s> ... </s>`, as the model was trained. Before "
        f"release, ids were compared with those of training on {compared}: the same; logits differ by at most "
        f"{agreement.difference:.1e}."
    )


def _data(model: PretrainedBundle) -> Iterator[str]:
    trained = {name: size for name, size in model.history.corpora.items() if name.startswith("train.")}
    yield "## Data"
    yield ""
    if not trained:
        yield "Not recorded."
        return
    yield "| corpus | sentences | tokens |"
    yield "| --- | ---: | ---: |"
    for name, size in trained.items():
        yield f"| {name.removeprefix('train.')} | {size['sentences']:,} | {size['tokens']:,} |"


def _recipe(model: PretrainedBundle) -> Iterator[str]:
    settings = model.history.settings
    yield "## Recipe"
    yield ""
    found = [f"{s}.{k}={settings[s][k]}" for s, keys in _RECIPE.items() for k in keys if k in settings.get(s, {})]
    yield f"`{' '.join(found)}`" if found else "Not recorded."


def _figures(model: PretrainedBundle) -> Iterator[str]:
    perplexities = {name: value for name, value in model.history.figures.items() if name.endswith("_ppl")}
    yield "## Figures"
    yield ""
    if not perplexities:
        yield "Not recorded."
        return
    yield "| validation set | perplexity | accuracy |"
    yield "| --- | ---: | ---: |"
    for name, value in perplexities.items():
        stem = name.removesuffix("_ppl")
        yield f"| {stem.removeprefix('valid/')} | {value:.2f} | {model.history.figures[f'{stem}_acc']:.1f} % |"
