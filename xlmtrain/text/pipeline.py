"""One raw sentence -> ids, exactly as in preparation: for use of a trained model."""

from __future__ import annotations

from pathlib import Path

from xlmtrain.config.prepare import TextConfig
from xlmtrain.text.binarize import Header
from xlmtrain.text.bpe import Bpe
from xlmtrain.text.tokenizer import Tokenizer
from xlmtrain.text.vocab import MASK, SPECIALS, Vocab

MASK_IN_TEXT = "<mask>"


class TextPipeline:
    """The steps of preparation for one line at a time; tokenizers are built when a language is first met."""

    def __init__(self, settings: TextConfig, codes: str | Path, vocab: Vocab) -> None:
        """``codes``: a file in fastBPE's format. Raises DataError if it is malformed."""
        self.vocab = vocab
        self._settings = settings
        self._bpe = Bpe(codes)
        self._tokenizers: dict[str, Tokenizer] = {}

    @classmethod
    def from_prepared(cls, directory: str | Path) -> TextPipeline:
        """The pipeline that made a prepared data set. Raises DataError if it is not one."""
        settings = TextConfig(**Header.read(directory).text)
        return cls(settings, Path(directory) / "codes", Vocab.read(Path(directory) / "vocab"))

    def tokens(self, line: str, language: str) -> list[str]:
        """Subwords of a raw line. ``<mask>`` becomes the mask symbol instead of being tokenized."""
        tokenize = self._tokenizer(language)
        # Tokenization looks at a word's neighbours, so an ordinary word holds the mask's place meanwhile.
        stand_in = "maskhere"
        while stand_in in tokenize(line):
            stand_in += "x"
        words = tokenize(line.replace(MASK_IN_TEXT, f" {stand_in} "))
        segmented = ([SPECIALS[MASK]] if word == stand_in else self._bpe.segment(word) for word in words)
        return [subword for subwords in segmented for subword in subwords]

    def ids(self, line: str, language: str) -> list[int]:
        """Ids of a raw line, without delimiters; ``<mask>`` as in :meth:`tokens`."""
        return [self.vocab.id(token) for token in self.tokens(line, language)]

    def _tokenizer(self, language: str) -> Tokenizer:
        if language not in self._tokenizers:
            self._tokenizers[language] = Tokenizer(language, self._settings)
        return self._tokenizers[language]
