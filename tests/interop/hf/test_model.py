"""Folders that transformers loads: the same model, the same ids, whoever asks."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import xlmtrain
from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from xlmtrain.commands import checkpoint as checkpoint_tool
from xlmtrain.commands import evaluate as evaluate_tool
from xlmtrain.commands import export as tool
from xlmtrain.config.model import Activation, ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import CheckpointError, ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf import export, parity
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.hf.parity import check_hf_parity
from xlmtrain.interop.xlm.conversion import write_xlm_checkpoint
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.bpe import Code
from xlmtrain.text.vocab import UNK, Vocab

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers package is not installed")

SENTENCES = {
    "de": ["Die Katze schläft.", "Das ist am 3. Oktober z. B. so!", "„Ja“, sagte er"],
    "en": ["It's 5 p.m. - no?", "so"],
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def model_of(languages: list[str], text: TextConfig | None = None, **changes: Any) -> PretrainedBundle:
    """Random weights, a few whole words, and codes that also make ``wever``, which the vocabulary does not list."""
    pairs = [
        "D i",
        "Di e</w>",
        "K a",
        "Ka t",
        "z e</w>",
        "i s",
        "is t</w>",
        "s o</w>",
        "w e",
        "we v",
        "wev e",
        "weve r</w>",
        "h o",
        "ho wever</w>",
    ]
    vocab = Vocab(
        (word, 99 - i)
        for i, word in enumerate(["Die", "Kat@@", "ze", "ist", "so", "however", *"abDKiesowvrt.,!-3", "e@@", "r@@"])
    )
    config = ModelConfig(**{"dim": 16, "layers": 2, "heads": 2, "max_positions": 64, "dropout": 0.0, **changes})
    torch.manual_seed(3)
    module = LanguageModel(config, len(vocab), len(languages))
    weights = {name: weight.detach() for name, weight in module.state_dict().items()}
    codes = [Code(*pair.split(" "), 0) for pair in pairs]
    return PretrainedBundle(config, languages, vocab, weights, text or TextConfig(), codes, Provenance("made here"))


def same(first: PretrainedBundle, second: PretrainedBundle) -> bool:
    assert (first.config, first.languages, first.text) == (second.config, second.languages, second.text)
    assert first.vocab.tokens == second.vocab.tokens
    assert first.vocab.counts.tolist() == second.vocab.counts.tolist()
    assert [(code.left, code.right) for code in first.codes] == [(code.left, code.right) for code in second.codes]
    assert first.weights.keys() == second.weights.keys()
    return all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``model_of(["de", "en"])``: not to be changed."""
    path = tmp_path_factory.mktemp("written") / "model"
    path.mkdir()
    write_hf_folder(model_of(["de", "en"]), path)
    return path


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "copy")


@pytest.fixture(scope="module")
def causal_run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("causal") / "run"
    clm = {"data.mlm": {}, "data.tlm": {}, "data.clm": {"de": 1.0, "en": 1.0}, "evaluate.metric": "valid/clm_ppl"}
    train_alone(
        tiny_config(path, tiny_dataset, {**clm, "train.steps": 10, "train.save_every": 5, "train.keep_last": 2})
    )
    return path


def test_a_causal_model_stays_causal_in_every_format(causal_run: Path, tmp_path: Path) -> None:
    expected = xlmtrain.load(causal_run).score(["a d k n"], "de")[0].log_probability
    sentences = tmp_path / "text"
    sentences.write_text("a b c\nd\n")
    for number, forms in enumerate((["run", "xlm", "run", "hf"], ["hf", "run"], ["xlm", "hf", "xlm"])):
        model, given = causal_run, []
        for step, form in enumerate(forms):
            output = tmp_path / f"{number}-{step}-{form}"
            extra = [f"sentences={sentences}"] if form == "hf" else []
            tool.main([f"model={model}", f"format={form}", f"output={output}", *given, *extra])
            model, given = output, [f"codes={causal_run / 'codes'}"] if form == "xlm" else []
            loaded = xlmtrain.load(model, codes=causal_run / "codes" if form == "xlm" else None)
            assert loaded.causal
            assert loaded.score(["a d k n"], "de")[0].log_probability == pytest.approx(expected, rel=1e-6)
            with pytest.raises(ConfigError, match="no masks to fill"):
                loaded.fill_mask("a <mask>", "de")


