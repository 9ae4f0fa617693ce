"""Segmentation of the text into subwords: by Moses' rules and BPE codes, or by a tokenizer, and the vocabulary of it.

The stages here run in the main process, once for all shards; the words of each language are counted by workers.
:func:`make_segmentation` chooses one of the two kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xlmtrain.config.prepare import CleanConfig, PrepareConfig, Unit
from xlmtrain.prepare import global_stages
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.scheduler import Scheduler
from xlmtrain.prepare.shard_raw import Shard
from xlmtrain.prepare.tokenize_stage import IdTokenizer
from xlmtrain.prepare.tokenizer_artifact import copy_tokenizer, extend_tokenizer, train_tokenizer
from xlmtrain.prepare.word_counts import sample_rates
from xlmtrain.runtime.atomic_io import sha256_of
from xlmtrain.text.bpe import read_codes
from xlmtrain.text.filters import LINE_SETTINGS
from xlmtrain.text.tokenizer import has_rules
from xlmtrain.text.tokenizer_extension import check_extensible
from xlmtrain.text.tokenizer_json import read_tokenizer, require_tokenizers
from xlmtrain.text.vocab import Vocab

ShardTasks = dict[Shard, BuildTask]
"""The task that was run for each shard."""


def check_given_files(config: PrepareConfig) -> None:
    """Raise DataError if a tokenizer, codes or a vocabulary of the settings cannot be used."""
    if config.has_tokenizer:
        require_tokenizers()
    if config.tokenizer is not None:
        given = read_tokenizer(Path(config.tokenizer))
        IdTokenizer(given)
        if config.extend_tokenizer:
            check_extensible(given)
    if config.bpe.codes is not None:
        read_codes(config.bpe.codes)
    if config.vocab.file is not None:
        Vocab.read(config.vocab.file, config.vocab.max_size, config.vocab.min_count)


def make_segmentation(
    config: PrepareConfig, store: ArtifactStore, scheduler: Scheduler, notes: list[str]
) -> Segmentation:
    """Return the segmentation that the settings describe; ``notes``: remarks for the user, to which it adds."""
    return (TokenizerSegmentation if config.has_tokenizer else BpeSegmentation)(config, store, scheduler, notes)


class Segmentation(ABC):
    """The stages that decide how text is split. ``units``: stage -> key of an artifact that the ids depend on."""

    def __init__(self, config: PrepareConfig, store: ArtifactStore, scheduler: Scheduler, notes: list[str]) -> None:
        self.config, self.store, self.scheduler, self.notes = config, store, scheduler, notes
        self.units: dict[str, str] = {}

    @abstractmethod
    def before_tokenization(self, shards: Sequence[Shard], languages: Sequence[str]) -> dict[str, float]:
        """Return the fraction of each language's training text whose words are to be counted for BPE."""

    @abstractmethod
    def after_selection(self, tokens: ShardTasks) -> None:
        """Make what the shards are encoded with; ``tokens``: the tasks that selected their lines."""

    @abstractmethod
    def make_vocab(self, encoded: ShardTasks) -> str:
        """Return the key of the vocabulary, counted over the encoded training text or given."""

    @abstractmethod
    def text_settings(self) -> dict[str, Any]:
        """Return the text settings of the header, for a tokenizer with its ``size``."""

    def _sample_rates(self, shards: Sequence[Shard], languages: Sequence[str]) -> dict[str, float]:
        """Return the fraction of each language's training text to learn from."""
        settings, sizes = self.config.bpe, dict.fromkeys(languages, 0)
        in_bytes = settings.train_sample_unit is Unit.bytes
        for shard in shards:
            for language in shard.text.languages if shard.is_train else ():
                sizes[language] += shard.bytes // len(shard.text.languages) if in_bytes else shard.lines
        return sample_rates(sizes, settings.train_sample, settings.sampling_alpha)


