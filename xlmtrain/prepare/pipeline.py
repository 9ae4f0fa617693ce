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
``words``      word counts of a language                            its training shards
``codes``      BPE codes, learned from the counts or given          all training shards
``subwords``   every subword that the codes can produce             codes, characters of the training shards
``encode``     tokens as numbers of these subwords, their counts    a shard
``vocab``      the vocabulary                                       all training shards
``assemble``   ids of a corpus, numbered by the vocabulary          the shards of a corpus
=============  ===================================================  ======================================

With a tokenizer of Hugging Face's library, tokens are its ids from the start: ``codes`` and ``subwords`` are left out,
``encode`` and ``assemble`` keep the ids, and ``vocab`` is their counts.

Artifacts stay in the work directory until the end (:mod:`xlmtrain.prepare.artifacts`), so an interrupted preparation is
resumed by the same command. The stages ``shard``, ``tokenize``, ``select``, ``words``, ``encode`` and ``assemble`` run
on workers (:mod:`xlmtrain.prepare.scheduler`); the others are small. No stage holds more in memory than a shard, the
words to learn from (``bpe.max_word_types``), or the subwords. Ids get their final numbers while the shards of a corpus
are assembled to one file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.data.format import corpus_name
from xlmtrain.errors import DataError
from xlmtrain.prepare import dedup
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.output import check_output, open_store, publish, write_dataset
from xlmtrain.prepare.raw_files import RawText, find_texts, without_repeats
from xlmtrain.prepare.scheduler import Scheduler
from xlmtrain.prepare.segmentation import ShardTasks, check_given_files, line_settings, make_segmentation
from xlmtrain.prepare.shard_raw import Shard, shard_task
from xlmtrain.prepare.statistics import STATISTICS, FileStatistics, Statistics
from xlmtrain.text.filters import line_checks
from xlmtrain.text.langid import detected_language
from xlmtrain.text.moses import MAX_TOKEN_CHARS
from xlmtrain.text.vocab import Vocab


def prepare(config: PrepareConfig, on_raw_text: Callable[[Statistics], object] | None = None) -> Statistics:
    """Create ``config.output`` (layout: :mod:`xlmtrain.data.format`) with ``statistics.json``.

    ``on_raw_text``: called with the statistics of the raw text, before the long work. The output appears when it is
    complete. Raises DataError for faults in the text, the codes, the vocabulary or the output.
    """
    texts, notes = without_repeats(find_texts(config))
    output = check_output(config, texts)
    check_given_files(config)
    for text in texts:
        list(line_checks(config.clean, text.languages))
    with open_store(output) as store:
        pipeline = PreparePipeline(config, store, texts, notes)
        shards = pipeline.shard()
        if on_raw_text is not None:
            on_raw_text(pipeline.statistics())
        encoded = pipeline.encode(pipeline.select(pipeline.tokenize(shards)))
        vocab = pipeline.segmentation.make_vocab(encoded)
        corpora = pipeline.assemble(encoded, vocab)
        units = {**pipeline.segmentation.units, "vocab": vocab}
        artifacts = [store.path(stage, key) for stage, key in units.items()]
        settings = pipeline.segmentation.text_settings()
        size = settings.pop("size", 0)
        prepared, words = write_dataset(
            store, artifacts, corpora, languages=pipeline.languages, text=settings, size=size
        )
        codes = prepared / "codes"
        statistics = pipeline.statistics(words, codes.read_bytes().count(b"\n") if codes.exists() else 0)
        statistics.write(prepared / STATISTICS)
        publish(store, prepared, output, config.overwrite)
    return statistics