def test_a_causal_mean_is_evaluated_causally(
    causal_run: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint_tool.main(["average", f"run={causal_run}", "last=1", f"output={tmp_path / 'mean'}"])
    capsys.readouterr()
    printed = []
    for model in (causal_run / "checkpoints" / "step-00000010", tmp_path / "mean"):
        evaluate_tool.main([f"model={model}", f"data={tiny_dataset}", "sequence_length=16"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "valid/clm" in printed[0]


def test_a_causal_folder_is_causal_for_transformers(
    causal_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "causal model"
    tool.main([f"model={causal_run}", "format=hf", f"output={folder}"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "A causal language model" in card
    assert "fill-mask" not in card
    assert not (folder / "fill_mask.py").exists()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code[1], names)
    with torch.no_grad():
        longer = names["model"](torch.cat([names["inputs"]["input_ids"], torch.tensor([[14, 15]])], dim=1)).logits
    assert torch.allclose(longer[:, : names["logits"].shape[1]], names["logits"], atol=1e-5)  # later tokens are unseen
    config = json.loads((folder / "de" / "config.json").read_text())
    (folder / "de" / "config.json").write_text(json.dumps({**config, "causal": False}))
    with pytest.raises(DataError, match="transformers' logits differ"):
        check_hf_parity(folder, read_model(causal_run), {"de": ["a b c d"], "en": ["u v"]})


VARIANTS: list[tuple[list[str], dict[str, Any]]] = [
    (["de", "en"], {}),
    (["en", "de", "en_GB"], {}),
    (["de"], {}),
    (["de", "en"], {"tie_embeddings": False}),
    (["de", "en"], {"language_embeddings": False}),
    (["de", "en"], {"sinusoidal_positions": True, "activation": Activation.relu}),
]


@pytest.mark.parametrize(("languages", "changes"), VARIANTS)
def test_there_and_back_and_the_same_for_transformers(
    tmp_path: Path, languages: list[str], changes: dict[str, Any]
) -> None:
    model = model_of(languages, **changes)
    write_hf_folder(model, tmp_path)
    assert same(read_model(tmp_path), model)
    report = check_hf_parity(tmp_path, model, {name: SENTENCES.get(name, ["so"]) for name in languages})
    assert report.difference < 1e-6
    assert report.sentences["de"] == 3
    transformers.AutoModel.from_pretrained(tmp_path)


def test_text_settings_come_along(tmp_path: Path) -> None:
    model = model_of(["de", "en"], TextConfig(lowercase=True, remove_accents=True))
    write_hf_folder(model, tmp_path)
    assert same(read_model(tmp_path), model)
    check_hf_parity(tmp_path, model, SENTENCES)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["do_lowercase_and_remove_accent"] is True
    cased = model_of(["de", "en"])
    write_hf_folder(cased, tmp_path / "cased")
    assert (
        json.loads((tmp_path / "cased" / "tokenizer_config.json").read_text())["do_lowercase_and_remove_accent"]
        is False
    )


@pytest.mark.parametrize("text", [TextConfig(lowercase=True), TextConfig(remove_accents=True)])
def test_a_languages_folder_keeps_each_text_setting(tmp_path: Path, text: TextConfig) -> None:
    model = model_of(["de", "en"], text)
    write_hf_folder(model, tmp_path)
    for language in ("de", "en"):
        read = read_model(tmp_path / language)
        assert read.text == text
        assert read.pipeline().tokens("Höher", language) == model.pipeline().tokens("Höher", language)


def test_what_version_0_1_0_exported_is_read_under_todays_names(copy: Path) -> None:
    extra = json.loads((copy / "xlmtrain.json").read_text())
    del extra["provenance"]
    extra["history"] = {
        "source": "elsewhere",
        "step": 7,
        "settings": {"data": {"mlm": {}, "clm": {"de": 1.0}}, "mask": {"rate": 0.3}},
        "corpora": {},
        "figures": {"valid/de-en_alone_acc": 1.0},
    }
    (copy / "xlmtrain.json").write_text(json.dumps(extra))
    read = read_model(copy)
    assert read.provenance.step == 7
    assert read.provenance.settings["mask"] == {"prob": 0.3}
    assert read.provenance.metrics == {"valid/de-en_cloze_mono_acc": 1.0}
    assert read.causal


def _swap(values: dict[str, int], number: int = 0) -> None:
    """Exchange the values of an entry and the next."""
    (first, one), (second, other) = list(values.items())[number : number + 2]
    values[first], values[second] = other, one


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("tokenizer.json", lambda content: _swap(content["model"]["vocab"], number=20)),
        ("tokenizer.json", lambda content: content["model"]["merges"].pop(0)),
        ("config.json", lambda config: _swap(config["lang2id"])),
        ("xlmtrain.json", lambda extra: extra["text"].update(lowercase=True)),
    ],
)
def test_an_exported_folder_that_was_edited_is_refused(
    copy: Path, name: str, edit: Callable[[dict[str, Any]], None]
) -> None:
    path = copy / name
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="are not those that the model was exported with; export it again"):
        read_model(copy)


def test_the_tied_matrix_is_stored_once(written: Path) -> None:
    assert "pred_layer.proj.weight" not in load_file(written / "model.safetensors")
    assert (written / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_what_transformers_saves_is_read_too(written: Path, tmp_path: Path) -> None:
    transformers.AutoModelForMaskedLM.from_pretrained(written).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "xlmtrain.json"):
        shutil.copyfile(written / name, tmp_path / name)
    assert same(read_model(tmp_path), model_of(["de", "en"]))


@pytest.mark.parametrize(
    ("home", "text"), [("", TextConfig()), ("en", TextConfig(lowercase=True)), ("en", TextConfig(True, True))]
)
def test_what_transformers_saves_is_all_that_is_needed(tmp_path: Path, text: TextConfig, home: str) -> None:
    """Also after training there: symbols that the vocabulary does not list then have embeddings of their own."""
    exported, saved = tmp_path / "exported", tmp_path / "saved"
    exported.mkdir()
    write_hf_folder(model_of(["de", "en"], text), exported)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(exported / home)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported, subfolder="en")
    theirs.save_pretrained(saved)
    with pytest.raises(CheckpointError, match="save the tokenizer into the folder, too"):
        read_model(saved)
    tokenizer.save_pretrained(saved)
    assert not (saved / "vocab.json").exists()
    read, expected = read_model(saved), read_model(exported / home)
    assert same(replace(read, vocab=expected.vocab), expected)  # the counts are lost
    assert read.vocab.tokens == expected.vocab.tokens
    with torch.no_grad():
        theirs.transformer.embeddings.weight[len(read.vocab) :] += 0.5
    theirs.save_pretrained(saved, max_shard_size="5KB")
    assert len(list(saved.glob("model-*.safetensors"))) > 1
    (saved / "model.safetensors").unlink()
    trained = xlmtrain.load(saved)
    for sentence in ("so wever <mask>", "Die Katze ist höher <mask>"):
        inputs = tokenizer(sentence, return_tensors="pt")
        assert inputs["input_ids"][0, 1:-1].tolist() == trained.text.ids(sentence, "en")
        langs = {"langs": torch.ones_like(inputs["input_ids"])} if not home else {}
        with torch.no_grad():
            logits = theirs.eval()(**inputs, **langs).logits[0, inputs["input_ids"][0] == 5]
        guesses = trained.fill_mask(sentence, "en", k=1)[0]
        assert guesses[0].probability == pytest.approx(float(logits.softmax(-1).max()), rel=1e-4)
        assert trained.text.vocab.id(guesses[0].word) == int(logits.argmax())
    sharded = read_model(saved)
    weights = {name: weight.clone() for name, weight in theirs.state_dict().items()}
    halves = [OrderedDict((name, weights[name]) for name in list(weights)[half::2]) for half in (0, 1)]
    for half, content in enumerate(halves):
        torch.save(content, saved / f"pytorch_model-{half}.bin")
    listed = {name: f"pytorch_model-{half}.bin" for half, content in enumerate(halves) for name in content}
    (saved / "model.safetensors.index.json").rename(saved / "other.json")
    (saved / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": listed}))
    assert same(read_model(saved), sharded)
    torch.save(theirs.state_dict(), saved / "pytorch_model.bin")  # as transformers 4
    assert same(read_model(saved), sharded)
    (saved / "other.json").rename(saved / "model.safetensors.index.json")
    next(saved.glob("model-*.safetensors")).rename(tmp_path / "part")
    with pytest.raises(CheckpointError, match=r"(?i)no such file or directory: .*model-0000"):
        read_model(saved)
    theirs.transformer.save_pretrained(saved)
    with pytest.raises(CheckpointError, match="no output layer"):
        read_model(saved)
    theirs.save_pretrained(saved)
    tool.main([f"model={saved}", "format=run", f"output={tmp_path / 'run'}"])
    assert read_model(tmp_path / "run").vocab.tokens == trained.text.vocab.tokens
    tokenizer.add_tokens(["Sofa"])
    tokenizer.save_pretrained(saved)
    with pytest.raises(CheckpointError, match="added after training, such as 'Sofa'"):
        read_model(saved)
    (saved / "tokenizer.json").write_text(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    with pytest.raises(DataError, match="bos token '</s>' is not in the tokenizer"):
        read_model(saved)


def test_a_folder_as_published_in_2019(copy: Path) -> None:
    """Without our file and our tokenizer: the names of the early versions, and their lower-casing by default."""
    model, tmp_path = model_of(["de", "en"]), copy
    for name in ("xlmtrain.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    published = {
        key: value for key, value in config.items() if not key.endswith("_token_id") and key != "tie_word_embeddings"
    }
    published |= {"share_inout_emb": True, "mask_token_id": 0, "same_enc_dec": True, "end_n_top": 5}
    (tmp_path / "config.json").write_text(json.dumps(published))
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    merges = (tmp_path / "merges.txt").read_text().splitlines()
    (tmp_path / "merges.txt").write_text("\n".join(f"{line} {7 * i}" for i, line in enumerate(merges)) + "\n")
    read = read_model(tmp_path)
    assert read.text == TextConfig(lowercase=True, remove_accents=True)
    assert all(torch.equal(read.weights[name], model.weights[name]) for name in model.weights)
    assert (read.vocab.tokens, read.languages) == (model.vocab.tokens, ["de", "en"])


def test_symbols_that_the_vocabulary_does_not_list_are_unknown_and_never_predicted(written: Path) -> None:
    model = model_of(["de", "en"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(written)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(written).eval()
    ids = tokenizer("so wever")["input_ids"]
    assert ids[2] >= len(model.vocab)
    assert model.pipeline().ids("so wever", "de") == [model.vocab.id("so"), UNK]
    assert model.pipeline().ids("however", "de") == [model.vocab.id("however")]
    tokens = torch.tensor([ids, [i if i < len(model.vocab) else UNK for i in ids]])
    with torch.no_grad():
        logits = theirs(tokens, langs=torch.zeros_like(tokens)).logits
    assert torch.equal(logits[0], logits[1])
    assert logits.softmax(dim=-1)[..., len(model.vocab) :].max() < 1e-15


def test_a_model_without_codes_has_no_tokenizer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = replace(model_of(["de", "en"]), codes=[])
    report = export.export_hf_folder(model, tmp_path, "bare", None)
    assert "no BPE codes" in caplog.text
    assert report.difference < 1e-5
    assert not list(tmp_path.rglob("tokenizer*"))
    assert "There is no tokenizer" in (tmp_path / "README.md").read_text()
    assert same(read_model(tmp_path), model)


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    train_alone(tiny_config(path, tiny_dataset, {"train.steps": 60, "evaluate.every": 20, "train.save_every": 20}))
    return path


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tiny model"
    tool.main([f"model={run}", "format=hf", f"output={path}"])
    return path


def test_the_tool_compares_and_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'out'}"])
    printed = capsys.readouterr().out
    for language in ("de", "en"):
        assert re.search(
            rf"^{language}: transformers gives the same ids for (\d+) of \1 sentences$", printed, re.MULTILINE
        )
    (tmp_path / "own.de").write_text("a b c\nd\n")
    (tmp_path / "own.en").write_text("u v\n")
    tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'own'}", f"sentences={tmp_path}/own.{{lang}}"])
    assert "de: transformers gives the same ids for 2 of 2" in capsys.readouterr().out
    with pytest.raises(DataError, match="exists already"):
        tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'out'}"])
    with pytest.raises(DataError, match=r"nowhere\.de: cannot read the sentences"):
        tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'no'}", "sentences=nowhere.{lang}"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "own", "own.de", "own.en"]


def test_every_way_gives_the_same_guesses(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours, transformers', and the original's file after XLM -> ours -> Hugging Face -> ours -> XLM."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "fill_mask", raising=False)
    own_pipeline = __import__("fill_mask").XLMFillMask
    write_xlm_checkpoint(read_model(folder), tmp_path / "model.pth")
    models = [xlmtrain.load(folder), xlmtrain.load(tmp_path / "model.pth", codes=run / "codes")]
    for lang, sentence in (("de", "a <mask> k d"), ("en", "u <mask>, v!")):
        expected = [(guess.word, guess.probability) for guess in xlmtrain.load(run).fill_mask(sentence, lang)[0]]
        for model in models:
            again = [(guess.word, guess.probability) for guess in model.fill_mask(sentence, lang)[0]]
            assert [word for word, _ in again] == [word for word, _ in expected]
            assert [p for _, p in again] == pytest.approx([p for _, p in expected], rel=1e-5)
        pipelines = (
            transformers.pipeline("fill-mask", model=str(folder / lang), top_k=5),
            own_pipeline.from_pretrained(str(folder), lang, top_k=5),
        )
        for pipeline in pipelines:
            guesses = pipeline(sentence)
            assert [guess["token_str"].strip() for guess in guesses] == [word for word, _ in expected]
            assert [guess["score"] for guess in guesses] == pytest.approx([p for _, p in expected], rel=1e-3)
    with pytest.raises(ValueError, match="the model knows de, en"):
        own_pipeline.from_pretrained(str(folder), "fr")


def test_language_changes_the_folders_own_answer(folder: Path) -> None:
    """What the card warns of: without langs it answers, and otherwise."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokens = torch.tensor([[1, 14, 5, 20, 1]])
    with torch.no_grad():
        answers = [model(tokens, langs=torch.full_like(tokens, i)).logits for i in (0, 1)] + [model(tokens).logits]
    assert all((answers[i] - answers[j]).abs().max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_the_cards_example_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    monkeypatch.chdir(folder.parent)
    names: dict[str, Any] = {}
    exec(code[1], names)
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert names["logits"].shape[-1] == names["model"].config.vocab_size
    for expected in (
        "| de | 120 |",
        "| de_mlm |",
        "Language ids: de = 0, en = 1",
        "optim.lr=0.01",
        "cased, accents and umlauts kept",
    ):
        assert expected in card, expected
    assert re.search(r"compared with those of training on \d+ sentences of de, \d+ sentences of en", card)


def damaged(damage: str) -> Any:
    def write(model: PretrainedBundle, directory: Path) -> None:
        write_hf_folder(model, directory)
        if damage == "ids":
            file = directory / "de" / "tokenizer.json"
            file.write_text(
                file.read_text(encoding="utf-8")
                .replace('"a</w>"', '"tmp"')
                .replace('"b</w>"', '"a</w>"')
                .replace('"tmp"', '"b</w>"')
            )
        else:
            file = directory / damage / "model.safetensors"
            tensors = load_file(file)
            tensors["transformer.ffns.0.lin1.bias"][3] += 1e-3
            save_file(tensors, file, {"format": "pt"})

    return write


@pytest.mark.parametrize("damage", ["", "en", "ids"])
def test_a_folder_that_answers_otherwise_is_not_released(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(export, "write_hf_folder", damaged(damage))
    message = "other ids for .* sentences of de" if damage == "ids" else "transformers' logits differ by"
    with pytest.raises(DataError, match=message) as caught:
        tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'out'}"])
    if damage == "ids":
        shown = str(caught.value).splitlines()[1:]
        assert len(shown) == 3 * parity.SHOWN
        assert shown[1].split("ours")[1] != shown[2].split("theirs")[1]
    assert not list(tmp_path.iterdir())


def test_without_transformers_it_is_said_how_to_get_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'xlmtrain\[hf\]'"):
        tool.main([f"model={run}", "format=hf", f"output={tmp_path / 'out'}"])
    assert not list(tmp_path.iterdir())


def test_without_its_data_the_run_needs_sentences(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    settings = json.loads((moved / "config.json").read_text())
    settings["data"]["path"] = "gone"
    (moved / "config.json").write_text(json.dumps(settings))
    message = rf"sentences=\.\.\.\{{lang\}}: needed.* is not at gone \(looked in {re.escape(str(Path.cwd()))}\)"
    with pytest.raises(ConfigError, match=message):
        tool.main([f"model={moved}", "format=hf", f"output={tmp_path / 'out'}"])


@pytest.mark.parametrize("languages", [["de", "en"], ["de"]])
def test_targets_are_words_not_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, languages: list[str]) -> None:
    write_hf_folder(model_of(languages), tmp_path)
    expected = {g.word: g.probability for g in xlmtrain.load(tmp_path).fill_mask("so <mask>", "de", k=99)[0]}
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fill_mask", raising=False)
    ours = __import__("fill_mask").XLMFillMask.from_pretrained(str(tmp_path), "de")
    for targets in ("e", ["e"], ["e", "so", "e"]):
        guesses = ours("so <mask>", targets=targets)
        assert {guess["token_str"] for guess in guesses} == set(targets)
        for guess in guesses:
            assert guess["score"] == pytest.approx(expected[guess["token_str"]], rel=1e-4)
    for bad in (["Katze"], ["q"], [" "], []):
        with pytest.raises(ValueError, match="targets: "):
            ours("so <mask>", targets=bad)
    with pytest.raises(ValueError, match=r"tokens are more than the model's \d+ positions"):
        ours("so <mask>" + " so" * 600)
    # As the card says: transformers' own takes entries of the vocabulary.
    home = tmp_path / "de" if len(languages) > 1 else tmp_path
    stock = transformers.pipeline("fill-mask", model=str(home))("so <mask>", targets=["e", "e</w>"])
    assert {guess["token_str"]: guess["score"] for guess in stock} == pytest.approx(
        {"e": expected["e"], "e@@": expected["e@@"]}, rel=1e-4
    )


def test_words_that_are_split_already_are_joined_and_found_again(written: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(written / "de")
    words = ["Am", "3.", "Oktober", "kam", "<mask>", "am", "Dr.", "so", "."]
    line = " ".join(words)
    encoded = tokenizer(line, return_offsets_mapping=True, add_special_tokens=False)
    known = len(model_of(["de"]).vocab)
    ids = [i if i < known else UNK for i in encoded["input_ids"]]
    assert ids == model_of(["de"]).pipeline().ids(line, "de")
    found = [line[:start].count(" ") for start, _ in encoded["offset_mapping"]]
    assert sorted(set(found)) == list(range(len(words)))
    tokens = {word: [token for token, i in zip(encoded.tokens(), found) if words[i] == word] for word in words}
    assert tokens["3."] == ["<unk>", ".</w>"]  # as a line of its own it would be 3</w> .</w>
    assert tokens["<mask>"] == ["<mask>"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"asm": True}, "asm is True"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps"),
        ({"pad_token_id": 0}, "pad is 0"),
        ({"n_layers": 3}, "2 layers, its settings say 3"),
        ({"emb_dim": 32}, "does not fit the model"),
        ({"lang2id": None}, "incomplete or damaged"),
    ],
)
def test_other_architectures_are_refused(copy: Path, change: dict[str, Any], message: str) -> None:
    config = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        read_model(copy).module()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "pytorch_model.bin"),
        ("tokenizer.json", "tokenizer.json"),
        ("config.json", "no model in it"),
    ],
)
def test_missing_and_damaged_files_are_named(copy: Path, name: str, message: str) -> None:
    (copy / name).unlink()
    (copy / "vocab.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=message):
        read_model(copy)
    (copy / name).write_bytes(b"{not good")
    with pytest.raises(CheckpointError, match=re.escape(str(copy))):
        read_model(copy)


@pytest.mark.slow
def test_daily_use(written: Path, tmp_path: Path) -> None:
    """Pipelines on batches of raw text, and training on it; ``however`` ends in a symbol that the vocabulary lacks."""
    home = str(written / "en")
    lines = [*SENTENCES["en"], "", "a\u200bb", "\U0001f600 e\u0301", "wever so"]
    fill = transformers.pipeline("fill-mask", model=home)
    alone = [fill(f"{line} <mask>")[0] for line in lines]
    for one, other in zip(alone, fill([f"{line} <mask>" for line in lines], batch_size=4)):
        assert (one["token"], one["sequence"]) == (other[0]["token"], other[0]["sequence"])
    features = transformers.pipeline("feature-extraction", model=home)
    assert features("so " * 3000, truncation=True, return_tensors=True).shape == (1, 64, 16)
    assert len(features(lines, batch_size=3)) == len(lines)

    tokenizer = transformers.AutoTokenizer.from_pretrained(home)
    model = transformers.AutoModelForMaskedLM.from_pretrained(home)
    assert max(tokenizer("wever so")["input_ids"]) >= len(model_of(["de", "en"]).vocab)
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=3, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=[tokenizer(line, truncation=True) for line in lines * 4],
        data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5),
        processing_class=tokenizer,
    )
    assert trainer.train().training_loss < 30
    trainer.save_model(str(tmp_path / "saved"))
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert [again(line)["input_ids"] for line in lines] == [tokenizer(line)["input_ids"] for line in lines]
