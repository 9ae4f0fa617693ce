"""The model card (README.md) of an exported model."""

from __future__ import annotations

from collections.abc import Iterator

from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.hf.parity import ParityReport

_USE = """```python
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

# One language: {subfolders} hold the same model for text in one language each.
for prediction in pipeline("fill-mask", model="{name}/{lang}", top_k=5)("{example}"):
    print(prediction["token_str"], round(prediction["score"], 3))

# All languages: pass the language of each token as langs. Without langs transformers adds no language embedding.
model = AutoModelForMaskedLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}", subfolder="{lang}")
inputs = tokenizer("{example}", return_tensors="pt")
langs = torch.full_like(inputs["input_ids"], model.config.lang2id["{lang}"])
logits = model(**inputs, langs=langs).logits
```"""
_USE_ONE = """```python
from transformers import pipeline

for prediction in pipeline("fill-mask", model="{name}", top_k=5)("{example}"):
    print(prediction["token_str"], round(prediction["score"], 3))
```"""
_EXAMPLES = {"de": "Die Katze <mask> auf dem Sofa.", "en": "The cat is <mask> on the sofa."}
_RECIPE = {
    "data": ("mlm", "tlm", "clm", "sampling_alpha", "sequence_length"),
    "mask": ("prob", "mask_token_prob", "random_token_prob", "inverse_frequency_exponent"),
    "optim": ("lr", "schedule", "warmup_steps", "beta1", "beta2", "weight_decay"),
    "train": ("steps", "batch_tokens", "precision"),
}


def model_card(bundle: PretrainedBundle, report: ParityReport, name: str) -> str:
    """Return the model card in Markdown: model, usage, text processing, training data, recipe and evaluation."""
    sections = [_header(bundle, name), _use(bundle, name), _text(bundle, report), _data(bundle), _recipe(bundle)]
    return "\n\n".join(["\n".join(section) for section in [*sections, _evaluation(bundle)]]).rstrip() + "\n"


def _header(bundle: PretrainedBundle, name: str) -> Iterator[str]:
    config = bundle.config
    parameters = sum(weight.numel() for weight in bundle.weights.values())
    yield "---"
    yield f"language: [{', '.join(bundle.languages)}]"
    yield "library_name: transformers"
    yield "pipeline_tag: fill-mask"
    yield "---"
    yield f"# {name}"
    yield ""
    yield (
        f"A masked language model of {' and '.join(bundle.languages)} (XLM, Lample & Conneau 2019): {config.layers} "
        f"layers of {config.dim} units, {config.heads} heads, {parameters:,} parameters, vocabulary "
        f"{len(bundle.vocab):,}, up to {config.max_positions} tokens. Pretrained for "
        f"{bundle.provenance.step:,} steps with xlmtrain."
    )


def _use(bundle: PretrainedBundle, name: str) -> Iterator[str]:
    lang = next((language for language in bundle.languages if language in _EXAMPLES), bundle.languages[0])
    subfolders = ", ".join(f"{name}/{language}" for language in bundle.languages)
    example = _EXAMPLES.get(lang, "<mask> .")
    yield "## Use"
    yield ""
    template = _USE if len(bundle.languages) > 1 else _USE_ONE
    yield template.format(name=name, lang=lang, example=example, subfolders=subfolders)
    if len(bundle.languages) > 1:
        ids = ", ".join(f"{language} = {i}" for i, language in enumerate(bundle.languages))
        yield ""
        yield (
            f"Language ids: {ids}. `fill_mask.py` has a pipeline that passes them: "
            f'`XLMFillMask.from_pretrained("{name}", "{lang}")("{example}")`. The tokenizer in the folder itself has '
            f"the rules of {bundle.languages[0]}, those in the subfolders the rules of their language."
        )


def _text(bundle: PretrainedBundle, report: ParityReport) -> Iterator[str]:
    yield "## Text"
    yield ""
    if not bundle.codes:
        yield (
            "There is no tokenizer: the BPE codes were not known. Logits differ from the original model's by at most "
            f"{report.difference:.1e}."
        )
        return
    case = "lower-cased" if bundle.text.lowercase else "cased"
    accents = "accents stripped" if bundle.text.remove_accents else "accents and umlauts kept"
    compared = ", ".join(f"{count:,} sentences of {language}" for language, count in report.sentences.items())
    yield (
        f"Raw text goes in: the tokenizer normalizes punctuation, applies Moses' rules and {len(bundle.codes):,} BPE "
        f"codes as in training: {case}, {accents}. A sentence is `</s> ... </s>`, as the model was trained. Before "
        f"release, ids were compared with those of training on {compared}: the same; logits differ by at most "
        f"{report.difference:.1e}."
    )


def _data(bundle: PretrainedBundle) -> Iterator[str]:
    trained = {name: size for name, size in bundle.provenance.corpora.items() if name.startswith("train.")}
    yield "## Data"
    yield ""
    if not trained:
        yield "Not recorded."
        return
    yield "| corpus | sentences | tokens |"
    yield "| --- | ---: | ---: |"
    for name, size in trained.items():
        yield f"| {name.removeprefix('train.')} | {size['sentences']:,} | {size['tokens']:,} |"


def _recipe(bundle: PretrainedBundle) -> Iterator[str]:
    settings = bundle.provenance.settings
    yield "## Recipe"
    yield ""
    found = [f"{s}.{k}={settings[s][k]}" for s, keys in _RECIPE.items() for k in keys if k in settings.get(s, {})]
    yield f"`{' '.join(found)}`" if found else "Not recorded."


def _evaluation(bundle: PretrainedBundle) -> Iterator[str]:
    perplexities = {name: value for name, value in bundle.provenance.metrics.items() if name.endswith("_ppl")}
    yield "## Evaluation"
    yield ""
    if not perplexities:
        yield "Not recorded."
        return
    yield "| validation set | perplexity | accuracy |"
    yield "| --- | ---: | ---: |"
    for name, value in perplexities.items():
        stem = name.removesuffix("_ppl")
        yield f"| {stem.removeprefix('valid/')} | {value:.2f} | {bundle.provenance.metrics[f'{stem}_acc']:.1f} % |"
