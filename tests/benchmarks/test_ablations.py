"""Ablation studies: the programs that are started, the results that are kept, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from benchmarks import ablations as tool
from benchmarks.with_parts import parts_of
from xlmtrain.config.load import compose
from xlmtrain.errors import ConfigError

FILES = {"data": "prepared/here", "output": "", "retrieval": "dev.{lang}", "bilingual_lexicon": "en-de.tsv"}


class Programs:
    """Stand-in for the programs: records what is started, and writes the files that they would write."""

    def __init__(self, output: Path) -> None:
        self.started: list[tuple[str, ...]] = []
        self.output = output

    def __call__(self, program: str, *arguments: str) -> None:
        self.started.append((program, *arguments))
        given = dict(argument.split("=", 1) for argument in arguments)
        if program == "train":
            run = Path(given["run"])
            run.mkdir(parents=True)
            (run / "status.json").write_text('{"status": "done"}', encoding="utf-8")
            (run / "metrics.jsonl").write_text('{"step": 8, "progress/tokens": 2000000}\n', encoding="utf-8")
        elif program == "evaluate":
            better = 10.0 if "mlm_tlm" in given["model"] else 0.0
            seed = float(given["model"][-1])
            row = {"pooling": "mean", "layer": 1, "scoring": "cosine", "mrr": 0.5}
            found = [{**row, "direction": d, "top1": v + better + seed} for d, v in (("de-en", 2.0), ("en-de", 4.0))]
            figures = {"perplexity": {"valid/mlm_ppl": 50.0 + seed}, "retrieval": {"found": found}}
            Path(given["output"]).write_text(json.dumps(figures), encoding="utf-8")
        else:
            (place := Path(given["run"]) / f"seed-{given['seeds'][1]}").mkdir(parents=True)
            scores = {lang: {"metrics": {"accuracy": 40.0, "f1": 30.0}, "majority": 20.0} for lang in ("en", "de")}
            (place / "result.json").write_text(json.dumps({"test": scores}), encoding="utf-8")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    stand_in = Programs(tmp_path)
    monkeypatch.setattr(tool, "_start", stand_in)
    return stand_in


def arguments(programs: Programs, **changes: str) -> list[str]:
    return [f"{key}={value}" for key, value in {**FILES, "output": str(programs.output), **changes}.items()]


def test_each_variant_is_trained_and_evaluated_once(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main([*arguments(programs, ablation="precision", seeds="2"), "train.steps=7"])
    trained = [command for command in programs.started if command[0] == "train"]
    assert [command[-1].rpartition("/")[2] for command in trained] == ["mlm_tlm-0", "fp32-0", "mlm_tlm-1", "fp32-1"]
    assert all("train.steps=7" in command and "data.path=prepared/here" in command for command in trained)
    assert "train.precision=fp32" in trained[1]
    assert "seed=1" in trained[3]
    evaluated = [command for command in programs.started if command[0] == "evaluate"]
    assert all("checkpoint=last" in command and "retrieval=dev.{lang}" in command for command in evaluated)
    assert len(evaluated) == 4
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header == "| score (seeds) | mlm_tlm (2) | fp32 (2) |"
    assert "| tokens, millions | 2.0 ± 0.0 | 2.0 ± 0.0 |" in lines
    assert "| mlm_ppl | 50.5 ± 0.7 | 50.5 ± 0.7 |" in lines
    assert "| sentences, layer 1, cosine: top-1 | 13.5 ± 0.7 | 3.5 ± 0.7 |" in lines

    tool.main([*arguments(programs, ablation="masking", seeds="1"), "train.steps=7"])
    assert [command[-1].rpartition("/")[2] for command in programs.started[8:] if command[0] == "train"] == [
        "masking-0.5-0"
    ]


def test_what_a_translation_model_begins_from(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(program: str, *arguments: str) -> None:
        programs(program, *arguments)
        run = Path(dict(argument.split("=", 1) for argument in arguments)["run"])
        records = [
            {"step": 0, "valid/mt_bleu": 0.0},
            {"step": 8, "valid/mt_bleu": 20.0},
            {"step": 9, "progress/tokens": 1e6},
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")

    monkeypatch.setattr(tool, "_start", start)
    given = [
        word
        for word in arguments(programs, ablation="initialization", seeds="1", experiment="umt_ende")
        if not word.startswith(("retrieval=", "bilingual_lexicon="))
    ]
    with pytest.raises(ConfigError, match=r"pretrained: .* need each other"):
        tool.main(given)
    tool.main([*given, "pretrained=runs/mlm"])
    begun = [[word for word in command if word.startswith("init.")] for command in programs.started]
    assert begun == [
        [f"init.encoder={encoder}", f"init.decoder={decoder}"]
        for encoder in ("runs/mlm", "null")
        for decoder in ("runs/mlm", "null")
    ]
    assert all("experiment=umt_ende" in command for command in programs.started)
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("| score (seeds) | pretrained-pretrained (1) | pretrained-random (1) |")
    assert "| mt_bleu | 20.0 | 20.0 | 20.0 | 20.0 |" in lines


def test_fine_tuning(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"train_file": "t.en.tsv", "test_file": "test.{lang}.tsv"}
    tool.main([*arguments(programs, ablation="objectives", seeds="1", **files), "optim.lr=1"])
    command = programs.started[0]
    assert command[0] == "finetune"
    assert f"init.pretrained={programs.output / 'mlm-0'}" in command
    assert "task.train={en: t.en.tsv}" in command
    assert "task.test={en: test.en.tsv, de: test.de.tsv}" in command
    assert command[-1] == "optim.lr=1"
    assert "| de, accuracy | 40.0 | 40.0 | 40.0 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ablation": "everything"}, "ablation: everything: must be one of objectives, masking, precision, sampling"),
        ({"ablation": "modern"}, "set experiment=modern_small_cpu train.steps=1000"),
        ({"ablation": "masking", "train_file": "a.tsv"}, "train_file= and test_file= need each other"),
    ],
)
def test_refused(programs: Programs, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tool.main(arguments(programs, **changes))
    assert programs.started == []


def test_the_settings_of_every_variant_are_right() -> None:
    for variant, words in tool.VARIANTS.items():
        preset, steps = ("modern_small_cpu", 1000) if variant in tool.ABLATIONS["modern"] else ("small_cpu", 3000)
        given = [word for word in words if not word.startswith("parts=")]
        compose("config", [f"experiment={preset}", "data.path=somewhere", f"train.steps={steps}", *given])
        for word in set(words) - set(given):
            parts_of(word.removeprefix("parts="))


def test_parts_of_the_names_given() -> None:
    parts = parts_of("rotary,no_biases")
    assert (parts.rotary, parts.biases, parts.pre_norm, parts.head_transform) == (True, False, False, False)
    with pytest.raises(ConfigError, match=r"norm: must be one of pre_norm, rotary, .*biases"):
        parts_of("norm")


@pytest.mark.slow
def test_a_model_of_other_parts_is_trained_and_evaluated(tiny_dataset: Path, tmp_path: Path) -> None:
    options = tool.AblationOptions("recipe", "small_cpu", None, str(tiny_dataset), str(tmp_path), 1)
    small = ["model.dim=16", "train.steps=2", "optim.warmup_steps=1", "train.precision=fp32"]
    scores = tool._pretrain(options, "rotary", 0, small)
    assert scores["mlm_ppl"] > 1
    (path,) = (tmp_path / "rotary-0").rglob("model.safetensors")
    with safe_open(path, "pt") as file:
        names = set(file.keys())
    assert "encoder.blocks.0.attention.qkv.bias" in names
    assert not {"encoder.position_embeddings.weight", "encoder.final_norm.weight"} & names


@pytest.mark.slow
def test_the_programs_understand_it(tiny_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """CLM included, whose settings are another file's."""
    small = {"train.steps": 2, "optim.warmup_steps": 1, "model.dim": 16, "train.precision": "fp32"}
    given = [f"{key}={value}" for key, value in small.items()]
    tool.main([f"data={tiny_dataset}", f"output={tmp_path / 'runs'}", "ablation=objectives", "seeds=1", *given])
    printed = capfd.readouterr().out
    header, _, *lines = printed.splitlines()
    assert header == "| score (seeds) | mlm (1) | mlm_tlm (1) | clm (1) |"
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines}
    assert cells["de_clm_ppl"][:2] == ["", ""]
    assert float(cells["cloze_parallel_ppl"][1]) > 1
