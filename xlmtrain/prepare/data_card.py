"""The data card (README.md) of prepared text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xlmtrain.data.format import Header, corpus_name
from xlmtrain.download.catalogue import NOT_KNOWN, licences_of
from xlmtrain.errors import ConfigError
from xlmtrain.metrics.table import format_table
from xlmtrain.prepare.statistics import Statistics
from xlmtrain.text.filters import REASONS
from xlmtrain.text.tokenizer_json import SPECIAL_TOKENS

try:
    import huggingface_hub
except ImportError:
    huggingface_hub = None  # type: ignore[assignment]

_USE = """Pretraining of language models with xlmtrain, which reads the ids; `xlmtrain show-data` shows them. Splits
are as they were given to `xlmtrain prepare`. Whoever passes the data on needs the right to do so: see the licences
below."""
_PERSONAL = """xlmtrain neither searched the text for names, addresses or other personal data, nor dropped or changed
lines for them. Text of newspapers, parliaments, subtitles and the web names people. Ids are no protection: with the
vocabulary they are the text."""
_LIMITS = """xlmtrain did not examine the text for bias, insults or errors of fact, and it speaks for those who wrote
it alone. Only the cleaning in the table was done; lines that only resemble each other, or the validation text, are
kept."""


def data_card(
    name: str, header: Header, statistics: Statistics | None, warnings: Iterable[str], given: Mapping[str, str]
) -> str:
    """Return the data card in Markdown, with the metadata that the Hugging Face Hub reads.

    ``warnings``: of the checks of the data. ``given``: pattern of names of raw files -> licence. Raises ConfigError
    without huggingface_hub.
    """
    if huggingface_hub is None:
        raise ConfigError("card: needs the huggingface_hub package; install it with: pip install 'xlmtrain[hf]'")
    creation = {
        "Source Data": _sources(header, statistics, given),
        "Data Processing": _processing(statistics),
        "Checks": "\n".join(f"- {line}" for line in warnings) or "xlmtrain's checks of prepared data found nothing.",
        "Personal and Sensitive Information": _PERSONAL,
    }
    sections = {
        "Dataset Details": _details(header, statistics),
        "Uses": _USE,
        "Dataset Structure": _structure(header),
        "Dataset Creation": "\n\n".join(f"### {title}\n\n{body}" for title, body in creation.items()),
        "Bias, Risks, and Limitations": _LIMITS,
        "Dataset Card Authors": "This card was written by `xlmtrain show-data` from the records of the preparation.",
    }
    bodies = [f"## {title}\n\n{body}" for title, body in sections.items()]
    return "\n\n".join([f"---\n{_metadata(name, header)}\n---\n# {name}", *bodies]) + "\n"


def _metadata(name: str, header: Header) -> str:
    sentences = sum(corpus.sentences for corpus in header.corpora.values())
    low = 10 ** min(len(str(sentences)) - 1, 12)
    kinds = ["multilingual" if len(header.languages) > 1 else "monolingual"]
    return huggingface_hub.DatasetCardData(
        language=header.languages,
        multilinguality=kinds + ["translation"] * any(key.count(".") > 1 for key in header.corpora),
        size_categories=f"{_short(low)}<n<{_short(10 * low)}" if low >= 1000 else "n<1K",
        task_categories=["fill-mask"],
        tags=["xlmtrain"],
        pretty_name=name,
    ).to_yaml()


def _short(power: int) -> str:
    """Return a power of ten of at least 1000 as the Hub writes it: 10K, 1M, 100B."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if power >= size:
            return f"{power // size}{letter}"
    return f"{power // 1000}K"


def _details(header: Header, statistics: Statistics | None) -> str:
    codes = f"Moses' rules and {statistics.codes:,} BPE codes" if statistics is not None else "BPE codes"
    tokenizer = "a tokenizer.json" if SPECIAL_TOKENS in header.text else codes
    settings = ", ".join(f"{key}={value}" for key, value in header.text.items() if key != SPECIAL_TOKENS)
    items = {
        "Curated by": NOT_KNOWN,
        "Language(s)": ", ".join(header.languages),
        "License": "that of each source, below",
        "Tokenizer": f"{tokenizer}, vocabulary of {header.vocab_size:,}",
        "Normalization": settings or "none",
        "Fingerprint": f"`{header.fingerprint}`",
    }
    return "\n".join(f"- **{title}:** {text}" for title, text in items.items())


def _structure(header: Header) -> str:
    rows = [(name, f"{corpus.sentences:,}", f"{corpus.tokens:,}") for name, corpus in header.corpora.items()]
    note = "Sentence *i* of `train.de-en.de` translates sentence *i* of `train.de-en.en`. Ends of sentences are tokens."
    return f"{format_table(rows, ('corpus', 'sentences', 'tokens'), 'markdown')}\n\n{note}"


def _sources(header: Header, statistics: Statistics | None, given: Mapping[str, str]) -> str:
    files = [(name, file) for name, corpus in header.corpora.items() for file in corpus.sources]
    licences = licences_of({file for _, file in files}, given)
    lines: dict[tuple[str, str], tuple[str, str]] = {}
    for counts in statistics.files if statistics is not None else ():
        name = corpus_name(counts.split, counts.language, counts.pair)
        lines[name, counts.file] = (f"{counts.lines:,}", f"{counts.sentences:,}")
    rows = [(name, file, *lines.get((name, file), ("", "")), licences[file]) for name, file in files]
    return format_table(rows, ("corpus", "raw file", "lines", "kept", "licence"), "markdown", left=(0, 1, 4))


def _processing(statistics: Statistics | None) -> str:
    if statistics is None:
        return "Not recorded: the data was not made by xlmtrain prepare."
    totals = statistics.totals()
    reasons = [reason for reason in REASONS if any(total.dropped[reason] for total in totals)]
    rows = [
        (row.file, *(f"{n:,}" for n in (row.lines, *(row.dropped[reason] for reason in reasons), row.sentences)))
        for row in totals
    ]
    text = (
        "Lines, those that each setting of cleaning dropped, in the order of the steps, and the sentences that are "
        "left. Settings that dropped nothing have no column. Of a pair, both sides are dropped."
    )
    return f"{text}\n\n{format_table(rows, ('corpus', 'lines', *reasons, 'sentences'), 'markdown')}"
