"""The model card (README.md) of an exported model."""

from __future__ import annotations

import json
from collections.abc import Mapping

from xlmtrain.config.families import Family
from xlmtrain.config.phases import given
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.metrics.table import format_table, two_decimals

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
_PIPELINE = """`fill_mask.py` has a pipeline that passes the language and takes words as `targets`:
`XLMFillMask.from_pretrained("{name}", "{lang}")("{example}", targets=[...])`. For transformers' own, `targets` are
entries of the vocabulary: `Haus</w>` is the word, `Haus` the beginning of longer words, shown as `Haus@@`."""
EXAMPLES = {"de": "Die Katze <mask> auf dem Sofa.", "en": "The cat is <mask> on the sofa."}
_RECIPE = {
    "data": ("mlm", "tlm", "clm", "sampling_alpha", "sequence_length"),
    "mask": ("prob", "mask_token_prob", "random_token_prob", "inverse_frequency_exponent"),
    "optim": ("lr", "schedule", "warmup_steps", "beta1", "beta2", "weight_decay"),
    "train": ("steps", "batch_tokens", "precision"),
}


def model_card(bundle: PretrainedBundle, name: str, sentences: Mapping[str, int], difference: float) -> str:
    """Return the model card in Markdown: model, usage, text processing, training data, recipe and evaluation.

    ``sentences``: language -> how many were compared with transformers' ids; ``difference``: the largest of two logits.
    """
    sections = {
        "Use": _use(bundle, name),
        "Text": _text(bundle, sentences, difference),
    }
    return "\n\n".join([_introduction(bundle, name), *_bodies(sections), training_sections(bundle.provenance)]) + "\n"


def training_sections(origin: Provenance) -> str:
    """Return the sections on the data, the recipe and the evaluation of the training."""
    return "\n\n".join(_bodies({"Data": _data(origin), "Recipe": _recipe(origin), "Evaluation": _evaluation(origin)}))


def _bodies(sections: Mapping[str, str]) -> list[str]:
    return [f"## {title}\n\n{body}" for title, body in sections.items()]


def _introduction(bundle: PretrainedBundle, name: str) -> str:
    config = bundle.config
    parameters = sum(weight.numel() for weight in bundle.weights.values())
    origin = "XLM, Lample & Conneau 2019" if config.family is Family.xlm else config.family.value
    tag = "" if bundle.causal else "pipeline_tag: fill-mask\n"
    return (
        f"---\nlanguage: [{', '.join(bundle.languages)}]\nlibrary_name: transformers\n{tag}---\n# {name}\n\n"
        f"A {'causal' if bundle.causal else 'masked'} language model of {' and '.join(bundle.languages)} ({origin}): "
        f"{config.layers} layers of {config.dim} units, {config.heads} heads, {parameters:,} parameters, "
        f"vocabulary {len(bundle.vocab):,}, up to {config.max_positions} tokens. Pretrained for "
        f"{bundle.provenance.step:,} steps with xlmtrain."
    )


def _use(bundle: PretrainedBundle, name: str) -> str:
    lang = next((language for language in bundle.languages if language in EXAMPLES), bundle.languages[0])
    subfolders = ", ".join(f"{name}/{language}" for language in bundle.languages)
    example = EXAMPLES.get(lang, "<mask> .")
    several = len(bundle.languages) > 1
    if bundle.config.family is not Family.xlm:
        divided = several and (bundle.codes or bundle.config.language_embeddings)
        note = f"\n\n{subfolders} hold the model for text in one language each." if divided else ""
        return _USE_ONE.format(name=f"{name}/{lang}" if divided else name, example=example) + note
    if bundle.causal:
        code = _USE_CAUSAL.format(folder=f"{name}/{lang}" if several else name, example=example.partition(" <mask>")[0])
        note = f"{subfolders} hold the model for text in one language each; the folder itself needs `langs`."
        return f"{code}\n\n{note}" if several else code
    code = (_USE if several else _USE_ONE).format(name=name, lang=lang, example=example, subfolders=subfolders)
    parts = [code, *[_PIPELINE.format(name=name, lang=lang, example=example)] * bundle.reads_text]
    if several:
        ids = ", ".join(f"{language} = {i}" for i, language in enumerate(bundle.languages))
        rules = (
            f" The tokenizer in the folder itself has the rules of {bundle.languages[0]}, those in the subfolders the "
            "rules of their language."
        )
        parts.append(f"Language ids: {ids}.{rules if bundle.codes else ''}")
    return "\n\n".join(parts)


def _text(bundle: PretrainedBundle, sentences: Mapping[str, int], difference: float) -> str:
    if not bundle.reads_text:
        return (
            "There is no tokenizer: the BPE codes were not known. Logits differ from the original model's by at most "
            f"{difference:.1e}."
        )
    case = "lower-cased" if bundle.text.lowercase else "cased"
    accents = "accents stripped" if bundle.text.remove_accents else "accents and umlauts kept"
    compared = ", ".join(f"{count:,} sentences of {language}" for language, count in sentences.items())
    if not bundle.codes:
        return (
            "Raw text goes in: the tokenizer is that of training. Before the export, ids were compared with those of "
            f"training on {compared}: the same; logits differ by at most {difference:.1e}."
        )
    return (
        f"Raw text goes in: the tokenizer normalizes punctuation, applies Moses' rules and {len(bundle.codes):,} BPE "
        f"codes as in training: {case}, {accents}. A sentence is `</s> ... </s>`, as the model was trained. Before "
        f"the export, ids were compared with those of training on {compared}: the same; logits differ by at most "
        f"{difference:.1e}. The rules look at a word's neighbours: pass words that are split already as one line, "
        '`" ".join(words)`, and find them again by `return_offsets_mapping=True`; `is_split_into_words=True` takes a '
        "word for a whole line and splits `3.` and `Dr.`."
    )


def _data(origin: Provenance) -> str:
    rows = [
        (name.removeprefix("train."), f"{size['sentences']:,}", f"{size['tokens']:,}")
        for name, size in origin.corpora.items()
        if name.startswith("train.")
    ]
    return format_table(rows, ("corpus", "sentences", "tokens"), "markdown") if rows else "Not recorded."


def _recipe(origin: Provenance) -> str:
    settings = origin.settings
    found = [f"{s}.{k}={settings[s][k]}" for s, keys in _RECIPE.items() for k in keys if k in settings.get(s, {})]
    found += [f"phases[{i}]={json.dumps(given(phase))}" for i, phase in enumerate(settings.get("phases", []))]
    return f"`{' '.join(found)}`" if found else "Not recorded."


def _evaluation(origin: Provenance) -> str:
    metrics = origin.metrics
    names = [name.removesuffix("_ppl") for name in metrics if name.endswith("_ppl")]
    rows = [
        (name.removeprefix("valid/"), two_decimals(metrics[f"{name}_ppl"]), f"{metrics[f'{name}_acc']:.1f} %")
        for name in names
    ]
    return format_table(rows, ("validation set", "perplexity", "accuracy"), "markdown") if rows else "Not recorded."
