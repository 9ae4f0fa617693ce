"""New tokenizers, trained by Hugging Face's ``tokenizers`` library.

The special tokens are RoBERTa's. A sentence becomes ``<s> text </s>``, and a pair what a model reads in TLM,
``<s> a </s> <s> b </s>``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from xlmtrain.config.prepare import TokenizerModel
from xlmtrain.errors import DataError
from xlmtrain.text.delimiters import delimit_as_in_training
from xlmtrain.text.tokenizer_json import TokenizerVocab, tokenizer_errors

try:
    import tokenizers
except ImportError:
    tokenizers = None  # type: ignore[assignment]

_SPECIAL = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}


def new_tokenizer(texts: Iterable[list[str]], model: str, size: int) -> TokenizerVocab:
    """Train a tokenizer of up to ``size`` entries on lists of lines. Letters and accents are composed (NFC).

    Raises DataError if the library cannot train one, for example of too few entries.
    """
    # The sums of the unigram trainer depend on the number of threads.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    special = [tokenizers.AddedToken(name, lstrip=name == _SPECIAL["mask"]) for name in _SPECIAL.values()]
    if model == TokenizerModel.bpe:
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        if size < len(alphabet) + len(special):
            raise DataError(
                f"new_tokenizer.size: {size} is less than the {len(alphabet) + len(special)} of bytes alone"
            )
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.normalizer = tokenizers.normalizers.NFC()
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        trainer: Any = tokenizers.trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
        spaces = tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
        steps = [tokenizers.normalizers.NFC(), spaces, tokenizers.normalizers.Strip()]
        tokenizer.normalizer = tokenizers.normalizers.Sequence(steps)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        tokenizer.decoder = tokenizers.decoders.Metaspace()
        trainer = tokenizers.trainers.UnigramTrainer(
            vocab_size=size, special_tokens=special, unk_token=_SPECIAL["unk"], show_progress=False
        )
    with tokenizer_errors("new_tokenizer: cannot be trained", "; is there enough text, or is size too small?"):
        tokenizer.train_from_iterator(texts, trainer)
        delimit_as_in_training(tokenizer, _SPECIAL)
    return TokenizerVocab(tokenizer.to_str().encode(), _SPECIAL)
