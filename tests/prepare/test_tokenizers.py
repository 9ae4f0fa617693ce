"""Text is prepared with a tokenizer of somebody else's, or a new one: the ids are those that it gives by itself."""

from __future__ import annotations

import json
import lzma
import struct
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from tests.support.foreign_tokenizers import (
    KINDS,
    LINES,
    ODD_LINES,
    SENTENCEPIECE,
    edit,
    write_sentencepiece,
    write_tokenizer,
)
from tests.support.tiny import tiny_config
from xlmtrain.config.prepare import (
    BpeConfig,
    NewTokenizerConfig,
    PrepareConfig,
    SplitConfig,
    TextConfig,
    TokenizerModel,
    VocabConfig,
)
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.data.validation import ValidationSet
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.statistics import Statistics
from xlmtrain.text.tokenizer_json import TokenizerVocab, read_tokenizer


def prepared(directory: Path, lines: list[str], **settings: Any) -> tuple[Dataset, Statistics]:
    """Prepare ``lines`` as text, and as both sides of pairs."""
    for language in ("de", "en"):
        (directory / f"text.{language}").write_bytes("".join(f"{line}\n" for line in lines).encode())
    split = SplitConfig(mono={"en": [f"{directory}/text.en"]}, pairs={"de-en": [f"{directory}/text.{{lang}}"]})
    output = directory / "prepared"
    config = PrepareConfig(output=str(output), train=split, workers=1, shard_mb=1, **settings)
    config.clean.decontaminate = False
    statistics = prepare(config)
    return Dataset(output), statistics


def sentences(dataset: Dataset, name: str) -> list[list[int]]:
    corpus = dataset.corpus(name)
    return [ids.tolist() for ids in corpus.sentences(range(len(corpus)))]


