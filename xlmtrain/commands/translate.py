"""Translate raw text, line by line, with a model that has a decoder.

    xlmtrain translate model=runs/mt source=de target=en input=news.de output=news.en
    xlmtrain translate model=runs/mt source=de target=en beam=5 n_best=5 < news.de > news.tsv
    xlmtrain translate model=runs/mt source=de target=en input=test.de reference=test.en output=test.hyp
    xlmtrain translate model=translation.pth codes=codes_ende source=en target=de beam=1 < news.en

Each line of the input gives one line, a blank line a blank one. With ``n_best`` above 1, each translation is a line of
its line's number, its score and its text, separated by tabs. With ``reference``, BLEU and chrF of the translations
follow: on standard output, or on standard error if the translations are there. If it is stopped, what was translated
is kept beside ``output``.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xlmtrain.config.load import parse_options
from xlmtrain.config.train import Precision
from xlmtrain.config.translate import TranslationConfig
from xlmtrain.errors import DataError
from xlmtrain.evaluate.bleu import raw_text_scores, require_sacrebleu, tokenized_bleu
from xlmtrain.evaluate.parallel_text import decode_line, read_parallel_lines
from xlmtrain.generate.translate import Translation, no_progress
from xlmtrain.interop.formats import ModelOptions
from xlmtrain.pretrained import PretrainedModel, load
from xlmtrain.runtime.output_paths import check_new_file, lines_kept_if_stopped, new_file
from xlmtrain.runtime.program import exit_on_sigterm, has_reader
from xlmtrain.runtime.progress import ProgressBar


@dataclass
class TranslateOptions(TranslationConfig, ModelOptions):
    """The settings of this command."""

    source: str = "???"
    """Language of the input."""

    target: str = "???"
    """Language to translate into."""

    input: str | None = None
    """File of raw text, plain or compressed; null: standard input."""

    output: str | None = None
    """File to write, which must not exist yet; null: standard output."""

    reference: str | None = None
    """File with a translation of each line of input, to compute BLEU and chrF against."""

    precision: Precision = Precision.fp32
    """Number format of matrix products. Half precision is faster where the hardware has it, and changes the choice
    between tokens that are almost equally probable, which then may depend on the batch."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.reference is not None and self.input is None:
            yield "reference: needs input, a file of as many lines"


def main(argv: list[str]) -> None:
    """Translate the input, and score the translations if there is a reference."""
    options = parse_options(TranslateOptions, argv)
    exit_on_sigterm()
    if options.output is not None:
        check_new_file(options.output)
    if options.reference is not None:
        require_sacrebleu()
    model = load(options.model, options.checkpoint, codes=options.codes, precision=options.precision)
    translator, where = model.translator(options.source, options.target, options), options.input or "standard input"
    total, texts, words = None, [], []
    if options.input is not None:  # a line that is too long is found before hours of translation
        total = sum(1 for _ in translator.encode((line for line, *_ in _lines(options)), where))
        if options.reference is not None and not total:
            raise DataError(f"reference={options.reference}: {where} has no lines to compare with it")
    with ExitStack() as stack:
        out: BinaryIO = sys.stdout.buffer
        if options.output is not None:
            partial = stack.enter_context(new_file(options.output))
            out = stack.enter_context(lines_kept_if_stopped(partial))
        shown = options.output is not None or sys.stderr.isatty()  # in a log, progress is on standard output
        progress = stack.enter_context(ProgressBar("translate", total, " lines")) if shown else None
        finished = progress.update if progress is not None else no_progress
        lines = (line for line, *_ in _lines(options))
        for number, best in enumerate(translator(lines, where, finished), 1):
            out.write(_formatted(number, best, options.n_best).encode())
            out.flush()
            if options.output is None and not has_reader(sys.stdout):
                return
            if options.reference is not None:
                texts.append(best[0].text)
                words.append(best[0].tokenized)
    if options.reference is not None:
        for score in _scores(options, model, texts, words):
            print(score, file=sys.stderr if options.output is None else sys.stdout)


def _lines(options: TranslateOptions) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the input, each with that of the reference if there is one."""
    if options.input is None:
        for number, line in enumerate(sys.stdin.buffer, 1):
            yield (decode_line(line, f"standard input:{number}"),)
        return
    paths = {"input": Path(options.input)}
    if options.reference is not None:
        paths["reference"] = Path(options.reference)
    for _, lines in read_parallel_lines(", ".join(paths), paths):
        yield lines


def _formatted(number: int, best: list[Translation], n_best: int) -> str:
    if n_best == 1:
        return f"{best[0].text}\n"
    return "".join(f"{number}\t{translation.score:.4f}\t{translation.text}\n" for translation in best)


def _scores(options: TranslateOptions, model: PretrainedModel, texts: list[str], words: list[str]) -> Iterator[str]:
    """Yield a line for each metric; the last one is of text as the model's tokenizer splits it."""
    references = [reference for _, reference in _lines(options)]
    yield from raw_text_scores(texts, references)
    tokenized = [" ".join(model.text.words(reference, options.target)) for reference in references]
    yield f"tokenized {tokenized_bleu(words, tokenized)}"
