"""The programs of tools/, from raw text to a model that fills masks: what they print, and how they refuse."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.animals import PAIRS, write_animals
from tests.support.pages import check_page
from tests.support.programs import Call, script
from tests.support.programs import run as run_program
from tests.support.tiny import tiny_config
from tests.support.training import records, train_alone
from xlmtrain.data.dataset import Dataset
from xlmtrain.pretrained import CheckpointChoice, load
from xlmtrain.text.vocab import EOS
from xlmtrain.train.checkpoint import CheckpointManager

SETTINGS = {
    "model.max_positions": 48,
    "data.max_sentence_length": 30,
    "data.sub_batch_tokens": 128,
    "train.steps": 30,
    "evaluate.every": 15,
    "train.save_every": 15,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("text")
    output = place / "prepared"
    printed = run_program(script("prepare"), f"output={output}", *write_animals(place)).stdout
    assert f"prepared: {output}" in printed
    return output


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model; the first of its two checkpoints is marked as the best, which tells them from each other."""
    path = tmp_path_factory.mktemp("trained") / "animals"
    train_alone(tiny_config(path, prepared, SETTINGS))
    CheckpointManager(path / "checkpoints", keep_last=2).mark_best(15, "valid/mlm_ppl", 1.0)
    return path


def guesses(line: str) -> list[tuple[str, float]]:
    """What ``<mask> 1: cat 0.500  cow 0.250`` says."""
    words = line.partition(": ")[2].split("  ")
    return [(word, float(probability)) for word, _, probability in (entry.partition(" ") for entry in words)]


def test_prepared_text_is_what_was_given(prepared: Path) -> None:
    dataset = Dataset(prepared)
    assert dataset.languages == ["de", "en"]
    assert len(dataset.corpus("train.de")) == len(dataset.corpus("train.de-en.en")) == 45
    corpora = dataset.pair("valid", "de-en")
    for number, pair in enumerate(PAIRS[3::4]):
        for corpus, line in zip(corpora, pair):
            sentence = corpus.ids[corpus.offsets[number] : corpus.offsets[number + 1]].tolist()
            assert sentence[-1] == EOS
            assert dataset.vocab.decode(sentence[:-1]) == line.replace(".", " .")


def test_fill_mask_prints_the_models_guesses(call: Call, run: Path) -> None:
    sentence, other = "Die <mask> wartet <mask> Fluss.", "<mask> singt."
    lines = call("fill_mask", f"model={run}", "lang=de", "k=3", sentence, other).splitlines()
    assert [lines[0], lines[3]] == [sentence, other]
    assert [line[:11] for line in lines[1:3] + lines[4:]] == ["  <mask> 1:", "  <mask> 2:", "  <mask> 1:"]
    expected = [*load(run).fill_mask(sentence, "de", 3), *load(run).fill_mask(other, "de", 3)]
    for line, place in zip(lines[1:3] + lines[4:], expected):
        assert guesses(line) == [(guess.word, round(guess.probability, 3)) for guess in place]
    assert len(guesses(call("fill_mask", f"model={run}", "lang=de", other).splitlines()[1])) == 5


def test_fill_mask_shows_the_model_language_translation_and_checkpoint(call: Call, run: Path) -> None:
    sentence, translation = "Die <mask> wartet.", "The mouse, x=1: waits."
    given = ["fill_mask", f"model={run}", "k=40", sentence]
    german = guesses(call(*given, "lang=de").splitlines()[1])
    english = guesses(call(*given, "lang=en").splitlines()[1])
    both = guesses(call(*given, "lang=de", f"translation={translation}", "translation_lang=en").splitlines()[1])
    last = guesses(call(*given, "lang=de", "checkpoint=last").splitlines()[1])
    model = load(run, CheckpointChoice.best)
    for found, expected in (
        (german, model.fill_mask(sentence, "de", 40)),
        (english, model.fill_mask(sentence, "en", 40)),
        (both, model.fill_mask(sentence, "de", 40, (translation, "en"))),
        (last, load(run, CheckpointChoice.last).fill_mask(sentence, "de", 40)),
    ):
        assert found == [(guess.word, round(guess.probability, 3)) for guess in expected[0]]
    assert german not in (english, both, last)


