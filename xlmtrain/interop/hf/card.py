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
_USE_CAUSAL = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
inputs = tokenizer("{example}", return_tensors="pt")
logits = model(**inputs).logits  # those at position t predict the token at t + 1
```

`generate` appends `<mask>` to the input of every XLM model, which a causal model was not trained on: use the logits."""
_EXAMPLES = {"de": "Die Katze <mask> auf dem Sofa.", "en": "The cat is <mask> on the sofa."}
_RECIPE = {
    "data": ("mlm", "tlm", "clm", "sampling_alpha", "sequence_length"),
    "mask": ("prob", "mask_token_prob", "random_token_prob", "inverse_frequency_exponent"),
    "optim": ("lr", "schedule", "warmup_steps", "beta1", "beta2", "weight_decay"),
    "train": ("steps", "batch_tokens", "precision"),
}


def model_card(bundle: PretrainedBundle, report: ParityReport, name: str) -> str:
    """Return the model card in Markdown: model, usage, text processing, training data, recipe and evaluation."""
    sections = {
        "Use": _use(bundle, name),
        "Text": _text(bundle, report),
        "Data": _data(bundle),
        "Recipe": _recipe(bundle),
        "Evaluation": _evaluation(bundle),
    }
    bodies = ["\n".join([f"## {title}", "", *lines]) for title, lines in sections.items()]
    return "\n\n".join(["\n".join(_header(bundle, name)), *bodies]) + "\n"


def _header(bundle: PretrainedBundle, name: str) -> Iterator[str]:
    config = bundle.config
    parameters = sum(weight.numel() for weight in bundle.weights.values())
    yield "---"
    yield f"language: [{', '.join(bundle.languages)}]"
    yield "library_name: transformers"
    if not bundle.causal:
        yield "pipeline_tag: fill-mask"
    yield "---"
    yield f"# {name}"
    yield ""
    yield (
        f"A {'causal' if bundle.causal else 'masked'} language model of {' and '.join(bundle.languages)} (XLM, Lample "
        f"& Conneau 2019): {config.layers} layers of {config.dim} units, {config.heads} heads, {parameters:,} "
        f"parameters, vocabulary {len(bundle.vocab):,}, up to {config.max_positions} tokens. Pretrained for "
        f"{bundle.provenance.step:,} steps with xlmtrain."
    )


def _use(bundle: PretrainedBundle, name: str) -> Iterator[str]:
    lang = next((language for language in bundle.languages if language in _EXAMPLES), bundle.languages[0])
    subfolders = ", ".join(f"{name}/{language}" for language in bundle.languages)
    example = _EXAMPLES.get(lang, "<mask> .")
    several = len(bundle.languages) > 1
    if bundle.causal:
        yield _USE_CAUSAL.format(folder=f"{name}/{lang}" if several else name, example=example.partition(" <mask>")[0])
        if several:
            yield ""
            yield f"{subfolders} hold the model for text in one language each; the folder itself needs `langs`."
        return
    yield (_USE if several else _USE_ONE).format(name=name, lang=lang, example=example, subfolders=subfolders)
    if several:
        ids = ", ".join(f"{language} = {i}" for i, language in enumerate(bundle.languages))
        yield ""
        yield (
            f"Language ids: {ids}. `fill_mask.py` has a pipeline that passes them: "
            f'`XLMFillMask.from_pretrained("{name}", "{lang}")("{example}")`. The tokenizer in the folder itself has '
            f"the rules of {bundle.languages[0]}, those in the subfolders the rules of their language."
        )


def _text(bundle: PretrainedBundle, report: ParityReport) -> Iterator[str]:
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
        f"the export, ids were compared with those of training on {compared}: the same; logits differ by at most "
        f"{report.difference:.1e}."
    )


def _data(bundle: PretrainedBundle) -> Iterator[str]:
    trained = {name: size for name, size in bundle.provenance.corpora.items() if name.startswith("train.")}
    if not trained:
        yield "Not recorded."
        return
    yield "| corpus | sentences | tokens |"
    yield "| --- | ---: | ---: |"
    for name, size in trained.items():
        yield f"| {name.removeprefix('train.')} | {size['sentences']:,} | {size['tokens']:,} |"


def _recipe(bundle: PretrainedBundle) -> Iterator[str]:
    settings = bundle.provenance.settings
    found = [f"{s}.{k}={settings[s][k]}" for s, keys in _RECIPE.items() for k in keys if k in settings.get(s, {})]
    yield f"`{' '.join(found)}`" if found else "Not recorded."


def _evaluation(bundle: PretrainedBundle) -> Iterator[str]:
    perplexities = {name: value for name, value in bundle.provenance.metrics.items() if name.endswith("_ppl")}
    if not perplexities:
        yield "Not recorded."
        return
    yield "| validation set | perplexity | accuracy |"
    yield "| --- | ---: | ---: |"
    for name, value in perplexities.items():
        stem = name.removesuffix("_ppl")
        yield f"| {stem.removeprefix('valid/')} | {value:.2f} | {bundle.provenance.metrics[f'{stem}_acc']:.1f} % |"
