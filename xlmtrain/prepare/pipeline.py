"""Prepare a corpus: raw text -> shards -> tokens -> codes -> subwords -> vocabulary -> ids on disk.

=============  ===================================================  ======================================
stage          result                                               an artifact is built from
=============  ===================================================  ======================================
``shard``      raw files, checked and split into shards             a file, or the two files of a pair
``tokenizer``  a tokenizer, given or trained (optional)             a file, or all training shards
``tokenize``   cleaned and tokenized lines                          a shard
``held_out``   digests of validation and test lines                 their shards
``duplicates`` lines that repeat an earlier one (optional)          the shards of a corpus
``select``     the lines that are not known already, word counts    a shard
``codes``      BPE codes, learned from the counts or given          all training shards
``subwords``   every subword that the codes can produce             codes, characters of the training shards
``encode``     tokens as numbers of these subwords, their counts    a shard
``vocab``      the vocabulary                                       all training shards
``assemble``   ids of a corpus, numbered by the vocabulary          the shards of a corpus
=============  ===================================================  ======================================

With a tokenizer of Hugging Face's library, tokens are its ids from the start: ``codes`` and ``subwords`` are left out,
``encode`` and ``assemble`` keep the ids, and ``vocab`` is their counts.

Artifacts stay in the work directory until the end (:mod:`xlmtrain.prepare.artifacts`), so an interrupted preparation is
resumed by the same command. The stages ``shard``, ``tokenize``, ``select``, ``encode`` and ``assemble`` run on workers
(:mod:`xlmtrain.prepare.scheduler`); the others are small. No stage holds more in memory than a shard, the words to
learn from (``bpe.max_word_types``), or the subwords. Ids get their final numbers while the shards of a corpus are
assembled to one file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from xlmtrain.config.prepare import PrepareConfig, Unit
from xlmtrain.data.format import corpus_name
from xlmtrain.errors import DataError
from xlmtrain.prepare import dedup, global_stages
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.output import check_output, open_store, publish, write_dataset
from xlmtrain.prepare.raw_files import RawText, find_texts, without_repeats
from xlmtrain.prepare.scheduler import Scheduler
from xlmtrain.prepare.shard_raw import shard_task
from xlmtrain.prepare.statistics import STATISTICS, FileStatistics, Statistics
from xlmtrain.prepare.tokenize_stage import LineEncoder
from xlmtrain.prepare.tokenizer_stage import copy_tokenizer, extend_tokenizer, train_tokenizer
from xlmtrain.prepare.word_counts import sample_rates
from xlmtrain.runtime.atomic_io import sha256_of
from xlmtrain.text.bpe import read_codes
from xlmtrain.text.filters import LINE_SETTINGS, line_checks
from xlmtrain.text.langid import detected_language
from xlmtrain.text.moses import MAX_TOKEN_CHARS
from xlmtrain.text.tokenizer import has_rules
from xlmtrain.text.tokenizer_extension import check_extensible
from xlmtrain.text.tokenizer_json import read_tokenizer, require_tokenizers
from xlmtrain.text.vocab import Vocab


class _Shard(NamedTuple):
    """A shard of raw text: ``raw`` is the key of its artifact, ``number`` its index in there."""

    text: RawText
    raw: str
    number: int
    lines: int
    bytes: int


ShardTasks = dict[_Shard, BuildTask]
"""The task that was run for each shard."""


def prepare(config: PrepareConfig, on_raw_text: Callable[[Statistics], object] | None = None) -> Statistics:
    """Create ``config.output`` (layout: :mod:`xlmtrain.data.format`) with ``statistics.json``.

    ``on_raw_text``: called with the statistics of the raw text, before the long work. The output appears when it is
    complete. Raises DataError for faults in the text, the codes, the vocabulary or the output.
    """
    texts, notes = without_repeats(find_texts(config))
    output = check_output(config, texts)
    is_tokenized = config.tokenizer is not None or config.new_tokenizer.model is not None
    if is_tokenized:
        require_tokenizers()
    if config.tokenizer is not None:
        given = read_tokenizer(Path(config.tokenizer))
        LineEncoder(given)
        if config.extend_tokenizer:
            check_extensible(given)
    if config.bpe.codes is not None:
        read_codes(config.bpe.codes)
    if config.vocab.file is not None:
        Vocab.read(config.vocab.file, config.vocab.max_size, config.vocab.min_count)
    for text in texts:
        list(line_checks(config.clean, text.languages))
    with open_store(output) as store:
        pipeline = PreparePipeline(config, store, texts, notes)
        shards = pipeline.shard()
        if on_raw_text is not None:
            on_raw_text(pipeline.statistics())
        units: dict[str, str] = {"tokenizer": pipeline.make_tokenizer(shards)} if is_tokenized else {}
        tokens = pipeline.select(pipeline.tokenize(shards, units.get("tokenizer")))
        if not is_tokenized:
            units["codes"] = pipeline.make_codes(tokens)
            units["subwords"] = pipeline.list_subwords(tokens, units["codes"])
        encoded = pipeline.encode(tokens, units)
        vocab = pipeline.make_vocab(encoded, units)
        corpora = pipeline.assemble(encoded, units, vocab)
        artifacts = [store.path("vocab", vocab)]
        if is_tokenized:
            settings = store.result("tokenizer", units["tokenizer"])
        else:
            settings = asdict(config.text)
            artifacts.append(store.path("codes", units["codes"]))
        size = settings.pop("size", 0)
        prepared, words = write_dataset(
            store, artifacts, corpora, languages=pipeline.languages, text=settings, size=size
        )
        statistics = pipeline.statistics(words, 0 if is_tokenized else len(read_codes(prepared / "codes")))
        statistics.write(prepared / STATISTICS)
        publish(store, prepared, output, config.overwrite)
    return statistics


class PreparePipeline:
    """The stages, in order. They return keys of artifacts, or the task that was run for each shard or corpus."""

    def __init__(self, config: PrepareConfig, store: ArtifactStore, texts: list[RawText], notes: list[str]) -> None:
        self._config, self._store, self._texts = config, store, texts
        self._scheduler = Scheduler(config, store)
        self._is_tokenized = config.tokenizer is not None or config.new_tokenizer.model is not None
        self.languages = sorted({language for text in texts for language in text.languages})
        self._files = {
            text: [
                FileStatistics(text.split, language, text.pair, str(path))
                for language, path in zip(text.languages, text.sides)
            ]
            for text in texts
        }
        self._notes = notes + [
            f"language {language}: Moses' tokenizer has no rules for it, the English ones were used"
            for language in self.languages
            if not self._is_tokenized and not has_rules(language)
        ]
        self._unknown_words: dict[str, list[tuple[str, int]]] = {}

    def shard(self) -> list[_Shard]:
        """Read every file once, so that faults in the text show before the long stages."""
        tasks = {text: shard_task(text, self._config) for text in self._texts}
        shards = []
        for text, result in self._scheduler.run_sharded("shard", tasks).items():
            for file, words, suspects in zip(self._files[text], result["words"], result["suspects"]):
                file.lines, file.segmented, file.suspects = result["lines"], result["segmented"], suspects
                file.reads_like = detected_language(file.language, words)
                file.drop(result["dropped"])
            shards += [_Shard(text, tasks[text].key, number, **shard) for number, shard in enumerate(result["shards"])]
        self._train = {shard for shard in shards if shard.text.split == "train"}
        return shards

    def make_tokenizer(self, shards: list[_Shard]) -> str:
        """Copy the given tokenizer, extend it, or train one, on a sample of the training text."""
        config = self._config
        sample: dict[str, Any] = {
            "shards": [[shard.raw, shard.number, shard.text.languages] for shard in shards if shard in self._train],
            "rates": self._sample_rates(),
            "clean": self._line_settings(),
        }
        if config.tokenizer is not None:
            given = {"path": config.tokenizer, "fingerprint": read_tokenizer(Path(config.tokenizer)).fingerprint}
            if not config.extend_tokenizer:
                return self._scheduler.run_here(copy_tokenizer, BuildTask("tokenizer", given))
            task = BuildTask("tokenizer", {**sample, **given, "entries": config.extend_tokenizer})
            return self._scheduler.run_here(extend_tokenizer, task)
        arguments = {**sample, "model": config.new_tokenizer.model, "size": config.new_tokenizer.size}
        key = self._scheduler.run_here(train_tokenizer, BuildTask("tokenizer", arguments))
        size = self._store.result("tokenizer", key)["size"]
        if size < self._config.new_tokenizer.size:
            self._notes.append(
                f"the tokenizer has {size:,} entries, not new_tokenizer.size: the text has no more pieces"
            )
        return key

    def tokenize(self, shards: list[_Shard], tokenizer: str | None) -> ShardTasks:
        """Clean and tokenize every shard, with the ``tokenizer`` of an artifact or by Moses' rules."""
        self._rates = self._sample_rates() if tokenizer is None else dict.fromkeys(self.languages, 0.0)
        clean = self._line_settings()
        tasks = {}
        for shard in shards:
            arguments = {
                "raw": shard.raw,
                "shard": shard.number,
                "split": shard.text.split,
                "languages": shard.text.languages,
                "text": asdict(self._config.text),
                "clean": clean,
                "sample": [self._rates[language] for language in shard.text.languages] if shard in self._train else [],
                "tokenizer": tokenizer,
                "documents": shard.text.documents,
            }
            tasks[shard] = BuildTask("tokenize", arguments, shard.bytes)
        cut = 0
        for shard, result in self._scheduler.run_sharded("tokenize", tasks).items():
            for file in self._files[shard.text]:
                file.drop(result["dropped"])
            cut += result["cut"]
        if cut:
            self._notes.append(f"longer words were cut: there are {cut:,} pieces of {MAX_TOKEN_CHARS:,} characters")
        return tasks

    def select(self, tokens: ShardTasks) -> ShardTasks:
        """Leave out what training text repeats of itself and of the held-out text, and pairs of the same sides."""
        held_out, duplicates = self._collect_held_out(tokens), self._find_duplicates(tokens)
        tasks = {}
        for shard, task in tokens.items():
            languages, is_train = shard.text.languages, shard in self._train
            arguments = {
                "tokens": task.key,
                "languages": languages,
                "is_train": is_train,
                "held_out": held_out if is_train else None,
                "duplicates": duplicates.get(languages) if is_train else None,
                "drop_identical": self._config.clean.drop_identical,
            }
            tasks[shard] = BuildTask("select", arguments, shard.bytes)
        for shard, result in self._scheduler.run_sharded("select", tasks).items():
            for file, words in zip(self._files[shard.text], result["words"]):
                file.sentences += result["sentences"]
                file.words += 0 if self._is_tokenized else words  # those of a tokenizer are known in the end
                file.drop(result["dropped"])
        for total in self.statistics().totals():
            if not total.sentences:
                reasons = ", ".join(f"{count:,} {reason}" for reason, count in total.dropped.items() if count)
                problem = f"none of its {total.lines:,} lines can be used" if total.lines else "there is no line in it"
                raise DataError(f"{total.file}: {problem}{f'; dropped: {reasons}' if reasons else ''}")
        return tasks

    def _collect_held_out(self, tokens: ShardTasks) -> str | None:
        """Collect the lines of validation and test text; None if training text is not compared with them."""
        held_out = [[task.key, shard.text.languages] for shard, task in tokens.items() if shard not in self._train]
        if not self._config.clean.decontaminate or not held_out:
            return None
        task = BuildTask("held_out", {"languages": self.languages, "shards": held_out})
        return self._scheduler.run_here(dedup.collect_held_out, task)

    def _find_duplicates(self, tokens: ShardTasks) -> dict[tuple[str, ...], str]:
        """Return for each training corpus, by its languages, the key of its repeated lines."""
        if not self._config.clean.drop_duplicates:
            return {}
        corpora: dict[tuple[str, ...], list[_Shard]] = {}
        for shard in tokens:
            if shard in self._train:
                corpora.setdefault(shard.text.languages, []).append(shard)
        tasks = {}
        for languages, corpus in corpora.items():
            keys, lines = [tokens[shard].key for shard in corpus], sum(shard.lines for shard in corpus)
            tasks[languages] = BuildTask("duplicates", {"shards": keys, "languages": languages, "lines": lines})
        self._scheduler.run_here(dedup.find_duplicates, *tasks.values())
        return {languages: task.key for languages, task in tasks.items()}

    def make_codes(self, tokens: ShardTasks) -> str:
        """Copy the given codes, or learn them."""
        settings = self._config.bpe
        if settings.codes is not None:
            return self._scheduler.run_here(global_stages.copy_codes, BuildTask("codes", _given_file(settings.codes)))
        arguments = {
            "tokens": [[task.key, shard.text.languages] for shard, task in tokens.items() if shard in self._train],
            "rates": self._rates,
            **{name: getattr(settings, name) for name in ("sampling_alpha", "merges", "max_word_types")},
        }
        key = self._scheduler.run_here(global_stages.learn_codes, BuildTask("codes", arguments))
        result = self._store.result("codes", key)
        if result["codes"] < settings.merges:
            self._notes.append(
                f"only {result['codes']} codes learned, not bpe.merges={settings.merges}: every word is one symbol now"
            )
        if result["least"] > 1:
            self._notes.append(
                f"codes learned from the {result['words']:,} words that were counted {result['least']} times or more "
                f"(bpe.max_word_types={settings.max_word_types:,})"
            )
        return key

    def list_subwords(self, tokens: ShardTasks, codes: str) -> str:
        """List every subword that text can be split into, or those of the given vocabulary."""
        if self._config.vocab.file is not None:
            task = BuildTask("subwords", _given_file(self._config.vocab.file))
            return self._scheduler.run_here(global_stages.copy_subwords, task)
        task = BuildTask("subwords", {"codes": codes, "tokens": self._train_keys(tokens)})
        return self._scheduler.run_here(global_stages.list_subwords, task)

    def encode(self, tokens: ShardTasks, units: dict[str, str]) -> ShardTasks:
        """Split the tokens of every shard into subwords, and count these in training text.

        ``units``: the artifacts ``codes`` and ``subwords``, or ``tokenizer``.
        """
        tasks = {}
        for shard, task in tokens.items():
            arguments = {
                "tokens": task.key,
                "languages": shard.text.languages,
                "units": units,
                "count": self._config.vocab.file is None and shard in self._train,
            }
            tasks[shard] = BuildTask("encode", arguments, shard.bytes)
        self._scheduler.run_sharded("encode", tasks)
        return tasks

    def make_vocab(self, encoded: ShardTasks, units: dict[str, str]) -> str:
        """Count the vocabulary of the training text, or truncate the given one."""
        settings, encoded_keys = self._config.vocab, self._train_keys(encoded)
        if self._is_tokenized:
            return self._scheduler.run_here(
                global_stages.count_tokens, BuildTask("vocab", {**units, "encoded": encoded_keys})
            )
        arguments = {"subwords": units["subwords"], "max_size": settings.max_size, "min_count": settings.min_count}
        if settings.file is not None:
            return self._scheduler.run_here(global_stages.truncate_vocab, BuildTask("vocab", arguments))
        task = BuildTask("vocab", {**arguments, "encoded": encoded_keys})
        return self._scheduler.run_here(global_stages.count_vocab, task)

    def assemble(self, encoded: ShardTasks, units: dict[str, str], vocab: str) -> dict[str, BuildTask]:
        """Concatenate the shards of every corpus."""
        corpora: dict[str, list[tuple[FileStatistics, list[BuildTask]]]] = {}
        for text in self._texts:
            own = [task for shard, task in encoded.items() if shard.text == text]
            for file in self._files[text]:
                corpora.setdefault(corpus_name(text.split, file.language, text.pair), []).append((file, own))
        tasks = {}
        for name, files in corpora.items():
            arguments: dict[str, Any] = {
                "name": name,
                "shards": [[task.key, task.arguments["tokens"], file.language] for file, own in files for task in own],
                "units": units,
                "vocab": vocab,
                "sources": [Path(file.file).name for file, _ in files],
                "documents": self._config.documents and "-" not in name,
            }
            paths = [self._store.path("encode", key) / f"{language}.ids" for key, _, language in arguments["shards"]]
            tasks[name] = BuildTask("assemble", arguments, sum(path.stat().st_size for path in paths))
        for name, result in self._scheduler.run_sharded("assemble", tasks).items():
            owners = [file for file, own in corpora[name] for _ in own]
            for file, counted, unknown in zip(owners, result["subwords"], result["unknown"]):
                file.subwords += counted
                file.unknown += unknown
            for file, words in zip(owners, result.get("words", ())):
                file.words += words
            if documents := result["header"]["documents"]:
                self._notes.append(f"{name}: {documents:,} documents")
            self._unknown_words[name] = [(word, count) for word, count in result["unknown_words"]]
        return tasks

    def _line_settings(self) -> dict[str, Any]:
        return {name: asdict(self._config.clean)[name] for name in LINE_SETTINGS}

    def _train_keys(self, tasks: ShardTasks) -> list[str]:
        return [task.key for shard, task in tasks.items() if shard in self._train]

    def _sample_rates(self) -> dict[str, float]:
        """Return the fraction of each language's training text to learn codes from."""
        settings, sizes = self._config.bpe, dict.fromkeys(self.languages, 0)
        for shard in self._train:
            languages = shard.text.languages
            in_bytes = settings.train_sample_unit is Unit.bytes
            for language in languages:
                sizes[language] += shard.bytes // len(languages) if in_bytes else shard.lines
        return sample_rates(sizes, settings.train_sample, settings.sampling_alpha)

    def statistics(self, vocab: Vocab | None = None, codes: int = 0) -> Statistics:
        """Return the statistics of the stages that have run."""
        files = [file for files in self._files.values() for file in files]
        size, parts = (0, 0) if vocab is None else (len(vocab), int((~vocab.is_word & ~vocab.is_special).sum()))
        return Statistics(files, size, codes, parts, self._notes, self._unknown_words)


def _given_file(path: str) -> dict[str, Any]:
    return {"path": path, "sha256": sha256_of(Path(path))}