REFUSED_BY_FILL_MASK = [
    (["kk=1"], 2, "no such settings: kk=1; there are checkpoint, codes, k, lang, model, translation, translation_lang"),
    (["k=many"], 2, "Value 'many' of type 'str' could not be converted to Integer\n  full_key: k"),
    (["k=0"], 2, "k: 0 is not above 0"),
    (["checkpoint=typo"], 2, "Invalid value 'typo', expected one of [best, last, average]\n  full_key: checkpoint"),
    (["lang=fr"], 2, "lang=fr: the model knows de, en"),
    (["translation=The cow.", "translation_lang=fr"], 2, "the model knows de, en"),
    (["translation=The cow."], 2, "translation and translation_lang go together"),
    (["translation_lang=en"], 2, "translation and translation_lang go together"),
    (["model=nowhere"], 4, "nowhere"),
    (["Die Kuh singt."], 3, "no <mask> in 'Die Kuh singt.'"),
    (["<mask>" + " Kuh" * 60], 3, "tokens are more than the model's 48 positions"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "message"), REFUSED_BY_FILL_MASK, ids=[a[0][0] for a in REFUSED_BY_FILL_MASK]
)
def test_fill_mask_refuses(call: Call, run: Path, arguments: list[str], code: int, message: str) -> None:
    assert message in call("fill_mask", f"model={run}", "lang=de", "Die <mask> singt.", *arguments, code=code)


def test_fill_mask_asks_for_what_is_missing(call: Call, run: Path) -> None:
    assert "these settings have no value yet: lang=..., model=..." in call("fill_mask", "<mask>", code=2)
    assert "no sentence given" in call("fill_mask", f"model={run}", "lang=de", code=2)


def test_report_is_printed_and_kept(call: Call, run: Path) -> None:
    printed = call("report", f"run={run}", "words=6")
    assert printed.endswith(f"report: {run / 'report.html'}\n")
    check_page((run / "report.html").read_text(encoding="utf-8"))
    lines = printed.splitlines()
    assert lines[0] == "# animals"
    assert lines[3].startswith("30 steps, ")
    header = lines[lines.index("## Validation: perplexity (accuracy in %)") + 2]
    assert header == "| step | de_mlm | en_mlm | de-en_tlm | mlm | tlm |"
    table = [line.strip("| ").split(" | ") for line in lines if re.match(r"\| \d", line)]
    evaluations = [record for record in records(run) if "valid/mlm_ppl" in record]
    assert [row[0] for row in table] == ["0", "15", "30"]
    for row, record in zip(table, evaluations):
        assert row[4] == f"{record['valid/mlm_ppl']:.2f} ({record['valid/mlm_acc']:.1f})"
    before, after = (float(row[4].split()[0]) for row in (table[0], table[-1]))
    assert after < before


@pytest.mark.parametrize("hidden", ["de", "en"])
def test_report_hides_words_of_either_language(call: Call, run: Path, hidden: str) -> None:
    lines = call("report", f"run={run}", "words=6", f"cloze_lang={hidden}").splitlines()
    first = lines.index("## Masked words without and with the translation")
    assert lines[first + 2].startswith("One word was masked in each of 6 validation sentences.")
    rows = [line.strip("| ").split(" | ") for line in lines[first + 6 :] if line.startswith("|")]
    assert len(rows) == 6
    valid = {pair[hidden == "en"].replace(".", " ."): pair[hidden == "de"].replace(".", " .") for pair in PAIRS[3::4]}
    for sentence, translation, truth, _, _ in rows:
        assert len(truth) > 3
        assert valid[sentence.replace("&lt;mask>", truth)] == translation


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["wrods=1"], 2, "no such settings: wrods=1; there are cloze_lang, images, output, reference, run, words"),
        (["words=many"], 2, "Value 'many' of type 'str' could not be converted to Integer\n  full_key: words"),
        (["more"], 2, "not understood: more"),
        (["run=nowhere"], 4, "nowhere"),
        (["output=nowhere/report.html"], 2, "output=nowhere/report.html: cannot be written"),
        (["cloze_lang=fr"], 2, "cloze_lang=fr: the model knows de, en"),
        (["reference=r.json", "run=another"], 2, "reference: of one run, and several are given"),
    ],
)
def test_report_refuses(call: Call, run: Path, arguments: list[str], code: int, message: str) -> None:
    (run / "report.html").unlink(missing_ok=True)
    assert message in call("report", f"run={run}", *arguments, code=code)
    assert not (run / "report.html").exists()


