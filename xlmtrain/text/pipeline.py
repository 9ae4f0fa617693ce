"""Turn a raw sentence into ids exactly as in preparation, and ids into raw text, for use with a trained model."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from sacremoses import MosesDetokenizer

from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import DataError
from xlmtrain.text.bpe import Bpe, Code, write_codes
from xlmtrain.text.tokenizer import Tokenizer
from xlmtrain.text.tokenizer_json import TokenizerVocab
from xlmtrain.text.vocab import MASK, SPECIALS, Vocab

MASK_IN_TEXT = "<mask>"
_LINE_BREAK = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")


class TextPipeline(Protocol):
    """Conversion of raw text to ids and back; ``vocab`` says which ids are special."""

    vocab: Vocab

    def tokens(self, line: str, language: str) -> list[str]:
        """Return the subwords of a raw line, in which ``<mask>`` is the mask symbol."""

    def ids(self, line: str, language: str) -> list[int]:
        """Return the ids of a raw line, without delimiters; ``<mask>`` as in :meth:`tokens`."""

    def words(self, line: str, language: str) -> list[str]:
        """Return the tokens of a raw line before it is split into subwords."""

    def text(self, ids: Iterable[int], language: str) -> str:
        """Return raw text, one line without tabs."""


def text_pipeline(settings: TextConfig, codes: Sequence[Code], vocab: Vocab) -> TextPipeline:
    """Return the pipeline of the tokenizer that ``vocab`` belongs to, or that of Moses' rules and the BPE ``codes``."""
    return TokenizerPipeline(vocab) if isinstance(vocab, TokenizerVocab) else BpePipeline(settings, codes, vocab)


class TokenizerPipeline(TextPipeline):
    """A tokenizer of Hugging Face's library, the same for all languages, for one line at a time."""

    def __init__(self, vocab: TokenizerVocab) -> None:
        self.vocab: Vocab = vocab
        self._tokenizer, self._mask = vocab.tokenizer, vocab.names["mask"]

    def tokens(self, line: str, language: str) -> list[str]:
        return list(self._encoded(line).tokens)

    def ids(self, line: str, language: str) -> list[int]:
        return list(self._encoded(line).ids)

    def _encoded(self, line: str) -> Any:
        return self._tokenizer.encode(line.replace(MASK_IN_TEXT, self._mask), add_special_tokens=False)

    def words(self, line: str, language: str) -> list[str]:
        """Return the words of a raw line, as blanks divide it."""
        return line.split()

    def text(self, ids: Iterable[int], language: str) -> str:
        text = str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
        return _LINE_BREAK.sub(" ", text).strip()  # bytes are tokens, too, so anything can be there


class BpePipeline(TextPipeline):
    """Moses' rules and BPE codes, for one line at a time. A language's tokenizer is built on its first use.

    Any number of threads and forked processes may use it, and it can be pickled. A tokenizer changes its caches, so
    each call has one to itself; there are as many as there were calls at the same time.
    """

    def __init__(self, settings: TextConfig, codes: Sequence[Code], vocab: Vocab) -> None:
        """``codes``: empty for a model imported without codes, which cannot split raw text into subwords."""
        self.vocab = vocab
        self._settings, self._codes = settings, codes
        self._detokenizer = cache(MosesDetokenizer)
        self._bpe = None
        self._idle: dict[str, deque[Tokenizer]] = {}
        if codes:
            with TemporaryDirectory() as directory:  # fastBPE reads a file only
                path = Path(directory) / "codes"
                write_codes(codes, path)
                self._bpe = Bpe(path)

    def tokens(self, line: str, language: str) -> list[str]:
        """Return the subwords of a raw line. ``<mask>`` becomes the mask symbol instead of being tokenized.

        Raises DataError if the model has no BPE codes.
        """
        if self._bpe is None:
            raise DataError(
                "the model has no BPE codes, so it cannot split raw text into subwords; with a .pth file, give "
                "codes=FILE, the codes that its data was prepared with; a run of it, import again with codes=FILE"
            )
        # Tokenization looks at a word's neighbours, so an ordinary word stands for the mask meanwhile.
        placeholder = "maskhere"
        masked = MASK_IN_TEXT in line
        with self._tokenizer(language) as tokenize:
            while masked and placeholder in tokenize(line):
                placeholder += "x"
            words = tokenize(line.replace(MASK_IN_TEXT, f" {placeholder} "))
        segmented = self._bpe.segment_all(words)
        if masked:
            segmented = [[SPECIALS[MASK]] if word == placeholder else part for word, part in zip(words, segmented)]
        return [subword for subwords in segmented for subword in subwords]

    def words(self, line: str, language: str) -> list[str]:
        with self._tokenizer(language) as tokenize:
            return tokenize(line)

    def ids(self, line: str, language: str) -> list[int]:
        return [self.vocab.id(token) for token in self.tokens(line, language)]

    def text(self, ids: Iterable[int], language: str) -> str:
        """Return raw text: subwords joined to words, and no blanks around punctuation, by the rules of Moses."""
        words = self.vocab.decode(ids).split()
        return str(self._detokenizer(language).detokenize(words, unescape=False))

    @contextmanager
    def _tokenizer(self, language: str) -> Iterator[Tokenizer]:
        """Lend an idle tokenizer, or a new one. After an exception it is not used again: its caches may be torn."""
        idle = self._idle.setdefault(language, deque())
        try:
            tokenizer = idle.pop()
        except IndexError:
            tokenizer = Tokenizer(language, self._settings)
        yield tokenizer
        idle.append(tokenizer)

    def __reduce__(self) -> tuple[type[BpePipeline], tuple[TextConfig, Sequence[Code], Vocab]]:
        return BpePipeline, (self._settings, self._codes, self.vocab)
