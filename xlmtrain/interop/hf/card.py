"""The model card (README.md) of an exported model."""

from __future__ import annotations

import math
from collections.abc import Mapping

from xlmtrain.config.families import Family
from xlmtrain.download.catalogue import NOT_KNOWN
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.interop.hf.card_records import (
    CardFacts,
    data_section,
    environment_section,
    evaluation_section,
    grams,
    recipe_section,
    sets_of,
)

try:
    import huggingface_hub
except ImportError:
    huggingface_hub = None  # type: ignore[assignment]

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
_LANGUAGE_MODELS = """The model predicts words of a text from its other words, and gives vectors of sentences and words;
mostly it is the beginning of a training for a task, such as classification of texts or of their words."""
_OUT_OF_SCOPE = """It does not write texts or answer questions, and what it predicts is frequent in its training text,
which does not make it true. Decisions about people must not rest on it, and it must not be used to deceive or to harm
them. Text of other languages, of other domains, or normalized in another way was not tried."""
_LIMITS = """A language model repeats the views and the prejudices of its text, and can repeat what it holds of people.
xlmtrain cleans text by rules for lines (length, language, repetition) alone: it does not search for personal data,
insults or bias, neither in the text nor in the predictions. Examine both for your purpose before you use the model,
also for the groups of people that it will concern. The figures below hold for text like the validation text."""
_CITATION = """```bibtex
@inproceedings{conneau2019cross,
  title = {Cross-lingual Language Model Pretraining},
  author = {Conneau, Alexis and Lample, Guillaume},
  booktitle = {Advances in Neural Information Processing Systems 32},
  year = {2019}
}
@software{xlmtrain,
  title = {xlmtrain},
  author = {{The xlmtrain authors}}
}
```"""


def model_card(
    bundle: PretrainedBundle, name: str, sentences: Mapping[str, int], difference: float, facts: CardFacts
) -> str:
    """Return the model card in Markdown, with the metadata that the Hugging Face Hub reads.

    ``sentences``: language -> how many were compared with transformers' ids; ``difference``: the largest of two logits.
    """
    origin = bundle.provenance
    training = {
        "Training Data": data_section(origin, facts),
        "Preprocessing": _text(bundle, sentences, difference),
        "Training Hyperparameters": recipe_section(origin),
    }
    sections = {
        "Model Details": _details(bundle),
        "Uses": f"{_LANGUAGE_MODELS}\n\n### Out-of-Scope Use\n\n{_OUT_OF_SCOPE}",
        "Bias, Risks, and Limitations": _LIMITS,
        "How to Get Started with the Model": _use(bundle, name),
        "Training Details": "\n\n".join(f"### {title}\n\n{body}" for title, body in training.items()),
        "Evaluation": evaluation_section(origin, facts.seeds),
        "Environmental Impact": environment_section(origin, facts),
        "Citation": _CITATION,
        "Model Card Authors": "This card was written by `xlmtrain export` from the records of the training run.",
    }
    front = f"---\n{_metadata(bundle, name, facts)}\n---\n# {name}"
    return "\n\n".join([front, *_bodies(sections)]) + "\n"


def training_sections(origin: Provenance) -> str:
    """Return the sections on the data, the recipe and the evaluation of the training."""
    facts = CardFacts()
    sections = {
        "Data": data_section(origin, facts),
        "Recipe": recipe_section(origin),
        "Evaluation": evaluation_section(origin, facts.seeds),
    }
    return "\n\n".join(_bodies(sections))


def _bodies(sections: Mapping[str, str]) -> list[str]:
    return [f"## {title}\n\n{body}" for title, body in sections.items()]


def _metadata(bundle: PretrainedBundle, name: str, facts: CardFacts) -> str:
    """Return the metadata of the card as YAML."""
    origin, emitted = bundle.provenance, grams(bundle.provenance, facts)
    carbon = {
        "emissions": emitted,
        "source": "xlmtrain, from the energy of the run",
        "training_type": "pre-training",
        "geographical_location": facts.region,
        "hardware_used": ", ".join(dict.fromkeys(used.device for used in origin.energy)),
    }
    results = [
        huggingface_hub.EvalResult(
            task_type="text-generation" if bundle.causal else "fill-mask",
            dataset_type="validation-text",
            dataset_name=f"validation text, {metric}",
            dataset_config=metric,
            dataset_split="validation",
            metric_type=kind,
            metric_value=round(value, 4),
        )
        for metric, values in sets_of(origin.metrics).items()
        for kind, value in zip(("perplexity", "accuracy"), values)
        if math.isfinite(value)
    ]
    data = huggingface_hub.ModelCardData(
        language=bundle.languages,
        library_name="transformers",
        pipeline_tag=None if bundle.causal else "fill-mask",
        tags=["xlmtrain", bundle.config.family.value],
        model_name=name,
        eval_results=results or None,
        co2_eq_emissions=None if emitted is None else {key: value for key, value in carbon.items() if value},
    )
    return data.to_yaml()


def _details(bundle: PretrainedBundle) -> str:
    config = bundle.config
    parameters = sum(weight.numel() for weight in bundle.weights.values())
    languages = " and ".join(bundle.languages)
    items = {
        "Developed by": NOT_KNOWN,
        "Model type": f"A {'causal' if bundle.causal else 'masked'} language model of {languages}, family "
        f"{config.family.value}: {config.layers} layers of {config.dim} units, {config.heads} heads, {parameters:,} "
        f"parameters, vocabulary {len(bundle.vocab):,}, up to {config.max_positions} tokens",
        "Language(s)": ", ".join(bundle.languages),
        "License": f"{NOT_KNOWN}; those of the training data are below",
        "Training": f"{bundle.provenance.step:,} steps with xlmtrain",
        "Software": bundle.provenance.software or NOT_KNOWN,
        "Paper": "[Cross-lingual Language Model Pretraining](https://arxiv.org/abs/1901.07291)",
    }
    return "\n".join(f"- **{title}:** {text}" for title, text in items.items())


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