def test_report_writes_pictures_and_a_reference(call: Call, run: Path, tmp_path: Path) -> None:
    images, reference = tmp_path / "images", tmp_path / "reference.json"
    printed = call("report", f"run={run}", "words=6", f"images={images}", f"reference={reference}").splitlines()
    assert printed[-1] == f"reference: {reference}"
    pictures = [line.removeprefix("picture: ") for line in printed if line.startswith("picture: ")]
    assert pictures == [str(path) for path in sorted(images.glob("*.png"))]
    assert len(pictures) == (run / "report.html").read_text(encoding="utf-8").count("<svg")
    curve = json.loads(reference.read_text(encoding="utf-8"))["curves"]["valid/mlm_ppl"]
    assert [value for _, value in curve] == pytest.approx(
        [record["valid/mlm_ppl"] for record in records(run) if "valid/mlm_ppl" in record], rel=1e-3
    )


def test_report_wants_a_run(call: Call) -> None:
    assert "run: no run directory is given" in call("report", code=2)


def test_report_compares_runs(call: Call, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    settings = json.loads((other / "config.json").read_text(encoding="utf-8"))
    settings["optim"]["lr"] = 0.5
    (other / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    printed = call("report", f"run={run}", f"run={other}", f"output={tmp_path / 'both.html'}", "words=6")
    assert [line for line in printed.splitlines() if line.startswith("# ")] == ["# animals", "# other"]
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    check_page(page)
    assert "<tr><td>optim.lr</td><td>0.01</td><td>0.5</td></tr>" in page
    assert page.count("<details>") >= 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["bpe.merge=10"], 2, "bpe.merge"),
        (["workers=all"], 2, "workers"),
        (["workers=-1"], 2, "workers: -1 is negative"),
        (["train.mono={de: [nowhere.de]}"], 3, "nowhere.de"),
        (["output=???"], 2, "output=..."),
    ],
)
def test_prepare_refuses(call: Call, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    text = tmp_path / "text.de"
    text.write_text("Die Kuh singt.\n", encoding="utf-8")
    given = [f"output={tmp_path / 'prepared'}", f"train.mono={{de: [{text}]}}"]
    assert message in call("prepare", *given, *arguments, code=code)
    assert list(tmp_path.iterdir()) == [text]


def test_prepare_without_text(call: Call, tmp_path: Path) -> None:
    assert "train: no text" in call("prepare", f"output={tmp_path / 'prepared'}", code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tool", "settings"),
    [
        (
            "fill_mask",
            [
                "model=???",
                "lang=???",
                "k=5",
                "checkpoint=best",
                "translation=null",
                "translation_lang=null",
                "codes=null",
            ],
        ),
        ("report", ["run=[]", "output=null", "images=null", "reference=null", "cloze_lang=de", "words=200"]),
        ("show_data", ["step=1", "rows=2", "words=30", "data=null", "card=null", "licences={}"]),
        (
            "prepare",
            ["output=???", "train.mono={}", "test.pairs={}", "bpe.merges=60000", "vocab.file=null", "workers=0"],
        ),
    ],
)
def test_help_explains_every_setting(call: Call, tool: str, settings: list[str]) -> None:
    lines = call(tool, "--help").splitlines()
    for setting in settings:
        (number,) = (i for i, line in enumerate(lines) if line.startswith(f"  {setting}   ["))
        assert lines[number + 1].startswith(" " * 8)
        assert lines[number + 1].endswith((".", ")")) or len(lines[number + 1]) > 60, lines[number + 1]
    if tool != "prepare":
        assert f"xlmtrain {tool.replace('_', '-')}" in "\n".join(lines)
        assert len([line for line in lines if re.match(r"  [a-z_]+=.*\[", line)]) == len(settings)


@pytest.mark.parametrize(
    ("tool", "empty", "arguments"),
    [
        ("import_data", "output", ["data=x"]),
        ("download", "output", ["codes_ende"]),
        ("export", "output", ["model={run}"]),
        ("checkpoint", "run", ["prune", "keep_last=1"]),
        ("report", "images", ["run={run}"]),
        ("evaluate", "data", ["model={run}"]),
        ("fill_mask", "model", ["lang=de", "<mask>"]),
    ],
)
def test_an_empty_path_is_named(call: Call, run: Path, tool: str, empty: str, arguments: list[str]) -> None:
    """As an unset shell variable gives it; it would mean the current directory, or nothing."""
    given = [argument.format(run=run) for argument in arguments]
    assert f"{empty}=: empty" in call(tool, *given, f"{empty}=", code=2)