def check(dataset: Dataset, lines: list[str], own: Callable[[str], list[int]]) -> None:
    """Compare every corpus with the tokenizer's ``own`` ids; lines without any are left out."""
    expected = [[*own(line), dataset.vocab.special.eos] for line in lines if line.strip()]
    for name in ("train.en", "train.de-en.de", "train.de-en.en"):
        found = sentences(dataset, name)
        assert [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b] == []


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_tokenizer(kind: str, tmp_path: Path) -> None:
    folder, lines = write_tokenizer(kind, tmp_path / "tokenizer"), [*ODD_LINES, *LINES[:200]]
    dataset, statistics = prepared(tmp_path, lines, tokenizer=str(folder))
    own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    check(dataset, lines, lambda line: own.encode(line, add_special_tokens=False).ids)
    copied = (tmp_path / "prepared" / "tokenizer.json").read_bytes()
    assert copied == (folder / "tokenizer.json").read_bytes()
    assert dataset.header.dtype == "uint16"
    names = [dataset.vocab.tokens[i] for i in dataset.vocab.special[:5]]
    expected = (
        ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
        if kind == "wordpiece"
        else ["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    )
    assert names == expected
    ids = np.concatenate([sentence for name in dataset.header.corpora for sentence in sentences(dataset, name)])
    counted = np.bincount(ids, minlength=len(dataset.vocab))
    counted[dataset.vocab.is_special] = 0
    assert dataset.vocab.counts.tolist() == counted.tolist()
    total = {one.file: one for one in statistics.totals()}["train.en"]
    assert total.subwords == sum(len(sentence) - 1 for sentence in sentences(dataset, "train.en"))
    assert total.dropped["empty"] == 2
    assert 1 < total.subwords / total.words < 4


@pytest.mark.parametrize("kind", SENTENCEPIECE)
def test_ids_are_those_of_sentencepiece(kind: str, tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    path = write_sentencepiece(kind, tmp_path / "some.model")
    lines = [*ODD_LINES, *LINES[:500]]
    dataset, _ = prepared(tmp_path, lines, tokenizer=str(path))
    own = sentencepiece.SentencePieceProcessor(model_file=str(path))
    check(dataset, lines, own.encode)
    special, vocab = dataset.vocab.special, read_tokenizer(tmp_path / "prepared" / "tokenizer.json")
    assert (special.unk, special.bos, special.eos, special.pad, special.mask) == (0, 1, 2, 700, 701)
    converted = vocab.tokenizer.encode_batch(LINES[:500], add_special_tokens=False)
    assert [one.ids for one in converted] == own.encode(LINES[:500])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, *(f"sentencepiece {kind}" for kind in SENTENCEPIECE)])
def test_ids_of_real_text_are_those_of_the_tokenizer(kind: str, tmp_path: Path, shared: Path) -> None:
    files = sorted((shared / "corpora" / "mono").glob("*.xz"))
    texts = (lzma.decompress(file.read_bytes()).decode() for file in files)
    lines = [line for text in texts for line in text.split("\n")[:3000] if line]
    if kind in KINDS:
        path = write_tokenizer(kind, tmp_path / "tokenizer", 8000)
        tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        own = lambda line: tokenizer.encode(line, add_special_tokens=False).ids  # noqa: E731
    else:
        sentencepiece = pytest.importorskip("sentencepiece")
        path = write_sentencepiece(kind.split()[1], tmp_path / "some.model")
        own = sentencepiece.SentencePieceProcessor(model_file=str(path)).encode
    dataset, _ = prepared(tmp_path, lines, tokenizer=str(path))
    found = [ids[:-1] for ids in sentences(dataset, "train.en")]
    differing = [line for line, ids in zip(lines, found, strict=True) if own(line) != ids]
    assert differing == []


@pytest.mark.parametrize("model", TokenizerModel)
def test_a_new_tokenizer_is_trained_on_the_text(model: TokenizerModel, tmp_path: Path) -> None:
    lines = LINES[::6]
    dataset, statistics = prepared(tmp_path, lines, new_tokenizer=NewTokenizerConfig(model, 400))
    assert isinstance(dataset.vocab, TokenizerVocab)
    assert len(dataset.vocab) == 400
    check(dataset, lines, lambda line: dataset.vocab.tokenizer.encode(line, add_special_tokens=False).ids)
    text = lines[0]
    assert dataset.vocab.decode(dataset.vocab.tokenizer.encode(text, add_special_tokens=False).ids).strip() == text
    assert all(total.unknown == 0 for total in statistics.totals())
    again = read_tokenizer(tmp_path / "prepared" / "tokenizer.json")
    assert (again.special, again.fingerprint) == (dataset.vocab.special, dataset.vocab.fingerprint)


NEW = NewTokenizerConfig(TokenizerModel.bpe)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"tokenizer": "x", "bpe": BpeConfig(merges=5)}, "bpe.merges"),
        ({"tokenizer": "x", "vocab": VocabConfig(max_size=50)}, "vocab.max_size"),
        ({"tokenizer": "x", "text": TextConfig(lowercase=True, normalize_unicode=True)}, "text.lowercase"),
        ({"tokenizer": "x", "text": TextConfig()}, "text.normalize_unicode"),
        ({"tokenizer": "x", "bpe": BpeConfig(train_sample=5)}, "bpe.train_sample"),
        ({"tokenizer": "x", "new_tokenizer": NEW}, "new_tokenizer"),
        ({"new_tokenizer": NEW, "bpe": BpeConfig(codes="x")}, "bpe.codes"),
        ({"new_tokenizer": NewTokenizerConfig(size=5)}, "new_tokenizer.size"),
        ({"new_tokenizer": NEW, "bpe": BpeConfig(train_sample=5)}, None),
        ({"tokenizer": "x", "text": TextConfig(max_tokens=5, normalize_unicode=True)}, None),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], key: str | None) -> None:
    with pytest.raises(ConfigError, match=f"{key}: ") if key else nullcontext():
        PrepareConfig(output="x", train=SplitConfig(mono={"de": ["x"]}), **settings)


