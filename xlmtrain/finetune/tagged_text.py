"""Words with labels: CoNLL's files, and the treebanks of Universal Dependencies (CoNLL-U)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlmtrain.errors import DataError
from xlmtrain.text.text_files import BOM, file_problem, read_lines

_UD_COLUMNS = 10
_UD_WORD = re.compile(r"\d+")
_UD_NO_WORD = re.compile(r"\d+[-.]\d+")  # several words written as one, and words that are not written
_DOCUMENT = "-DOCSTART-"
_WORD_HEADINGS = frozenset({"token", "tokens", "word", "words", "form", "text"})
_TAG_HEADINGS = frozenset({"tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "pos", "pos_tags", "upos"})


@dataclass(frozen=True)
class TaggedSentence:
    """Words and the label of each."""

    words: list[str]
    tags: list[str]


def read_tagged(
    path: Path, setting: str, columns: Sequence[str] = (), may_lack_label: bool = False
) -> list[TaggedSentence]:
    """Return the sentences of a file with a word in each line, and an empty line after each sentence.

    Columns are separated by tabs, or by blanks in a file without tabs. ``columns``: what each one holds, ``text``,
    ``label`` or ``_``; empty: FORM and UPOS in CoNLL-U, in other files the first and the last. ``setting``: the option
    that named the file, for messages. ``may_lack_label``: a single column has words, whose labels are then empty.
    A header, comments and lines of ``-DOCSTART-`` are left out. Raises DataError for a file that is missing or without
    words, for a line with other columns than the first, for a header further down, and for labels in quotes.
    """
    if problem := file_problem(path):
        raise DataError(f"{setting}: {problem}")
    sentences: list[TaggedSentence] = []
    current = TaggedSentence([], [])
    for word, tag in _words(path, columns, may_lack_label):
        if word:
            current.words.append(word)
            current.tags.append(tag)
        elif current.words:
            sentences.append(current)
            current = TaggedSentence([], [])
    if not sentences:
        raise DataError(f"{setting}: no words in {path}")
    return sentences


def _words(path: Path, columns: Sequence[str], may_lack_label: bool) -> Iterator[tuple[str, str]]:
    """Yield (word, label), and a pair of empty strings at the end of each sentence."""
    width, word, tag, first, tabs, begins = 0, 0, -1, 1, False, True
    for number, line in read_lines(path, "words with labels"):
        line = line.lstrip(BOM)  # of files that were joined
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        if not any(cells) or cells[0] == _DOCUMENT:
            yield "", ""
            begins = True
            continue
        if begins and line.startswith("#") and (len(cells) != width or (tabs and "\t" not in line)):
            continue  # a comment, which has a tab in GermEval 2014
        begins = False
        if not width and len(cells) == 1 and may_lack_label:
            width, first, word, tag = 1, number, 0, -1
        elif not width:
            width, first, tabs = len(cells), number, "\t" in line
            word, tag = _places(path, number, cells, columns)
        if len(cells) != width:
            raise DataError(f"{path}:{number}: {len(cells)} columns, not {width} as in line {first}")
        if width == _UD_COLUMNS and _UD_NO_WORD.fullmatch(cells[0]):
            continue
        if width == 1:
            yield cells[0], ""
            continue
        if cells[word].casefold() in _WORD_HEADINGS and cells[tag].casefold() in _TAG_HEADINGS:
            if number == first:
                continue
            raise DataError(f"{path}:{number}: a header among the lines, as of files that were joined; remove it")
        if not cells[word] or not cells[tag]:
            raise DataError(f"{path}:{number}: no {'label' if cells[word] else 'word'} in this line")
        if cells[tag][0] == cells[tag][-1] == '"':
            raise DataError(f"{path}:{number}: the label {cells[tag][:60]} is in quotes; write the table without them")
        yield cells[word], cells[tag]
    yield "", ""


def _places(path: Path, number: int, first: Sequence[str], columns: Sequence[str]) -> tuple[int, int]:
    """Return the columns of word and label."""
    if columns:
        if len(columns) != len(first):
            raise DataError(f"{path}:{number}: {len(first)} columns, task.columns names {len(columns)}")
        return columns.index("text"), columns.index("label")
    if len(first) == _UD_COLUMNS and _UD_WORD.match(first[0]):
        return 1, 3
    if len(first) < 2:
        raise DataError(f"{path}:{number}: a word and its label are needed, here is {first[0][:60]!r} only")
    return 0, len(first) - 1
