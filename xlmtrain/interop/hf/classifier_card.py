"""The model card (README.md) of an exported fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping

from xlmtrain.config.families import Family
from xlmtrain.config.finetune import TaskKind
from xlmtrain.interop.bundle import FinetunedBundle
from xlmtrain.interop.hf.class_names import class_name
from xlmtrain.interop.hf.classifier_config import head_of
from xlmtrain.metrics.table import format_table

_USE = """```python
from transformers import pipeline

predict = pipeline("{task}", model="{folder}"{options})
print(predict("{example}"))
```"""
_OPTIONS = {
    TaskKind.classification: "",
    TaskKind.regression: "",
    TaskKind.multilabel: ", top_k=None",
    TaskKind.tokens: ', aggregation_strategy="simple"',
}
_EXAMPLES = {"de": "Wie wird das Wetter morgen in Berlin?", "en": "What is the weather in London tomorrow?"}


def classifier_card(bundle: FinetunedBundle, name: str, sentences: Mapping[str, int], difference: float) -> str:
    """Return the model card in Markdown; arguments as those of :func:`xlmtrain.interop.hf.card.model_card`."""
    task = "token-classification" if bundle.kind is TaskKind.tokens else "text-classification"
    title = class_name(bundle.config.family, head_of(bundle))
    labels = ", ".join(f"`{label}`" for label in bundle.labels) or "a number"
    rows = [(key.removeprefix("test/"), f"{value:.1f}") for key, value in bundle.provenance.metrics.items()]
    several = len(bundle.languages) > 1 and (bool(bundle.codes) or bundle.config.language_embeddings)
    lang = next((language for language in bundle.languages if language in _EXAMPLES), bundle.languages[0])
    code = _USE.format(
        task=task,
        folder=f"{name}/{lang}" if several else name,
        options=_OPTIONS[bundle.kind],
        example=_EXAMPLES.get(lang, "..."),
    )
    folders = ", ".join(f"`{name}/{language}`" for language in bundle.languages)
    note = f"\n\n{folders} hold the model for text in one language each." if several else ""
    if several and bundle.config.family is Family.xlm:
        note += " The folder itself needs the language of each token, as `langs` (ids: `config.lang2id`)."
    if bundle.kind is TaskKind.tokens:
        note += (
            ' The label of a word is that of its first subword; `aggregation_strategy="simple"` joins neighbouring '
            "subwords of one label."
        )
    compared = ", ".join(f"{count:,} texts of {language}" for language, count in sentences.items())
    parts = [
        f"---\nlanguage: [{', '.join(bundle.languages)}]\nlibrary_name: transformers\npipeline_tag: {task}\n---",
        f"# {name}",
        f"A fine-tuned `{title}`, made with xlmtrain. It predicts: {labels}. Texts were cut to {bundle.max_tokens} "
        "subwords in training.",
        f"## Use\n\n{code}{note}",
        f"## Evaluation\n\n{format_table(rows, ('test', '%'), 'markdown') if rows else 'Not recorded.'}",
        f"Before the export, ids were compared with those of training on {compared}: the same; logits of padded "
        f"batches differ by at most {difference:.1e}.",
    ]
    return "\n\n".join(parts) + "\n"
