"""Settings of data preparation (``xlmtrain prepare``); ``configs/prepare.yaml`` composes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from xlmtrain.config.validate import ABOVE_ZERO, NOT_NEGATIVE, SHARE, CheckedSettings, ranged

_LANGUAGE = re.compile("[A-Za-z_]+")


@dataclass
class SplitConfig:
    """The raw text files of one split: one sentence a line, UTF-8, or tables (see ``columns``). Paths are patterns as
    in a shell (``*``, ``?``, ``[a-s]``, ``**``, ``{a,b}``); files compressed with gzip, bzip2, xz, lzma or Zstandard
    are read in place; a directory saved by ``datasets`` is one of its splits."""

    mono: dict[str, list[str]] = field(default_factory=dict)
    """Language -> monolingual files, e.g. ``{en: [news/*.en.xz], de: [news/*.de.xz]}``."""

    pairs: dict[str, list[str]] = field(default_factory=dict)
    """Pair -> aligned files, ``{lang}`` standing for either language, e.g. ``{de-en: ["wmt/*.{lang}.gz"]}``, or tables
    with a column for each, e.g. ``{de-en: [wmt/*.parquet]}``."""

    def problems(self) -> Iterator[str]:
        """Yield the names that cannot become parts of file names."""
        for kind, texts in (("mono", self.mono), ("pairs", self.pairs)):
            yield from (f"{kind}.{key}: has no file; give one, or remove it" for key in texts if not texts[key])
        for language in self.mono:
            if not _LANGUAGE.fullmatch(language):
                yield f"mono.{language}: a language is named by letters and underscores, like de"
        for pair in self.pairs:
            first, _, second = pair.partition("-")
            if not (_LANGUAGE.fullmatch(first) and _LANGUAGE.fullmatch(second) and first < second):
                yield f"pairs.{pair}: a pair is two languages in alphabetical order, like de-en"


@dataclass
class TextConfig:
    """Tokenization. The defaults are those of the released en-de model: cased, with accents."""

    lowercase: bool = False
    """Lower-case the tokens."""

    remove_accents: bool = False
    """Strip accents; in German this turns ä, ö, ü into a, o, u."""

    normalize_unicode: bool = False
    """Compose letters and their accents (NFC), and remove soft hyphens, joiners and marks of direction, which would
    split words. On for new data; off for data and models made without it, such as those of the original XLM."""

    max_tokens: int = ranged(0, NOT_NEGATIVE)
    """Drop lines of more tokens before BPE than this, a pair if either side is longer; 0 keeps every line. With a
    tokenizer, its tokens count."""


class OnError(str, Enum):
    """Reaction to faulty text."""

    stop = "stop"
    drop = "drop"


@dataclass
class CleanConfig:
    """Filters; the report counts the lines that each drops. Of a pair, both sides are dropped."""

    invalid_utf8: OnError = OnError.stop
    """A line that is not UTF-8: stop and name it, or drop it."""

    max_chars: int = ranged(1000000, NOT_NEGATIVE)
    """Drop lines of more characters than this; 0 keeps every line, and lets memory grow with the longest."""

    misaligned: OnError = OnError.stop
    """Misaligned sides of a pair: unequal numbers of lines, lengths that match when one side is shifted by some lines,
    or each side in the other's language (German and English). Stop and name the first such line, or drop these lines.
    Some hundred lines are checked together, so a single wrong pair is not found."""

    decontaminate: bool = True
    """Drop training lines that are also in the validation or test text (any of the same language), and pairs with such
    a side."""

    drop_duplicates: bool = False
    """Drop training lines that occurred before in the same corpus; pairs if both sides are the same as before."""

    drop_identical: bool = False
    """Drop pairs whose sides are the same text."""

    max_length_ratio: float = ranged(0.0, NOT_NEGATIVE)
    """Drop pairs of which one side has more than this many times the other's characters; 0 keeps every pair. 9 leaves
    out what Moses' clean-corpus does; 3 is strict."""

    min_latin_fraction: float = ranged(0.0, SHARE)
    """Drop lines in which less than this share of the letters is Latin, 0.5 for example; 0 keeps every line."""

    langid_confidence: float = ranged(0.0, SHARE)
    """Drop lines that py3langid (``pip install py3langid``) takes for another language with at least this confidence,
    0.9 for example; 0 keeps every line."""


class Unit(str, Enum):
    """Unit of the size of a text."""

    sentences = "sentences"
    bytes = "bytes"


@dataclass
class BpeConfig:
    """Byte-pair encoding with one set of codes for all languages."""

    codes: str | None = None
    """A file of codes in fastBPE's format to use as it is; null learns them from the training text."""

    merges: int = 60000
    """Number of codes to learn."""

    train_sample: int = ranged(10000000, NOT_NEGATIVE)
    """Learn from about this much text, sampled evenly from the training text, each language's share being its size to
    the power of sampling_alpha; 0 learns from all."""

    train_sample_unit: Unit = Unit.sentences
    """Unit of bpe.train_sample and of the size of a language; a pair's bytes count half for each of its languages."""

    max_word_types: int = ranged(3000000, ABOVE_ZERO)
    """Learn from at most this many distinct words, the most frequent; about 250 bytes of memory each."""

    sampling_alpha: float = ranged(0.5, SHARE)
    """Weight of a language in learning: its share of the words to this power. 1 takes the text as it is, 0 weights all
    languages equally."""


@dataclass
class VocabConfig:
    """The vocabulary: 14 special symbols, then subwords by falling count."""

    file: str | None = None
    """A vocabulary in fastBPE's format to use as it is; null counts one over the training text."""

    max_size: int = ranged(0, NOT_NEGATIVE)
    """Keep at most this many entries, special symbols included, so more than 14; 0 keeps all."""

    min_count: int = ranged(0, NOT_NEGATIVE)
    """Drop subwords that occur less often than this."""

    def problems(self) -> Iterator[str]:
        if 0 < self.max_size <= 14:
            yield f"max_size: {self.max_size} leaves no entry beside the 14 special symbols"


class TokenizerModel(str, Enum):
    """Kind of a new tokenizer: BPE of bytes, or a unigram model."""

    bpe = "bpe"
    unigram = "unigram"


@dataclass
class NewTokenizerConfig:
    """A tokenizer that Hugging Face's ``tokenizers`` library trains on the training text, and uses in place of Moses'
    rules, BPE codes and vocabulary. ``bpe.train_sample``, ``train_sample_unit`` and ``sampling_alpha`` choose the
    text."""

    model: TokenizerModel | None = None
    """Kind of the tokenizer: bpe (of bytes, so that no text is unknown) or unigram, whose scores differ in the last
    digits when it is trained again; null trains none."""

    size: int = ranged(32000, ABOVE_ZERO)
    """Number of entries, the five special tokens included."""


class Executor(str, Enum):
    """Executor of the sharded stages."""

    local = "local"
    ray = "ray"
    slurm = "slurm"


@dataclass
class PrepareConfig(CheckedSettings):
    """Raw text in, ids out."""

    output: str = "???"
    """Directory to create. It appears only when everything in it is complete."""

    train: SplitConfig = field(default_factory=SplitConfig)
    """Training text."""

    valid: SplitConfig = field(default_factory=SplitConfig)
    """Validation text."""

    test: SplitConfig = field(default_factory=SplitConfig)
    """Test text, never read in training."""

    columns: dict[str, str] = field(default_factory=dict)
    """Columns of the text in tables (JSON lines, TSV, CSV, TMX, Parquet, Arrow): of each language in a table of pairs,
    by default the language itself; ``text`` in a table of one language, by default ``text`` or else the language. Dots
    lead into nested columns; a number, from 1, is a column of a TSV or CSV without a header; in TMX a column is a
    language code. E.g. ``{de: translation.de, en: translation.en}``."""

    documents: bool = False
    """Keep the borders of the documents in monolingual text: a blank line ends one, as do the end of a file and that of
    a row of a table. Training then reads pieces of one document, unless ``data.across_documents`` is set."""

    text: TextConfig = field(default_factory=lambda: TextConfig(normalize_unicode=True))
    """Normalization and tokenization."""

    tokenizer: str | None = None
    """A ``tokenizer.json`` of Hugging Face's ``tokenizers`` library, a sentencepiece ``.model``, or a folder with one
    of them, to use as it is in place of Moses' rules, BPE codes and vocabulary."""

    extend_tokenizer: int = ranged(0, NOT_NEGATIVE)
    """Add up to this many entries to ``tokenizer``: pieces that are most often neighbours in the training text, merged.
    Its own entries keep their ids, and ``init.pretrained`` begins a new one at the mean of its pieces.
    ``bpe.train_sample``, ``train_sample_unit`` and ``sampling_alpha`` choose the text."""

    new_tokenizer: NewTokenizerConfig = field(default_factory=NewTokenizerConfig)
    """A tokenizer to train."""

    bpe: BpeConfig = field(default_factory=BpeConfig)
    """Subwords."""

    vocab: VocabConfig = field(default_factory=VocabConfig)
    """Vocabulary."""

    clean: CleanConfig = field(default_factory=CleanConfig)
    """Cleaning."""

    shard_mb: int = ranged(16, ABOVE_ZERO)
    """Megabytes of raw text in a shard, the unit of work that is repeated after an interruption."""

    executor: Executor = Executor.local
    """Where shards are processed: processes of this machine, a Ray cluster (``pip install ray``; the one of
    RAY_ADDRESS, else one started here), or array jobs of Slurm. Other machines need the same version, the raw text
    and the output on storage that all share."""

    workers: int = ranged(0, NOT_NEGATIVE)
    """Shards to process in parallel: processes, or array tasks of Slurm; 0 takes every core of this machine, of the Ray
    cluster, or 100 array tasks. The output does not depend on it."""

    slurm_options: list[str] = field(default_factory=list)
    """Options of sbatch, e.g. ``["--partition=cpu", "--time=4:00:00"]``."""

    overwrite: bool = False
    """Replace an output directory that exists."""

    @property
    def has_tokenizer(self) -> bool:
        """True if a tokenizer, given or new, takes the place of Moses' rules, BPE codes and vocabulary."""
        return self.tokenizer is not None or self.new_tokenizer.model is not None

    def problems(self) -> Iterator[str]:
        if not self.train.mono and not self.train.pairs:
            yield "train: no text; give train.mono and/or train.pairs"
        texts = [text for split in (self.train, self.valid, self.test) for text in (*split.mono, *split.pairs)]
        for name in self.columns.keys() - {"text"}.union(*(text.split("-") for text in texts)):
            yield f"columns.{name}: there is no text in this language; give a language, or 'text'"
        if self.bpe.codes is None and self.bpe.merges < 1:
            yield f"bpe.merges: {self.bpe.merges} is not above 0"
        if self.vocab.file is not None and self.bpe.codes is None:
            yield "vocab.file: a given vocabulary needs the codes it was counted with; give bpe.codes too"
        if self.tokenizer is not None and self.new_tokenizer != NewTokenizerConfig():
            yield "new_tokenizer: trains a tokenizer, but tokenizer=... is given; leave one of them out"
        if self.extend_tokenizer and self.tokenizer is None:
            yield "extend_tokenizer: give the tokenizer to extend, tokenizer=..."
        if self.has_tokenizer:
            yield from self._without_effect()
        elif self.new_tokenizer.size != NewTokenizerConfig().size:
            yield "new_tokenizer.size: give new_tokenizer.model too, bpe or unigram"

    def _without_effect(self) -> Iterator[str]:
        """Yield settings of Moses' rules, BPE codes and vocabulary that a tokenizer makes idle."""
        chosen = "tokenizer" if self.tokenizer is not None else "new_tokenizer"
        is_fixed = self.tokenizer is not None and not self.extend_tokenizer
        sample = () if is_fixed else ("train_sample", "train_sample_unit", "sampling_alpha")
        defaults = {"text": TextConfig(normalize_unicode=True), "bpe": BpeConfig(), "vocab": VocabConfig()}
        for section, default in defaults.items():
            for key, value in vars(getattr(self, section)).items():
                if value != getattr(default, key) and key not in ("max_tokens", *sample):
                    usual = getattr(default, key)
                    usual = "null" if usual is None else getattr(usual, "value", usual)
                    advice = f"leave it out, or if a corpus sets it, give {section}.{key}={usual}, the default"
                    yield f"{section}.{key}: has no effect with {chosen}; {advice}"


def with_paths_from(directory: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with relative paths made relative to ``directory``."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [moved(inner) for inner in value]
        is_path = isinstance(value, str) and value.strip() and not value.startswith(("~", "${", "???"))
        return str(directory / value) if is_path else value

    found = {
        key: moved(value) if key in ("output", "train", "valid", "test", "tokenizer") else value
        for key, value in settings.items()
    }
    for section, key in (("bpe", "codes"), ("vocab", "file")):
        if isinstance(found.get(section), dict) and key in found[section]:
            found[section] = {**found[section], key: moved(found[section][key])}
    return found
