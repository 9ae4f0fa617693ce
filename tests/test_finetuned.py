"""Fine-tuned models: used, exported for transformers, whose answers are the same, and read back from its folders."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import xlmtrain
from tests.support.foreign_tokenizers import LINES, write_tokenizer
from tests.support.tiny import ALONE
from tests.support.toy import result, run_toy, toy_config, toy_model
from xlmtrain.commands import export, predict
from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.families import Family
from xlmtrain.config.finetune import TaskKind
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import CheckpointError, ConfigError, DataError
from xlmtrain.finetuned import FinetunedModel
from xlmtrain.interop.bundle import FinetunedBundle, Provenance
from xlmtrain.interop.formats import read_finetuned_model, read_model
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.hf.parity import check_classifier_parity
from xlmtrain.model.classifier import Classifier
from xlmtrain.model.encoder import Encoder
from xlmtrain.text.tokenizer_json import read_tokenizer

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers package is not installed")

TEXTS = {"de": ["a b c", "d e f g h", "t"], "en": ["u v w x", "y", "A B"]}
LABELS = {TaskKind.tokens: ["B-X", "I-X", "O"], TaskKind.regression: []}
OWN_TOKENIZERS = {
    "bert": "wordpiece",
    "roberta": "byte_bpe",
    "xlm_roberta": "unigram",
    "modernbert": "byte_bpe",
    "jina_embeddings_v3": "unigram",
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers.logging.disable_progress_bar()


def bundle_of(
    tiny_dataset: Path, family: str, kind: TaskKind, pooling: Pooling = Pooling.first, tokenizer: Path | None = None
) -> FinetunedBundle:
    """Random weights; the vocabulary of the toy, or a tokenizer and then no language embeddings."""
    toy = toy_model(tiny_dataset)
    vocab = toy.vocab if tokenizer is None else read_tokenizer(tokenizer)
    config = ModelConfig(
        dim=32, layers=2, heads=2, max_positions=32, family=Family(family), language_embeddings=tokenizer is None
    )
    labels = LABELS.get(kind, ["no", "perhaps", "yes"])
    torch.manual_seed(3)
    encoder = Encoder(config, len(vocab), 2, vocab.special.pad)
    model = Classifier(encoder, len(labels) or 1, kind is TaskKind.tokens, pooling)
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    codes = toy.codes if tokenizer is None else []
    return FinetunedBundle(
        *(config, ["de", "en"], vocab, model.state_dict(), TextConfig(), codes, Provenance("made here")),
        kind=kind,
        labels=labels,
        pooling=pooling,
        max_tokens=30,
        pair=config.parts.classifier.pair,
    )


def numbers(model: FinetunedModel, texts: list[Any], lang: str) -> list[float]:
    """All probabilities, or numbers, of the answers."""
    if model.kind is TaskKind.tokens:
        return [one.probability for words in model.tag(texts, lang) for one in words]
    if model.kind is TaskKind.regression:
        return model.regress(texts, lang)
    return [row[label] for row in model.classify(texts, lang) for label in model.labels]


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param(family.value, kind, marks=() if i == j == 0 else pytest.mark.slow)
        for i, family in enumerate(Family)
        for j, kind in enumerate(TaskKind)
    ],
)
def test_transformers_computes_the_same(family: str, kind: TaskKind, tiny_dataset: Path, tmp_path: Path) -> None:
    pooling = Pooling.mean if family == "modernbert" and kind is not TaskKind.tokens else Pooling.first
    bundle = bundle_of(tiny_dataset, family, kind, pooling)
    write_hf_folder(bundle, tmp_path)
    assert check_classifier_parity(tmp_path, bundle, TEXTS).difference < 1e-6
    read = xlmtrain.load_finetuned(tmp_path / "de")
    assert (read.kind, read.labels, read.bundle.pooling) == (kind, bundle.labels, pooling)
    assert read.bundle.pair == bundle.pair
    given: list[Any] = TEXTS["de"] if kind is TaskKind.tokens else [("a b", "c"), ("d", "e f g")]
    assert numbers(read, given, "de") == pytest.approx(numbers(FinetunedModel(bundle), given, "de"), abs=1e-5)


@pytest.mark.parametrize("kind", [TaskKind.classification, TaskKind.tokens])
@pytest.mark.parametrize("family", list(OWN_TOKENIZERS))
def test_with_a_tokenizer_of_its_own(family: str, kind: TaskKind, tiny_dataset: Path, tmp_path: Path) -> None:
    folder = write_tokenizer(OWN_TOKENIZERS[family], tmp_path / "tokenizer")
    bundle = bundle_of(tiny_dataset, family, kind, tokenizer=folder)
    (tmp_path / "out").mkdir()
    write_hf_folder(bundle, tmp_path / "out")
    texts = [" ".join(line.split()[:4]) for line in LINES[:6]]
    check_classifier_parity(tmp_path / "out", bundle, {"de": texts, "en": texts})
    ours, read = FinetunedModel(bundle), xlmtrain.load_finetuned(tmp_path / "out")
    if kind is TaskKind.tokens:
        pipe = transformers.pipeline("token-classification", str(tmp_path / "out"), aggregation_strategy="simple")
        for text, found, again in zip(
            texts, ours.entities(texts, "de", "simple"), read.entities(texts, "de", "simple")
        ):
            theirs = pipe(text)
            assert [one.label for one in found] == [one["entity_group"] for one in theirs]
            assert [one.probability for one in found] == pytest.approx(
                [float(one["score"]) for one in theirs], abs=1e-5
            )
            assert found == again
        return
    pipe = transformers.pipeline("text-classification", str(tmp_path / "out"), top_k=None)
    pairs = list(pairwise(texts))
    for one, given, again in zip(pairs, ours.classify(pairs, "de"), read.classify(pairs, "de")):
        theirs = {row["label"]: row["score"] for row in pipe({"text": one[0], "text_pair": one[1]})}
        assert given == pytest.approx(theirs, abs=1e-5)
        assert given == pytest.approx(again, abs=1e-6)


@pytest.mark.parametrize("types", [True, False])
def test_a_classifier_that_transformers_saved(types: bool, tmp_path: Path) -> None:
    """With token types where its tokenizer gives them, and unnamed labels."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(write_tokenizer("wordpiece", tmp_path / "tokenizer") / "tokenizer.json"),
        model_input_names=["input_ids", *["token_type_ids"] * types, "attention_mask"],
        **{f"{name.lower()}_token": f"[{name}]" for name in ("CLS", "SEP", "PAD", "UNK", "MASK")},
    )
    ids = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer._tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        num_labels=3, pad_token_id=tokenizer.pad_token_id, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pairs = list(zip(LINES[:4], LINES[4:8]))
    ours = xlmtrain.load_finetuned(tmp_path)
    assert ours.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    with torch.no_grad():
        expected = [model(**tokenizer(*pair, return_tensors="pt")).logits.softmax(-1)[0].tolist() for pair in pairs]
    found = ours.classify(pairs, ours.languages[0])
    assert [[row[label] for label in ours.labels] for row in found] == [
        pytest.approx(row, abs=1e-5) for row in expected
    ]


