"""A tokenizer gets further entries from the text: its own stay, and a model's new rows are the mean of their pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from tests.support.foreign_tokenizers import KINDS, LINES, edit, write_sentencepiece, write_tokenizer
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.prepare import PrepareConfig, SplitConfig, TextConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.interop.warm_start import matching_weights
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.text.tokenizer_json import TokenizerVocab, read_tokenizer

ENTRIES = 100


def folder_of(kind: str, directory: Path) -> Path:
    """A tokenizer; of "padded" the mask is no entry of its model, and the language model has more rows."""
    folder = write_tokenizer("byte_bpe" if kind == "padded" else kind, directory / "tokenizer")
    if kind == "padded":
        content = json.loads((folder / "tokenizer.json").read_bytes())
        tokens = [token for token in content["model"]["vocab"] if token != "<mask>"]
        ids = {token: i for i, token in enumerate([*tokens, "<mask>"])}
        content["model"]["vocab"] = {token: ids[token] for token in tokens}
        for token in content["added_tokens"]:
            token["id"] = ids[token["content"]]
        edit(folder, **content)
        (folder / "config.json").write_text(json.dumps({"vocab_size": 640}))
    return folder


def prepared(directory: Path, tokenizer: Path, entries: int = ENTRIES) -> Dataset:
    (directory / "text.de").write_text("\n".join(LINES[:800]) + "\n", encoding="utf-8")
    train = SplitConfig(mono={"de": [str(directory / "text.de")]})
    output = str(directory / f"prepared{entries}")
    prepare(PrepareConfig(output=output, train=train, tokenizer=str(tokenizer), extend_tokenizer=entries, workers=1))
    return Dataset(output)


def bundle_of(vocab: TokenizerVocab, **config: Any) -> PretrainedBundle:
    torch.manual_seed(0)
    shape = ModelConfig(dim=8, layers=1, heads=1, max_positions=32, language_embeddings=False, **config)
    weights = LanguageModel(shape, len(vocab), 1, vocab.special).state_dict()
    return PretrainedBundle(shape, ["de"], vocab, weights, TextConfig(), [], Provenance("toy"))


@pytest.mark.parametrize("kind", [*KINDS, "padded"])
def test_entries_are_added_and_the_old_ones_stay(kind: str, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path)
    old, dataset = read_tokenizer(folder), prepared(tmp_path, folder)
    new = dataset.vocab
    assert isinstance(new, TokenizerVocab)
    assert len(new) == len(old) + ENTRIES
    assert new.tokens[: len(old)] == old.tokens
    assert (new.special, new.names) == (old.special, old.names)
    before, after = (
        [v.tokenizer.encode(line, add_special_tokens=False).ids for line in LINES[:800]] for v in (old, new)
    )
    assert sum(map(len, after)) < 0.93 * sum(map(len, before))
    used = {i for ids in after for i in ids}
    assert len(used & set(range(len(old), len(new)))) > 0.8 * ENTRIES  # 90 to 100: WordPiece is trained in random order
    assert [new.decode(ids) for ids in after] == [old.decode(ids) for ids in before]  # no letter is lost
    stored = dataset.corpus("train.de")
    assert [ids[:-1].tolist() for ids in stored.sentences(range(len(stored)))] == [ids for ids in after if ids]
    own = tokenizers.Tokenizer.from_file(str(dataset.path / "tokenizer.json"))
    assert own.encode("Die <mask> schläft.".replace("<mask>", old.names["mask"])).ids.count(old.special.mask) == 1


@pytest.mark.parametrize("kind", [*KINDS, "padded"])
@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_are_the_mean_of_their_pieces(kind: str, tied: bool, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path)
    old, dataset = read_tokenizer(folder), prepared(tmp_path, folder)
    bundle = bundle_of(old, tie_embeddings=tied)
    weights = matching_weights(bundle, bundle.config, dataset)
    names = ["encoder.token_embeddings.weight", "head.bias", *([] if tied else ["head.weight"])]
    for name, weight in bundle.weights.items():
        assert torch.equal(weights[name][: len(weight)], weight)
        assert len(weights[name]) == len(weight) + ENTRIES * (name in names)
    checked = 0
    for line in LINES[:800]:
        for word in line.split():
            ids = dataset.vocab.tokenizer.encode(f" {word}", add_special_tokens=False).ids  # type: ignore[attr-defined]
            if len(ids) == 1 and ids[0] >= len(old):
                pieces = old.tokenizer.encode(f" {word}", add_special_tokens=False).ids
                assert len(pieces) > 1
                for name in names:
                    mean = bundle.weights[name][pieces].mean(dim=0)
                    torch.testing.assert_close(weights[name][ids[0]], mean, rtol=0, atol=1e-6)
                checked += 1
    assert checked > 100


def test_another_tokenizer_is_no_extension(tmp_path: Path) -> None:
    folder = folder_of("byte_bpe", tmp_path)
    bundle, data = bundle_of(read_tokenizer(folder)), prepared(tmp_path, folder)
    content = json.loads((folder / "tokenizer.json").read_bytes())["model"]
    tokens = [*content["vocab"]]
    tokens[300], tokens[301] = tokens[301], tokens[300]
    edit(folder, model={**content, "vocab": {token: i for i, token in enumerate(tokens)}})
    with pytest.raises(ConfigError, match="its vocabulary is not that of the data"):
        matching_weights(bundle_of(read_tokenizer(folder)), bundle.config, data)


def test_what_cannot_be_extended_is_refused(tmp_path: Path) -> None:
    folder = folder_of("byte_bpe", tmp_path)
    edit(folder, pre_tokenizer=None)
    with pytest.raises(DataError, match=r"extend_tokenizer: works for BPE.*without"):
        prepared(tmp_path, folder)
    with pytest.raises(ConfigError, match="extend_tokenizer: give the tokenizer"):
        PrepareConfig(output="o", train=SplitConfig(mono={"de": ["x"]}), extend_tokenizer=5)
    pytest.importorskip("sentencepiece")
    with pytest.raises(DataError, match=r"a sentencepiece \.model cannot be extended"):
        prepared(tmp_path, write_sentencepiece("unigram", tmp_path / "some.model"))