def damage(folder: Path, how: str) -> Path:
    """Damage the tokenizer in ``folder``; return the path to give."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    added = content["added_tokens"]
    if how in ("cut", "bytes"):
        path.write_bytes(path.read_bytes()[:900] if how == "cut" else b"\xff\xfe\x00")
    elif how in ("mask", "pad"):
        content["model"]["vocab"].pop(name := "[MASK]" if how == "mask" else "[PAD]")
        vocab = {token: i for i, token in enumerate(content["model"]["vocab"])}
        edit(
            folder,
            model={**content["model"], "vocab": vocab},
            added_tokens=[{**token, "id": vocab[token["content"]]} for token in added if token["content"] != name],
            post_processor=None,
        )
    elif how == "not added":
        edit(folder, added_tokens=[token for token in added if token["content"] != "[MASK]"])
    elif how == "id":
        edit(folder, added_tokens=[*added, {**added[0], "content": "[NEW]", "id": 5000}])
    elif how == "vocab_size":
        (folder / "config.json").write_text('{"vocab_size": 599}')
    elif how == "name":
        (folder / "special_tokens_map.json").write_text('{"mask_token": {"content": "<gone>"}}')
    elif how == "same":
        (folder / "tokenizer_config.json").write_text('{"mask_token": "[SEP]"}')
    elif how == "json":
        (folder / "tokenizer_config.json").write_text("{")
    elif how == "none":
        path.unlink()
    elif how == "models":
        path.unlink()
        (folder / "a.model").touch()
        (folder / "b.model").touch()
    elif how == "model":
        path.unlink()
        (folder / "a.model").write_bytes(b"\x0a\x05\x0a\x03abc" + struct.pack("<Q", 1 << 63))
    return folder


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "tokenizer.json: not a tokenizer that tokenizers"),
        ("bytes", "tokenizer.json: not a tokenizer that tokenizers"),
        ("mask", "has no mask token.*add_special_tokens"),
        ("pad", "has no pad token.*special_tokens_map.json"),
        ("not added", r"mask token '\[MASK\]' is an ordinary piece"),
        ("id", r"\[NEW\]' has the id 5000"),
        ("vocab_size", "ids up to 599.*vocab_size 599.*resize_token_embeddings"),
        ("name", "'<gone>' is not in the tokenizer"),
        ("same", "has another role"),
        ("json", "tokenizer_config.json: damaged"),
        ("none", "No such file.*save_pretrained"),
        ("models", "a.model and b.model"),
        ("model", "a.model: not a sentencepiece model"),
    ],
)
def test_a_faulty_tokenizer_is_one_error(how: str, words: str, tmp_path: Path) -> None:
    folder = damage(write_tokenizer("wordpiece", tmp_path / "tokenizer"), how)
    with pytest.raises(DataError, match=words):
        prepared(tmp_path, LINES[:5], tokenizer=str(folder))
    assert not (tmp_path / ".prepared.partial").exists()


def test_roles_and_size_are_those_of_the_folder(tmp_path: Path) -> None:
    """The files beside the tokenizer name its symbols; a model may have more entries, which no text becomes."""
    folder = write_tokenizer("byte_bpe", tmp_path / "tokenizer")
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "cls_token": "</s>", "mask_token": "<unk>"}')
    (folder / "special_tokens_map.json").write_text('{"mask_token": {"content": "<mask>"}}')
    (folder / "config.json").write_text('{"vocab_size": 70000}')
    edit(folder, truncation={"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0})
    dataset, _ = prepared(tmp_path, LINES[:20], tokenizer=str(folder))
    special = dataset.vocab.special
    assert (special.bos, special.eos, special.mask) == (2, 2, 4)
    assert (len(dataset.vocab), dataset.header.dtype) == (70000, "int32")
    assert max(map(len, sentences(dataset, "train.en"))) > 9
    assert not dataset.vocab.maskable[600:].any()


@pytest.mark.parametrize("file", ["tokenizer.json", "dataset.json", "token_counts"])
def test_edited_files_are_refused(file: str, tmp_path: Path) -> None:
    folder = write_tokenizer("byte_bpe", tmp_path / "tokenizer")
    prepared(tmp_path, LINES[:20], tokenizer=str(folder))
    path = tmp_path / "prepared" / file
    content = path.read_bytes()
    path.write_bytes(content[:-8] if file == "token_counts" else content.replace(b'"<mask>"', b'"<unk>"'))
    with pytest.raises(DataError, match=r"not those|not a count|has another role|not in the tokenizer"):
        Dataset(tmp_path / "prepared")


def test_batches_have_the_symbols_of_the_tokenizer(tmp_path: Path) -> None:
    folder = write_tokenizer("wordpiece", tmp_path / "tokenizer")
    dataset, _ = prepared(tmp_path, LINES[:80], tokenizer=str(folder))
    special, is_special = dataset.vocab.special, dataset.vocab.is_special
    data = {"data.mlm": {"en": 1.0}, "data.tlm": {"de-en": 1.0}, "model.max_positions": 128}
    config = tiny_config("run", tmp_path / "prepared", data)
    keys = {"mlm": "en", "tlm": "de-en", "dae": "en", "mt": "de-en"}
    batches = [batch for o, key in keys.items() for batch in ValidationSet(config, dataset, "train", o, key).batches()]
    loader = Loader(config, dataset)
    batches += [batch for step in range(4) for batch in loader.make(step, loader.sampler.initial_state()).batches]
    assert {batch.objective for batch in batches} == set(keys)
    for batch in batches:
        if batch.objective in ("mlm", "tlm"):
            assert not is_special[batch.targets].any()
            assert (batch.tokens == special.mask).any()
        for part in [batch, batch.source] if batch.source else [batch]:
            if batch.objective != "mlm" and part.lengths is not None:
                assert (part.tokens[:, 0] == special.bos).all()
                padding = torch.arange(part.tokens.shape[1]) >= part.lengths[:, None]
                assert (part.tokens[padding] == special.pad).all()
