"""One raw sentence -> ids, exactly as in preparation: for use of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import DataError
from xlmtrain.text.bpe import Bpe, Code, write_codes
from xlmtrain.text.tokenizer import Tokenizer
from xlmtrain.text.vocab import MASK, SPECIALS, Vocab

MASK_IN_TEXT = "<mask>"


class TextPipeline:
    """The steps of preparation for one line at a time; tokenizers are built when a language is first met."""

    def __init__(self, settings: TextConfig, codes: Sequence[Code], vocab: Vocab) -> None:
        """``codes``: none for a model that came without them, which then cannot split raw text into subwords."""
        self.vocab = vocab
        self._settings = settings
        self._bpe = None
        self._tokenizers: dict[str, Tokenizer] = {}
        if codes:
            with TemporaryDirectory() as directory:  # fastBPE reads a file only
                path = Path(directory) / "codes"
                write_codes(codes, path)
                self._bpe = Bpe(path)

    def tokens(self, line: str, language: str) -> list[str]:
        """Subwords of a raw line. ``<mask>`` becomes the mask symbol instead of being tokenized.

        Raises DataError if the model has no BPE codes.
        """
        if self._bpe is None:
            raise DataError(
                "the model has no BPE codes, without which raw text cannot be split into its subwords; import it again "
                "with codes=FILE, the codes that its data was made with"
            )
        tokenize = self._tokenizer(language)
        # Tokenization looks at a word's neighbours, so an ordinary word holds the mask's place meanwhile.
        stand_in = "maskhere"
        while stand_in in tokenize(line):
            stand_in += "x"
        words = tokenize(line.replace(MASK_IN_TEXT, f" {stand_in} "))
        segment = self._bpe.segment
        segmented = ([SPECIALS[MASK]] if word == stand_in else segment(word) for word in words)
        return [subword for subwords in segmented for subword in subwords]

    def ids(self, line: str, language: str) -> list[int]:
        """Ids of a raw line, without delimiters; ``<mask>`` as in :meth:`tokens`."""
        return [self.vocab.id(token) for token in self.tokens(line, language)]

    def _tokenizer(self, language: str) -> Tokenizer:
        if language not in self._tokenizers:
            self._tokenizers[language] = Tokenizer(language, self._settings)
        return self._tokenizers[language]
