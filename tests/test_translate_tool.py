"""xlmtrain translate: files and pipes, n-best lists, scores, conversions, and nothing left behind when it fails."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.generate.test_search import lively_model
from tests.support import programs
from tests.support.translation import bundle_of
from xlmtrain.commands import export, translate
from xlmtrain.config.translate import TranslationConfig
from xlmtrain.errors import ConfigError, DataError, UserError
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.run import write_run
from xlmtrain.interop.xlm.conversion import write_xlm_checkpoint
from xlmtrain.pretrained import load

LINES = ["ab c.", "", "d e f, gh!", "i \t j", "jklm no p q."]
TEXT = "\n".join(LINES).encode()  # no newline at its end


@pytest.fixture(scope="module", params=["own tables", "tied tables"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "run"
    path.mkdir()
    write_run(bundle_of(lively_model(share_embeddings=request.param == "tied tables")), path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given" / "lines.de"
    path.parent.mkdir()
    path.write_bytes(TEXT)
    return path


def arguments(run: Path, *more: str) -> list[str]:
    return [f"model={run}", "source=de", "target=en", "beam=2", *more]


def expected(run: Path, beam: int = 2) -> str:
    return "".join(f"{text}\n" for text in load(run).translate(LINES, "de", "en", beam=beam))


def expected_line(run: Path, line: str) -> str:
    return f"{load(run).translate([line], 'de', 'en', beam=1)[0]}\n"


def test_files_and_pipes(
    run: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "lines.en"
    translate.main(arguments(run, f"input={file}", f"output={output}"))
    assert output.read_text(encoding="utf-8") == expected(run)
    assert "translate: 100% 5.00/5.00" in capsys.readouterr().out
    translate.main(arguments(run, f"input={file}"))
    assert capsys.readouterr().out == expected(run)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT)))
    translate.main(arguments(run))
    assert capsys.readouterr().out == expected(run)
    with gzip.open(tmp_path / "lines.gz", "wb") as stream:
        stream.write(TEXT)
    translate.main(arguments(run, f"input={tmp_path / 'lines.gz'}", "window=1"))
    assert capsys.readouterr().out == expected(run)
    assert {path.name for path in tmp_path.iterdir()} == {"given", "lines.en", "lines.gz"}


def test_n_best_lists(run: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    translate.main(arguments(run, f"input={file}", "beam=3", "n_best=2"))
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [int(number) for number, _, _ in rows] == [1, 1, 2, 3, 3, 4, 4, 5, 5]
    found = load(run).translator("de", "en", TranslationConfig(beam=3, n_best=2))(LINES, "lines")
    assert [(score, text) for _, score, text in rows] == [(f"{t.score:.4f}", t.text) for best in found for t in best]


def test_scores(run: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sacrebleu")
    reference = tmp_path / "reference.en"
    reference.write_text(expected(run), encoding="utf-8")
    translate.main(arguments(run, f"input={file}", f"reference={reference}"))
    output, errors = capsys.readouterr()
    assert output == expected(run)
    one, two, three = errors.splitlines()
    assert one.startswith("BLEU|nrefs:1|")
    assert " = 100.00 " in one
    assert two.startswith("chrF2|")
    assert three.startswith("tokenized BLEU = 100.00, ")
    reference.write_text("", encoding="utf-8")
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match=r"^reference=.*: .*empty has no lines to compare with it"):
        translate.main(arguments(run, f"input={tmp_path / 'empty'}", f"reference={reference}"))
    reference.write_text("a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^input, reference: .* has 1 lines, .* has more"):
        translate.main(arguments(run, f"input={file}", f"reference={reference}"))
    assert capsys.readouterr().out == ""


def test_what_was_translated_before_a_stop_is_kept(
    run: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(number: int, *arguments: object) -> str:
        if number == 4:
            raise KeyboardInterrupt
        return formatted(number, *arguments)

    formatted: Any = translate._formatted
    monkeypatch.setattr(translate, "_formatted", stopped)
    with pytest.raises(KeyboardInterrupt):
        translate.main(arguments(run, f"input={file}", f"output={tmp_path / 'lines.en'}"))
    (kept,) = (path for path in tmp_path.iterdir() if path.name.startswith("lines.en"))
    assert kept.read_text(encoding="utf-8").splitlines() == expected(run).splitlines()[:3]
    assert f"the first 3 lines are in {kept}" in capsys.readouterr().err


def test_a_file_that_appears_meanwhile_is_kept(
    run: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "lines.en"
    formatted = translate._formatted

    def appear(*given: Any) -> str:
        output.write_text("mine", encoding="utf-8")
        return formatted(*given)

    monkeypatch.setattr(translate, "_formatted", appear)
    with pytest.raises(DataError, match="was made by another program meanwhile; the result is in") as error:
        translate.main(arguments(run, f"input={file}", f"output={output}"))
    assert output.read_text(encoding="utf-8") == "mine"
    (kept,) = tmp_path.glob("lines.en.partial-*")
    assert str(kept) in str(error.value)
    assert kept.read_text(encoding="utf-8") == expected(run)


def test_it_ends_when_nobody_reads(run: Path) -> None:
    """The input has no end."""
    words = arguments(run, "window=1", "beam=1")
    with (
        subprocess.Popen(["yes", "ab c"], stdout=subprocess.PIPE) as lines,
        programs.start("-m", "xlmtrain", "translate", *words, stdin=lines.stdout) as running,
    ):
        try:
            assert running.stdout is not None
            first = running.stdout.readline()
            running.stdout.close()
            assert running.wait(timeout=120) == 0
        finally:
            lines.kill()
            running.kill()
    assert first == expected_line(run, "ab c")


def test_the_originals_format_and_back(run: Path, file: Path, tmp_path: Path) -> None:
    there, again = tmp_path / "model.pth", tmp_path / "again"
    export.main([f"model={run}", "format=xlm", f"output={there}"])
    export.main([f"model={there}", f"codes={run / 'codes'}", "format=run", f"output={again}"])
    one, two, three = load(run), load(there, codes=run / "codes"), load(again)
    for beam in (1, 4):
        texts = one.translate(LINES, "de", "en", beam=beam)
        assert texts == two.translate(LINES, "de", "en", beam=beam) == three.translate(LINES, "de", "en", beam=beam)
    with pytest.raises(ConfigError, match=r"^format=hf: XLM in transformers has no decoder; export this model with"):
        export.main([f"model={run}", "format=hf", f"output={tmp_path / 'hf'}"])
    assert not (tmp_path / "hf").exists()


REFUSED: list[tuple[list[str], type[UserError], str]] = [
    (["source=fr"], ConfigError, "^source=fr: the model knows de, en"),
    (["target=xx"], ConfigError, "^target=xx: the model knows de, en"),
    (["input=nowhere"], DataError, "^input: nowhere is not there"),
    (["beam=0"], ConfigError, "beam: 0 is not above 0"),
    (["n_best=3"], ConfigError, "n_best: 3 translations need a beam as wide; the beam is 2"),
    (["temperature=0"], ConfigError, r"temperature: 0\.0 is not above 0"),
    (["reference=x"], ConfigError, "reference: needs input, a file of as many lines"),
    (["beams=3"], ConfigError, "no such settings: beams=3"),
    (["model=nowhere"], UserError, "nowhere: no such file or directory"),
]


@pytest.mark.parametrize(("words", "error", "message"), REFUSED, ids=[case[0][0] for case in REFUSED])
def test_what_is_refused(run: Path, words: list[str], error: type[UserError], message: str) -> None:
    with pytest.raises(error, match=message):
        translate.main(arguments(run, *words))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\n" + b"a " * 511 + b"\nb\n", r"given/lines\.de:3: 513 tokens are more than the model's 512 positions"),
        (b"a\n\xff\n", r"given/lines\.de:2: not UTF-8"),
    ],
)
def test_bad_lines_are_found_before_anything_is_translated(
    run: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    file.write_bytes(content)
    monkeypatch.setattr("xlmtrain.generate.search.beam_search", None)
    with pytest.raises(DataError, match=message):
        translate.main(arguments(run, f"input={file}", f"output={tmp_path / 'new'}"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(DataError, match=message.replace(r"given/lines\.de", "standard input")):
        translate.main(arguments(run, f"output={tmp_path / 'new'}"))
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_models_that_cannot_translate(run: Path, file: Path, tmp_path: Path) -> None:
    bundle = read_model(run)
    bundle.weights = {name: value for name, value in bundle.weights.items() if not name.startswith("decoder")}
    write_xlm_checkpoint(bundle, tmp_path / "encoder.pth")
    with pytest.raises(ConfigError, match="the model has no decoder, so it cannot translate"):
        translate.main(arguments(tmp_path / "encoder.pth", f"input={file}"))
    write_xlm_checkpoint(read_model(run), tmp_path / "model.pth")
    with pytest.raises(DataError, match="the model has no BPE codes"):
        translate.main(arguments(tmp_path / "model.pth", f"input={file}"))


@pytest.mark.parametrize("run", ["own tables"], indirect=True)
def test_a_reader_that_stops_early(run: Path, file: Path) -> None:
    """As in ``| head``: no traceback."""
    file.write_bytes(b"ab c.\n" * 20)
    words = [programs.script("translate"), *arguments(run, f"input={file}", "window=1")]
    with programs.start(*words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
