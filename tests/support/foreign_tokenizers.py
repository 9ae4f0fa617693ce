"""Small tokenizers of Hugging Face's library and of sentencepiece, trained on the sample corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.support.repository import REPOSITORY

try:
    import sentencepiece
except ImportError:
    sentencepiece = None  # type: ignore[assignment]

LINES = [
    line
    for language in ("de", "en")
    for line in (REPOSITORY / "data" / "sample" / f"train.{language}").read_text(encoding="utf-8").split("\n")[:1500]
]
ODD_LINES = [
    *("", "   ", " zwei  Leerzeichen ", "\tTab und\u00a0mehr", "u\u0308ber naive cafés", "☃☃ 漢字 👩‍👩‍👧", "a" * 300),
    *("<s> </s> <pad> <mask> [MASK]", "....................", "Straße\u00adnbahn ﬁ ½", "▁x ▁▁", "x\u2028y\x1fz"),
]
KINDS = ("byte_bpe", "unigram", "wordpiece")
SENTENCEPIECE = ("unigram", "bpe")
_ROBERTA = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_tokenizer(kind: str, folder: Path, size: int = 600) -> Path:
    """Write ``tokenizer.json`` of one of ``KINDS`` into a new ``folder``."""
    special, trainer = _ROBERTA, Any
    if kind == "byte_bpe":
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet)
    elif kind == "unigram":
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>")
    else:
        special = _BERT
        tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special)
    trainer.show_progress = False
    tokenizer.train_from_iterator(LINES, trainer)
    bos, eos = (special[1], special[2]) if special is _ROBERTA else (special[2], special[3])
    ids = [(name, tokenizer.token_to_id(name)) for name in (bos, eos)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A {eos}", special_tokens=ids)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_sentencepiece(kind: str, path: Path) -> Path:
    """Train a sentencepiece model, BPE with a piece for each byte, and write it to ``path``. Needs the package."""
    text = path.with_suffix(".txt")
    text.write_text("\n".join(filter(None, LINES)), encoding="utf-8")
    settings = {"byte_fallback": True, "character_coverage": 0.99} if kind == "bpe" else {}
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(path.with_suffix("")),
        model_type=kind,
        vocab_size=700,
        minloglevel=2,
        **settings,
    )
    return path


def edit(folder: Path, **changes: Any) -> None:
    """Change entries of ``tokenizer.json``."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