class BpeSegmentation(Segmentation):
    """Tokens by Moses' rules, split by BPE codes."""

    def before_tokenization(self, shards: Sequence[Shard], languages: Sequence[str]) -> dict[str, float]:
        self.notes += [
            f"language {language}: Moses' tokenizer has no rules for it, the English ones were used"
            for language in languages
            if not has_rules(language)
        ]
        self._rates = self._sample_rates(shards, languages)
        return self._rates

    def after_selection(self, tokens: ShardTasks) -> None:
        self.units["codes"] = self._make_codes(tokens)
        vocab, codes = self.config.vocab, self.units["codes"]
        if vocab.file is not None:
            task = BuildTask("subwords", _given_file(vocab.file))
            self.units["subwords"] = self.scheduler.run_here(global_stages.copy_subwords, task)
        else:
            task = BuildTask("subwords", {"codes": codes, "tokens": train_keys(tokens)})
            self.units["subwords"] = self.scheduler.run_here(global_stages.list_subwords, task)

    def _make_codes(self, tokens: ShardTasks) -> str:
        """Copy the given codes, or learn them."""
        settings = self.config.bpe
        if settings.codes is not None:
            return self.scheduler.run_here(global_stages.copy_codes, BuildTask("codes", _given_file(settings.codes)))
        arguments = {
            "words": self._count_words(tokens),
            "rates": self._rates,
            **{name: getattr(settings, name) for name in ("sampling_alpha", "merges", "max_word_types")},
        }
        key = self.scheduler.run_here(global_stages.learn_codes, BuildTask("codes", arguments))
        result = self.store.result("codes", key)
        if result["codes"] < settings.merges:
            self.notes.append(
                f"only {result['codes']} codes learned, not bpe.merges={settings.merges}: every word is one symbol now"
            )
        if result["least"] > 1:
            self.notes.append(
                f"codes learned from the {result['words']:,} words that were counted {result['least']} times or more "
                f"(bpe.max_word_types={settings.max_word_types:,})"
            )
        return key

    def _count_words(self, tokens: ShardTasks) -> dict[str, str]:
        """Return for each language the key of its word counts."""
        tasks = {}
        for language in self._rates:
            own = [shard for shard in tokens if shard.is_train and language in shard.text.languages]
            shards = [[tokens[shard].key, shard.text.languages] for shard in own]
            size = sum(shard.bytes for shard in own)
            tasks[language] = BuildTask("words", {"shards": shards, "languages": [language]}, size)
        self.scheduler.run_sharded("words", tasks)
        return {language: task.key for language, task in tasks.items()}

    def make_vocab(self, encoded: ShardTasks) -> str:
        settings = self.config.vocab
        arguments: dict[str, Any] = {
            "subwords": self.units["subwords"],
            "max_size": settings.max_size,
            "min_count": settings.min_count,
        }
        if settings.file is not None:
            return self.scheduler.run_here(global_stages.truncate_vocab, BuildTask("vocab", arguments))
        arguments["encoded"] = train_keys(encoded)
        return self.scheduler.run_here(global_stages.count_vocab, BuildTask("vocab", arguments))

    def text_settings(self) -> dict[str, Any]:
        return asdict(self.config.text)


class TokenizerSegmentation(Segmentation):
    """A tokenizer, given, extended or trained: its ids are the tokens from the start, and it brings its vocabulary."""

    def before_tokenization(self, shards: Sequence[Shard], languages: Sequence[str]) -> dict[str, float]:
        self.units["tokenizer"] = self._make_tokenizer(shards, languages)
        return dict.fromkeys(languages, 0.0)

    def _make_tokenizer(self, shards: Sequence[Shard], languages: Sequence[str]) -> str:
        """Copy the given tokenizer, extend it, or train one, on a sample of the training text."""
        path, new = self.config.tokenizer, self.config.new_tokenizer
        sample: dict[str, Any] = {
            "shards": [[shard.raw, shard.number, shard.text.languages] for shard in shards if shard.is_train],
            "rates": self._sample_rates(shards, languages),
            "clean": line_settings(self.config.clean),
        }
        if path is not None:
            given = {"path": path, "fingerprint": read_tokenizer(Path(path)).fingerprint}
            if not self.config.extend_tokenizer:
                return self.scheduler.run_here(copy_tokenizer, BuildTask("tokenizer", given))
            task = BuildTask("tokenizer", {**sample, **given, "entries": self.config.extend_tokenizer})
            return self.scheduler.run_here(extend_tokenizer, task)
        arguments = {**sample, "model": new.model, "size": new.size}
        key = self.scheduler.run_here(train_tokenizer, BuildTask("tokenizer", arguments))
        size = self.store.result("tokenizer", key)["size"]
        if size < new.size:
            self.notes.append(
                f"the tokenizer has {size:,} entries, not new_tokenizer.size: the text has no more pieces"
            )
        return key

    def after_selection(self, tokens: ShardTasks) -> None:
        """Do nothing: the shards hold ids already."""

    def make_vocab(self, encoded: ShardTasks) -> str:
        arguments = {**self.units, "encoded": train_keys(encoded)}
        return self.scheduler.run_here(global_stages.count_tokens, BuildTask("vocab", arguments))

    def text_settings(self) -> dict[str, Any]:
        return self.store.result("tokenizer", self.units["tokenizer"])


def line_settings(clean: CleanConfig) -> dict[str, Any]:
    """Return the settings that :func:`~xlmtrain.text.filters.line_checks` reads."""
    return {name: getattr(clean, name) for name in LINE_SETTINGS}


def train_keys(tasks: ShardTasks) -> list[str]:
    """Return the keys of the tasks of training text."""
    return [task.key for shard, task in tasks.items() if shard.is_train]


def _given_file(path: str) -> dict[str, Any]:
    return {"path": path, "sha256": sha256_of(Path(path))}
