"""Preparation, the whole job: raw text -> shards -> tokens -> codes -> subwords -> vocabulary -> ids on disk.

=============  ===================================================  =====================================
stage          what                                                 each part is made from
=============  ===================================================  =====================================
``cut``        raw files checked and cut into shards                a file, or the two of a pair
``held_out``   the lines of validation and test text                their shards
``duplicates`` which lines were there before (if asked for)         the shards of a corpus
``tokenize``   lines cleaned and tokenized, words counted           a shard
``codes``      BPE codes learned from the counts, or given          all training shards
``subwords``   every subword that these codes can make              codes, characters of the training shards
``encode``     tokens as numbers of these, which are counted        a shard
``vocab``      the vocabulary                                       all training shards
``assemble``   ids of a corpus, as the vocabulary numbers them      the shards of a corpus
=============  ===================================================  =====================================

Every part is kept in the work directory until the end (:mod:`xlmtrain.prepare.artifacts`), so a job that was killed goes on.
The stages over shards are done by worker processes, here or elsewhere (:mod:`xlmtrain.prepare.executors.executor`); the others
are small. No stage holds more than a shard, the words to learn from (``bpe.max_word_types``), or the subwords in memory.

The prepared corpus is one file of ids, not one for each shard: assembling is the step in which ids get their final
numbers, so it costs no pass of its own, and every reader of the data reads one array. The shards stay visible in the
header, each with its own checksum.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from xlmtrain.config.prepare import PrepareConfig, Unit
from xlmtrain.data.format import PREPARED, CorpusHeader, Header, corpus_header, corpus_name, fingerprint, id_dtype
from xlmtrain.errors import DataError
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask, link, open_store, publish, remove_finished
from xlmtrain.prepare.dedup import collect_held_out, find_duplicates
from xlmtrain.prepare.executors.executor import Runner
from xlmtrain.prepare.global_stages import (
    copy_codes,
    count_vocab,
    learn_codes,
    list_subwords,
    take_subwords,
    truncate_vocab,
)
from xlmtrain.prepare.raw_files import RawText, find_texts
from xlmtrain.prepare.shard_raw import cut_task
from xlmtrain.prepare.statistics import STATISTICS, FileStatistics, Statistics
from xlmtrain.runtime.atomic_io import sha256_of
from xlmtrain.runtime.output_paths import check_output_path, check_replaceable
from xlmtrain.text.bpe import read_codes, require_fastbpe
from xlmtrain.text.filters import LINE_SETTINGS, line_checks
from xlmtrain.text.langid import detected_language
from xlmtrain.text.tokenizer import has_rules
from xlmtrain.text.vocab import CONTINUATION, Vocab
from xlmtrain.text.word_counts import sample_rates


class _Shard(NamedTuple):
    """A shard of raw text: of which text, the part it is in, its number in there, and how much it holds."""

    text: RawText
    cut: str
    number: int
    lines: int
    bytes: int


def prepare(config: PrepareConfig, on_raw_text: Callable[[Statistics], object] | None = None) -> Statistics:
    """Make ``config.output`` (its layout: see :mod:`xlmtrain.data.format`), with ``codes``, ``vocab`` and
    ``statistics.json`` in it. Stages are announced on stdout. ``on_raw_text`` is called before the long work, with the
    statistics of the raw text.

    The directory appears when all is complete; until then everything is beside it in ``.{name}.partial``, with which
    the same command goes on after an interruption. Raises DataError for what is wrong with the text, the codes, the
    vocabulary or the output.
    """
    texts = find_texts(config)
    output = _check_output(config, texts)
    require_fastbpe()
    if config.bpe.codes is not None:
        read_codes(config.bpe.codes)
    if config.vocab.file is not None:
        Vocab.read(config.vocab.file, config.vocab.max_size, config.vocab.min_count)
    for text in texts:
        list(line_checks(config.clean, text.languages))
    with open_store(output) as work:
        job = _Job(config, work, texts)
        shards = job.cut()
        if on_raw_text is not None:
            on_raw_text(job.statistics())
        tokens = job.tokenize(shards, job.compare_held_out(shards), job.find_duplicates(shards))
        codes = job.make_codes(tokens)
        subwords = job.list_subwords(tokens, codes)
        encoded = job.encode(tokens, codes, subwords)
        vocab = job.count_vocab(encoded, subwords)
        corpora = job.assemble(encoded, codes, subwords, vocab)
        statistics = job.describe(codes, vocab, corpora)
        publish(work, job.output, output)
    return statistics


class _Job:
    """The stages, in order. A dictionary goes from one to the next: shard -> the task that was done for it."""

    def __init__(self, config: PrepareConfig, work: ArtifactStore, texts: list[RawText]) -> None:
        self._config, self._work, self._texts = config, work, texts
        self._runner = Runner(config, work)
        self._languages = sorted({language for text in texts for language in text.languages})
        self._files = {
            text: [FileStatistics(text.split, language, text.pair, str(path)) for language, path in text.sides()]
            for text in texts
        }
        self._notes = [
            f"language {language}: Moses' tokenizer has no rules for it, the English ones were used"
            for language in self._languages
            if not has_rules(language)
        ]
        self._unknown_words: dict[str, list[tuple[str, int]]] = {}
        self.output = work.directory / "output"

    def cut(self) -> list[_Shard]:
        """Read every file once, so that what is wrong shows before the long work."""
        tasks = {text: cut_task(text, self._config) for text in self._texts}
        self._runner.run("cut", list(tasks.values()))
        shards = []
        for text, task in tasks.items():
            result = self._work.load(task.stage, task.key)
            for file, words in zip(self._files[text], result["words"]):
                file.lines, file.segmented = result["lines"], result["segmented"]
                file.reads_like = detected_language(file.language, words)
                file.drop(result["dropped"])
            shards += [_Shard(text, task.key, number, **shard) for number, shard in enumerate(result["shards"])]
        return shards

    def compare_held_out(self, shards: list[_Shard]) -> str | None:
        """The part with the lines of validation and test text; None if training text is not compared with them."""
        chosen = [[shard.cut, shard.number, shard.text.languages] for shard in shards if shard.text.split != "train"]
        if not self._config.clean.decontaminate or not chosen:
            return None
        task = BuildTask("held_out", {"languages": self._languages, "shards": chosen})
        return self._runner.make(task, collect_held_out)

    def find_duplicates(self, shards: list[_Shard]) -> dict[tuple[str, ...], str]:
        """Languages of a training corpus -> the part that says what in it occurred before."""
        if not self._config.clean.drop_duplicates:
            return {}
        tasks = {}
        for languages in dict.fromkeys(text.languages for text in self._texts if text.split == "train"):
            mine = [shard for shard in shards if shard.text.split == "train" and shard.text.languages == languages]
            arguments = {
                "shards": [[shard.cut, shard.number] for shard in mine],
                "languages": languages,
                "lines": sum(shard.lines for shard in mine),
            }
            tasks[languages] = BuildTask("duplicates", arguments)
        self._runner.make_all(list(tasks.values()), find_duplicates)
        return {languages: task.key for languages, task in tasks.items()}

    def tokenize(
        self, shards: list[_Shard], held_out: str | None, duplicates: dict[tuple[str, ...], str]
    ) -> dict[_Shard, BuildTask]:
        """Clean and tokenize every shard."""
        self._rates = self._sample_rates(shards)
        clean = {name: asdict(self._config.clean)[name] for name in LINE_SETTINGS}
        tasks = {}
        for shard in shards:
            train = shard.text.split == "train"
            arguments = {
                "cut": shard.cut,
                "shard": shard.number,
                "split": shard.text.split,
                "languages": list(shard.text.languages),
                "text": asdict(self._config.text),
                "clean": clean,
                "held_out": held_out if train else None,
                "duplicates": duplicates.get(shard.text.languages) if train else None,
                "sample": [self._rates[language] for language in shard.text.languages] if train else [],
            }
            tasks[shard] = BuildTask("tokenize", arguments, shard.bytes)
        self._runner.run("tokenize", list(tasks.values()))
        for shard, task in tasks.items():
            result = self._work.load(task.stage, task.key)
            for file, words in zip(self._files[shard.text], result["words"]):
                file.sentences += result["sentences"]
                file.words += words
                file.drop(result["dropped"])
        for total in self.statistics().totals():
            if not total.sentences:
                why = ", ".join(f"{count:,} {reason}" for reason, count in total.dropped.items() if count)
                whole = f"none of its {total.lines:,} lines can be used" if total.lines else "there is no line in it"
                raise DataError(f"{total.file}: {whole}{f'; dropped: {why}' if why else ''}")
        return tasks

    def make_codes(self, tokens: dict[_Shard, BuildTask]) -> str:
        """Copy the given codes, or learn them; returns the part."""
        settings = self._config.bpe
        if settings.codes is not None:
            given = {"path": settings.codes, "sha256": sha256_of(Path(settings.codes))}
            return self._runner.make(BuildTask("codes", given), copy_codes)
        arguments = {
            "tokens": [[task.key, shard.text.languages] for shard, task in tokens.items() if _is_train(shard)],
            "rates": self._rates,
            **{name: asdict(settings)[name] for name in ("sampling_alpha", "merges", "max_word_types")},
        }
        key = self._runner.make(BuildTask("codes", arguments), learn_codes)
        result = self._work.load("codes", key)
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

    def list_subwords(self, tokens: dict[_Shard, BuildTask], codes: str) -> str:
        """The part with every subword that text can be split into, or those of the given vocabulary."""
        if (path := self._config.vocab.file) is not None:
            return self._runner.make(
                BuildTask("subwords", {"path": path, "sha256": sha256_of(Path(path))}), take_subwords
            )
        train = [task.key for shard, task in tokens.items() if _is_train(shard)]
        return self._runner.make(BuildTask("subwords", {"codes": codes, "tokens": train}), list_subwords)

    def encode(self, tokens: dict[_Shard, BuildTask], codes: str, subwords: str) -> dict[_Shard, BuildTask]:
        """Split the tokens of every shard into subwords, and count these."""
        count = self._config.vocab.file is None
        tasks = {}
        for shard, task in tokens.items():
            arguments = {
                "tokens": task.key,
                "languages": list(shard.text.languages),
                "codes": codes,
                "subwords": subwords,
                "count": count and _is_train(shard),
            }
            tasks[shard] = BuildTask("encode", arguments, shard.bytes)
        self._runner.run("encode", list(tasks.values()))
        return tasks

    def count_vocab(self, encoded: dict[_Shard, BuildTask], subwords: str) -> str:
        """The part with the vocabulary of the training text, or the given one."""
        settings = self._config.vocab
        arguments = {"subwords": subwords, "max_size": settings.max_size, "min_count": settings.min_count}
        if settings.file is not None:
            return self._runner.make(BuildTask("vocab", arguments), truncate_vocab)
        train = [task.key for shard, task in encoded.items() if _is_train(shard)]
        return self._runner.make(BuildTask("vocab", {**arguments, "encoded": train}), count_vocab)

    def assemble(self, encoded: dict[_Shard, BuildTask], codes: str, subwords: str, vocab: str) -> dict[str, BuildTask]:
        """Corpus -> the task that put it together."""
        parts: dict[str, list[list[str]]] = {}
        sources: dict[str, list[str]] = {}
        owners: dict[str, list[FileStatistics]] = {}
        for text in self._texts:
            for (language, path), file in zip(text.sides(), self._files[text]):
                name = corpus_name(text.split, language, text.pair)
                sources.setdefault(name, []).append(path.name)
                parts.setdefault(name, [])
                owners.setdefault(name, [])
                for shard, task in encoded.items():
                    if shard.text == text:
                        parts[name].append([task.key, task.arguments["tokens"], language])
                        owners[name].append(file)
        tasks = {}
        for name, shards in parts.items():
            made = {"codes": codes, "subwords": subwords, "vocab": vocab}
            arguments = {"name": name, "shards": shards, **made, "sources": sources[name]}
            paths = [self._work.part("encode", key) / f"{language}.ids" for key, _, language in shards]
            size = sum(path.stat().st_size for path in paths)
            tasks[name] = BuildTask("assemble", arguments, size)
        self._runner.run("assemble", list(tasks.values()))
        for name, task in tasks.items():
            result = self._work.load(task.stage, task.key)
            for file, counted, unknown in zip(owners[name], result["subwords"], result["unknown"]):
                file.subwords += counted
                file.unknown += unknown
            self._unknown_words[name] = result["unknown_words"]
        return tasks

    def describe(self, codes: str, vocab: str, corpora: dict[str, BuildTask]) -> Statistics:
        """Put everything together in ``output``, with header and statistics."""
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.mkdir()
        link(self._work.part("codes", codes) / "codes", self.output / "codes")
        link(self._work.part("vocab", vocab) / "vocab", self.output / "vocab")
        headers = {}
        for name, task in corpora.items():
            for kind in ("ids", "offsets"):
                link(self._work.part("assemble", task.key) / f"{name}.{kind}", self.output / f"{name}.{kind}")
            headers[name] = corpus_header(self._work.load("assemble", task.key)["header"])
        words = Vocab.read(self.output / "vocab")
        write_header(self.output, self._languages, words, asdict(self._config.text), headers)
        statistics = self.statistics(words, len(read_codes(self.output / "codes")))
        statistics.write(self.output / STATISTICS)
        return statistics

    def _sample_rates(self, shards: Sequence[_Shard]) -> dict[str, float]:
        sizes = Counter(dict.fromkeys(self._languages, 0))
        for shard in filter(_is_train, shards):
            languages = shard.text.languages
            in_bytes = self._config.bpe.train_sample_unit is Unit.bytes
            sizes.update(dict.fromkeys(languages, shard.bytes // len(languages) if in_bytes else shard.lines))
        return sample_rates(sizes, self._config.bpe.train_sample, self._config.bpe.sampling_alpha)

    def statistics(self, vocab: Vocab | None = None, codes: int = 0) -> Statistics:
        """Return the statistics of what is known so far."""
        files = [file for files in self._files.values() for file in files]
        words = vocab.words if vocab is not None else []
        parts = sum(word.endswith(CONTINUATION) for word in words)
        return Statistics(files, len(words), codes, parts, self._notes, self._unknown_words)


def _is_train(shard: _Shard) -> bool:
    return shard.text.split == "train"


def write_header(
    directory: Path, languages: list[str], vocab: Vocab, text: dict[str, Any], corpora: dict[str, CorpusHeader]
) -> None:
    """Write ``dataset.json`` to a directory with everything else in it."""
    Header(
        languages=languages,
        dtype=id_dtype(len(vocab)).name,
        vocab_size=len(vocab),
        vocab_fingerprint=vocab.fingerprint,
        text=text,
        fingerprint=fingerprint(vocab.fingerprint, sha256_of(directory / "codes"), text, corpora),
        corpora=corpora,
    ).write(directory)


def _check_output(config: PrepareConfig, texts: Sequence[RawText]) -> Path:
    """Return the absolute path of the output. Raises UserError if it must not be made or replaced."""
    given = [path for path in (config.bpe.codes, config.vocab.file) if path is not None]
    output = check_output_path("output", config.output, [*given, *(path for text in texts for _, path in text.sides())])
    if not os.path.lexists(output):
        return output
    if not config.overwrite:
        remove_finished(output)
        raise DataError(f"{output}: exists already; choose another output, or replace it with overwrite=true")
    check_replaceable("output", output, PREPARED)
    return output