class PreparePipeline:
    """The stages that run on shards, in order; each returns the task that was run for each shard or corpus.

    ``segmentation``: the stages between them, which decide how text is split.
    """

    def __init__(self, config: PrepareConfig, store: ArtifactStore, texts: list[RawText], notes: list[str]) -> None:
        self._config, self._store, self._texts, self._notes = config, store, texts, notes
        self._scheduler = Scheduler(config, store)
        self.segmentation = make_segmentation(config, store, self._scheduler, notes)
        self.languages = sorted({language for text in texts for language in text.languages})
        self._files = {
            text: [
                FileStatistics(text.split, language, text.pair, str(path))
                for language, path in zip(text.languages, text.sides)
            ]
            for text in texts
        }
        self._unknown_words: dict[str, list[tuple[str, int]]] = {}

    def shard(self) -> list[Shard]:
        """Read every file once, so that faults in the text show before the long stages."""
        tasks = {text: shard_task(text, self._config) for text in self._texts}
        shards = []
        for text, result in self._scheduler.run_sharded("shard", tasks).items():
            for file, words, suspects in zip(self._files[text], result["words"], result["suspects"]):
                file.lines, file.segmented, file.suspects = result["lines"], result["segmented"], suspects
                file.reads_like = detected_language(file.language, words)
                file.drop(result["dropped"])
            shards += [Shard(text, tasks[text].key, number, **shard) for number, shard in enumerate(result["shards"])]
        return shards

    def tokenize(self, shards: Sequence[Shard]) -> ShardTasks:
        """Clean and tokenize every shard."""
        rates = self.segmentation.before_tokenization(shards, self.languages)
        tasks = {}
        for shard in shards:
            arguments = {
                "raw": shard.raw,
                "shard": shard.number,
                "split": shard.text.split,
                "languages": shard.text.languages,
                "text": asdict(self._config.text),
                "clean": line_settings(self._config.clean),
                "sample": [rates[language] for language in shard.text.languages] if shard.is_train else [],
                "tokenizer": self.segmentation.units.get("tokenizer"),
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
            arguments = {
                "tokens": task.key,
                "languages": shard.text.languages,
                "is_train": shard.is_train,
                "held_out": held_out if shard.is_train else None,
                "duplicates": duplicates.get(shard.text.languages) if shard.is_train else None,
                "drop_identical": self._config.clean.drop_identical,
            }
            tasks[shard] = BuildTask("select", arguments, shard.bytes)
        for shard, result in self._scheduler.run_sharded("select", tasks).items():
            for file, words in zip(self._files[shard.text], result["words"]):
                file.sentences += result["sentences"]
                if not self._config.has_tokenizer:  # whose words are known in the end
                    file.words += words
                file.drop(result["dropped"])
        for total in self.statistics().totals():
            if not total.sentences:
                reasons = ", ".join(f"{count:,} {reason}" for reason, count in total.dropped.items() if count)
                problem = f"none of its {total.lines:,} lines can be used" if total.lines else "there is no line in it"
                raise DataError(f"{total.file}: {problem}{f'; dropped: {reasons}' if reasons else ''}")
        return tasks

    def _collect_held_out(self, tokens: ShardTasks) -> str | None:
        """Collect the lines of validation and test text; None if training text is not compared with them."""
        held_out = [[task.key, shard.text.languages] for shard, task in tokens.items() if not shard.is_train]
        if not self._config.clean.decontaminate or not held_out:
            return None
        task = BuildTask("held_out", {"languages": self.languages, "shards": held_out})
        return self._scheduler.run_here(dedup.collect_held_out, task)

    def _find_duplicates(self, tokens: ShardTasks) -> dict[tuple[str, ...], str]:
        """Return for each training corpus, by its languages, the key of its repeated lines."""
        if not self._config.clean.drop_duplicates:
            return {}
        corpora: dict[tuple[str, ...], list[Shard]] = {}
        for shard in tokens:
            if shard.is_train:
                corpora.setdefault(shard.text.languages, []).append(shard)
        tasks = {}
        for languages, corpus in corpora.items():
            keys, lines = [tokens[shard].key for shard in corpus], sum(shard.lines for shard in corpus)
            tasks[languages] = BuildTask("duplicates", {"shards": keys, "languages": languages, "lines": lines})
        self._scheduler.run_here(dedup.find_duplicates, *tasks.values())
        return {languages: task.key for languages, task in tasks.items()}

    def encode(self, tokens: ShardTasks) -> ShardTasks:
        """Split the tokens of every shard into subwords, and count these in training text."""
        self.segmentation.after_selection(tokens)
        tasks = {}
        for shard, task in tokens.items():
            arguments = {
                "tokens": task.key,
                "languages": shard.text.languages,
                "units": self.segmentation.units,
                "count": self._config.vocab.file is None and shard.is_train,
            }
            tasks[shard] = BuildTask("encode", arguments, shard.bytes)
        self._scheduler.run_sharded("encode", tasks)
        return tasks

    def assemble(self, encoded: ShardTasks, vocab: str) -> dict[str, BuildTask]:
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
                "units": self.segmentation.units,
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

    def statistics(self, vocab: Vocab | None = None, codes: int = 0) -> Statistics:
        """Return the statistics of the stages that have run."""
        files = [file for files in self._files.values() for file in files]
        size, parts = (0, 0) if vocab is None else (len(vocab), int((~vocab.is_word & ~vocab.is_special).sum()))
        return Statistics(files, size, codes, parts, self._notes, self._unknown_words)
