"""Settings: what is shipped composes, what is wrong is named by its key path, everything is documented."""

from __future__ import annotations

import ast
import inspect
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from tests.support.repository import REPOSITORY
from tests.support.settings import GIVEN, train_config
from xlmtrain.config import data, evaluate, finetune, model, optim, prepare, schema, train, translate
from xlmtrain.config.load import compose, hydra_main
from xlmtrain.config.model import Activation
from xlmtrain.config.optim import Schedule
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.program import user_errors

CONFIGS = REPOSITORY / "configs"
GROUPS = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in CONFIGS.glob("*/*.yaml")
    if path.parent.name not in ("experiment", "corpus", "task")
)
SECTIONS = [data, evaluate, finetune, model, optim, prepare, schema, train, translate]
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


def test_plain_settings_are_plain_dataclasses() -> None:
    config = train_config("optim.lr=3e-4", "train.precision=bf16", "model.activation=relu", "optim.schedule=cosine")
    assert type(config) is Config
    assert type(config.data.mlm) is dict
    assert config.data.mlm == {"de": 1.0, "en": 1.0}
    assert config.optim.lr == 3e-4
    assert config.train.precision is Precision.bf16
    assert config.model.activation is Activation.relu
    assert config.optim.schedule is Schedule.cosine


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_composes(group: str) -> None:
    name, _, option = group.partition("/")
    assert type(train_config(f"{name}={option}")) is Config


@pytest.mark.parametrize("task", sorted(path.stem for path in (CONFIGS / "task").glob("*.yaml")))
def test_every_published_task_composes(task: str) -> None:
    files = ["task.train={de: a}", "task.test={de: b}"] if task == "ud" else ["task.folder=somewhere"]
    assert compose("finetune", [f"task={task}", "run=r", "init.pretrained=m", *files]).task.test


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes(experiment: str) -> None:
    config = compose("config", [f"experiment={experiment}", "run=somewhere", "data.path=somewhere"])
    assert type(config) is Config


@pytest.mark.parametrize("corpus", sorted(path.stem for path in (CONFIGS / "corpus").glob("*.yaml")))
def test_every_corpus_composes(corpus: str) -> None:
    compose("prepare", [f"corpus={corpus}", "output=somewhere"])


def test_fine_tuning_composes() -> None:
    given = ["run=r", "init.pretrained=m", "task.train={en: a}", "task.test={en: b, de: c}", "train.layers=[0,2]"]
    config = compose("finetune", given)
    assert config.optim.schedule is Schedule.linear
    assert (config.task.test, config.train.layers) == ({"en": "b", "de": "c"}, [0, 2])
    with pytest.raises(ConfigError, match=r"task.test: no test file"):
        compose("finetune", given[:3])


def test_every_yaml_file_is_covered() -> None:
    """A file that no test composes may be broken for long."""
    found = {path.relative_to(CONFIGS).parts[0] for path in CONFIGS.rglob("*.yaml")}
    assert found <= {
        "config.yaml",
        "prepare.yaml",
        "finetune.yaml",
        "model",
        "data",
        "optim",
        "experiment",
        "corpus",
        "task",
    }


def test_released_model_is_a_setting() -> None:
    model = train_config("model=xlm_1024").model
    assert (model.dim, model.layers, model.heads, model.max_positions) == (1024, 6, 8, 512)
    assert (model.dropout, model.attention_dropout, model.activation) == (0.1, 0.1, Activation.gelu)


def test_what_has_no_value_yet_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"data\.path=\.\.\., run=\.\.\."):
        compose("config", ["data.mlm={de: 1}"])


def test_settings_of_preparation_too() -> None:
    given = ["output=there", "train.mono={de: [a], en: [b]}"]
    assert compose("prepare", given).train.mono == {"de": ["a"], "en": ["b"]}
    with pytest.raises(ConfigError) as caught:
        compose("prepare", [*given, "bpe.merges=0", "workers=-1", "train.pairs={en-de: [c]}", "bpe.sampling_alpha=3"])
    for key in ("bpe.merges", "workers", "train.pairs.en-de", "bpe.sampling_alpha"):
        assert f"\n  {key}: " in str(caught.value)
    with pytest.raises(ConfigError, match="train: no text"):
        compose("prepare", ["output=there"])
    with pytest.raises(ConfigError, match="outptu"):
        compose("prepare", [*given, "outptu=there"])
    chosen = compose("prepare", [*given, "executor=ray", "clean.misaligned=drop", "clean.invalid_utf8=drop"])
    assert (chosen.executor.value, chosen.clean.misaligned.value, chosen.clean.invalid_utf8.value) == (
        "ray",
        "drop",
        "drop",
    )


def test_choices_are_written_as_they_are_documented() -> None:
    """Hydra goes by a member's name, messages and stored settings by its value."""
    found = [c for module in SECTIONS for c in vars(module).values()]
    choices = {c for c in found if inspect.isclass(c) and issubclass(c, Enum) and c is not Enum}
    assert len(choices) >= 20
    assert all(member.name == member.value for choice in choices for member in choice)


@pytest.mark.parametrize("module", SECTIONS)
def test_every_setting_has_its_explanation_under_it(module: Any) -> None:
    tree = ast.parse(Path(inspect.getfile(module)).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            assert ast.get_docstring(node), node.name
            for statement, following in zip(node.body, [*node.body[1:], None]):
                if isinstance(statement, ast.AnnAssign):
                    is_text = (
                        isinstance(following, ast.Expr)
                        and isinstance(following.value, ast.Constant)
                        and isinstance(following.value.value, str)
                    )
                    assert is_text, f"{node.name}.{ast.unparse(statement.target)} has no docstring under it"


def test_help_shows_the_values_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the preset, and of what else is given, not the schema's."""
    hydra_main("config", print, ["--help", "experiment=quickstart", "train.steps=7"])
    lines = capsys.readouterr().out.splitlines()
    values = dict(line.strip().partition("   [")[0].split("=", 1) for line in lines if "   [" in line)
    quickstart = compose("config", ["experiment=quickstart"])
    assert (
        values["optim.lr"] == str(quickstart.optim.lr) != str(Config.__dataclass_fields__["optim"].default_factory().lr)
    )
    assert values["train.steps"] == "7"
    assert values["train.precision"] == quickstart.train.precision.value


def test_ctrl_c_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def body(config: Config) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        hydra_main("config", body, GIVEN)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000])
def test_a_path_that_no_system_has_is_no_traceback(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, user_errors():
        Path(name).stat()
    assert caught.value.code == ConfigError.exit_code
    assert capsys.readouterr().err == f"error: {name[:200]}: File name too long\n"
    with pytest.raises(FileNotFoundError), user_errors():
        Path("x").stat()


def test_hydras_own_runner_takes_text_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x"])
    hydra_main("config", print, ["--cfg", "job", "run=größe", "data.path=1e5"])
    printed = capsys.readouterr().out
    assert "run: größe\n" in printed
    assert "path: '1e5'\n" in printed or "path: 1e5\n" in printed


def test_a_loss_weight_is_linear_between_its_points(translation: dict[str, Any]) -> None:
    text = "0:1,100000:0.1,300000:0"
    config = train_config(f'data.loss_weight={{dae: "{text}", mt: 0.5}}', "data.mlm={de: 1}")
    for step, value in translation["lambda_ae_published"]:
        assert config.data.loss_factor("dae", step) == pytest.approx(value, abs=1e-12)
    assert [config.data.loss_factor(name, 7) for name in ("mt", "bt")] == [0.5, 1.0]