def test_the_directory_of_a_fine_tuning(tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The best seed answers; scores of the test file are those of the fine-tuning; a test file may lack labels."""
    config = toy_config(tmp_path, seeds=[0, 1], epochs=1)
    valid = {"en": str(tmp_path / "valid.en.tsv")}
    config = replace(config, task=replace(config.task, valid=valid))
    run_toy(ALONE, config, toy_model(tiny_dataset))
    best = max((0, 1), key=lambda seed: result(config, seed)["best"])
    model, chosen = (xlmtrain.load_finetuned(path) for path in (config.run, Path(config.run) / f"seed-{best}"))
    assert model.classify(["a b"], "de") == chosen.classify(["a b"], "de")
    (one,) = model.classify(["a b c"], "de")
    assert list(one.values()) == sorted(one.values(), reverse=True)
    assert sum(one.values()) == pytest.approx(1)
    capsys.readouterr()
    predict.main([f"model={config.run}", "lang=de", f"file={tmp_path / 'test.de.tsv'}", f"output={tmp_path / 'o'}"])
    shown = capsys.readouterr().out
    accuracy = result(config, best)["test"]["de"]["metrics"]["accuracy"]
    assert f"{accuracy:.1f}" in shown
    lines = (tmp_path / "o").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    texts = [line.partition("\t")[2] for line in (tmp_path / "test.de.tsv").read_text().splitlines()]
    assert [line.split("\t")[1] for line in lines[1:]] == model.predict(texts, "de")
    (tmp_path / "unlabelled").write_text("index\tsentence\n" + "".join(f"{i}\t{t}\n" for i, t in enumerate(texts)))
    capsys.readouterr()
    predict.main([f"model={config.run}", "lang=de", f"file={tmp_path / 'unlabelled'}"])
    printed = capsys.readouterr().out
    assert printed.splitlines() == lines
    export.main([f"model={config.run}", f"output={tmp_path / 'hf'}"])
    assert "ForSequenceClassification" in (tmp_path / "hf" / "README.md").read_text()
    with pytest.raises(CheckpointError, match="a fine-tuned model; use it by xlmtrain predict"):
        read_model(config.run)
    with pytest.raises(ConfigError, match=r"tag: this model was fine-tuned with task.kind=classification"):
        model.tag(["a"], "de")
    with pytest.raises(ConfigError, match=r"lang: fr is none of the model's languages"):
        model.classify(["a"], "fr")
    with pytest.raises(DataError, match="not both"):
        model.classify(["a", ("a", "b")], "de")


def test_tags_of_words_and_entities(tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundle_of(tiny_dataset, "xlm", TaskKind.tokens)
    model = FinetunedModel(bundle)
    ((a, ab, c),) = model.tag([["a", "ab", "c"]], "de")
    assert (a.word, ab.word, c.word) == ("a", "ab", "c")
    assert [one.word for one in model.tag(["a b c"], "de")[0]] == ["a", "b", "c"]
    assert model.tag(["a b c"], "de") == model.tag([["a", "b", "c"]], "de")
    assert model.tag(iter([iter(["a", "b", "c"])]), "de") == model.tag([["a", "b", "c"]], "de")
    with pytest.raises(ConfigError, match="a list of sentences is needed, not 'a b'"):
        model.tag("a b", "de")
    assert model.tag([""], "de") == [[]]
    (long,) = model.tag([["a"] * 40], "de")  # more words than positions
    assert [one.probability > 0 for one in long] == [True] * 30 + [False] * 10
    for entity in model.entities(["a b c d e f"], "de")[0]:
        assert entity.text == " ".join("abcdef"[entity.start : entity.end])
    (tmp_path / "model").mkdir()
    write_hf_folder(bundle, tmp_path / "model")
    (tmp_path / "words").write_text("a\nb\n\nc\n", encoding="utf-8")
    capsys.readouterr()
    predict.main([f"model={tmp_path / 'model' / 'de'}", "lang=de", f"file={tmp_path / 'words'}"])
    printed = capsys.readouterr().out
    assert [line.partition("\t")[0] for line in printed.splitlines()] == ["a", "b", "", "c"]


def test_a_mean_over_the_text_is_not_exported_where_transformers_has_none(tiny_dataset: Path, tmp_path: Path) -> None:
    bundle = bundle_of(tiny_dataset, "xlm", TaskKind.classification, Pooling.mean)
    with pytest.raises(ConfigError, match=r"has no mean over the text; fine-tune with train.pooling=first"):
        write_hf_folder(bundle, tmp_path / "out")


def test_a_language_model_is_not_fine_tuned(tiny_dataset: Path, tmp_path: Path) -> None:
    write_hf_folder(toy_model(tiny_dataset), tmp_path)
    with pytest.raises(CheckpointError, match="which was not fine-tuned"):
        read_finetuned_model(tmp_path)
