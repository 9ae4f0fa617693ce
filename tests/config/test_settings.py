"""Settings: what is shipped composes, what is wrong is named by its key path, everything is documented."""

from __future__ import annotations

import ast
import inspect
import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from tests.support.repository import REPOSITORY
from tests.support.tiny import tiny_config
from xlmtrain.config import data, evaluate, finetune, model, optim, prepare, schema, train, translate
from xlmtrain.config.load import compose, from_json, hydra_main
from xlmtrain.config.model import Activation
from xlmtrain.config.optim import Schedule
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision, Sharding
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.program import user_errors

CONFIGS = REPOSITORY / "configs"
GIVEN = ["run=somewhere", "data.path=somewhere", "data.mlm={de: 1, en: 1}"]
FINETUNE = ["run=r", "init.pretrained=m", "task.train={en: a}", "task.test={en: b, de: c}"]
GROUPS = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in CONFIGS.glob("*/*.yaml")
    if path.parent.name not in ("experiment", "corpus", "task")
)
SECTIONS = [data, evaluate, finetune, model, optim, prepare, schema, train, translate]
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


def train_config(*overrides: str) -> Config:
    return compose("config", [*GIVEN, *overrides])


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        train_config(*overrides)
    return str(caught.value)


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


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("optim.learning_rate=1", "learning_rate"),
        ("optin.lr=1", "optin"),
        ("+model.depth=3", "depth"),
        ("model=huge", "huge"),
        ("experiment=nothing", "nothing"),
        ("optim.lr=fast", "optim.lr"),
        ("model.layers=2.5", "model.layers"),
        ("model.tie_embeddings=7.5", "model.tie_embeddings"),
        ("train.precision=fp8", "train.precision"),
        ("optim.schedule=stepwise", "optim.schedule"),
        ("data.mlm=[de]", "data.mlm"),
        ("data.mlm={de: much}", "data.mlm"),
        ("optim.lr", "optim.lr"),
    ],
)
def test_misspelt_keys_and_wrong_types_are_named(override: str, names: str) -> None:
    assert names in refusal(override)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model.layers": 0}, "model.layers: 0 is not above 0"),
    ({"model.heads": 3}, "model.heads: 3 does not divide model.dim=16"),
    (
        {"train.sharding": Sharding.full, "train.overlap_tied_embedding": True},
        "train.overlap_tied_embedding: has no effect with train.sharding=full",
    ),
    ({"model.dropout": 1.5}, "model.dropout: 1.5 is not between 0 and 1"),
    ({"model.dim": 15, "model.heads": 3, "model.sinusoidal_positions": True}, "model.dim: 15 is odd"),
    ({"mask.prob": 0.0}, "mask.prob: 0.0 is not above 0"),
    (
        {"mask.mask_token_prob": 0.8, "mask.random_token_prob": 0.3},
        "mask.mask_token_prob: its sum with mask.random_token_prob",
    ),
    ({"mask.inverse_frequency_exponent": -0.5}, "mask.inverse_frequency_exponent: -0.5 is negative"),
    ({"data.sampling_alpha": 1.1}, "data.sampling_alpha: 1.1 is not between 0 and 1"),
    ({"data.sequence_length": 64}, "data.sequence_length: 64 exceeds model.max_positions=32"),
    ({"data.sequence_length": 2}, "data.sequence_length: 2"),
    ({"data.max_sentence_length": 31}, "data.max_sentence_length: 31 and two delimiters exceed"),
    ({"data.max_sentence_length": 30, "data.sub_batch_tokens": 48}, "data.sub_batch_tokens: 48 cannot hold one pair"),
    ({"data.sub_batch_tokens": 65}, "data.sub_batch_tokens: 65 is no multiple of data.sequence_length=16"),
    ({"train.batch_tokens": 100}, "train.batch_tokens: 100 is no multiple of data.sub_batch_tokens=64"),
    ({"data.mlm": {"de": -1.0}}, "data.mlm.de: -1.0 is no weight"),
    ({"data.mlm": {"de": float("inf")}}, "data.mlm.de: inf is no weight"),
    ({"data.mlm": {"de": float("nan")}}, "data.mlm.de: nan is no weight"),
    ({"data.mlm": {}, "data.tlm": {}}, "data.mlm: nothing to train on"),
    ({"data.mlm": {"de": 0.0}, "data.tlm": {}}, "data.mlm: nothing to train on"),
    (
        {"data.loss_weight": {"mlm": "1:1"}},
        "data.loss_weight.mlm: 1:1 is not like 0.5 or 0:1,100000:0.1,300000:0: its st",
    ),
    ({"data.loss_weight": {"mlm": "0:1,5:2,5:1"}}, "data.loss_weight.mlm: 0:1,5:2,5:1 is not like"),
    ({"data.loss_weight": {"mlm": "0:1,5:-2"}}, "data.loss_weight.mlm: 0:1,5:-2 is not like"),
    ({"data.loss_weight": {"mlm": "0:1;5:2"}}, "data.loss_weight.mlm: 0:1;5:2 is not like"),
    ({"data.loss_weight": {"mlm": "nan"}}, "data.loss_weight.mlm: nan is not like"),
    ({"data.loss_weight": {"mlmm": "1"}}, "data.loss_weight.mlmm: is none of mlm, tlm"),
    ({"data.loss_weight": {"mlm": [0, 1]}}, "data.loss_weight.mlm: [0, 1] is not text"),
    (
        {"data.loss_weight": {"mlm": "0:1,7:0", "tlm": "0"}},
        "data.loss_weight: all objectives have the factor 0 at step 7",
    ),
    ({"data.bt": {"de-en": 1.0}, "train.sharding": Sharding.full}, "train.sharding: does not work with data.bt"),
    ({"optim.lr": 0.0}, "optim.lr: 0.0 is not above 0"),
    ({"optim.lr": float("nan")}, "optim.lr: nan is not above 0"),
    ({"optim.beta1": 1.0}, "optim.beta1: 1.0"),
    ({"optim.beta2": 1.0}, "optim.beta2: 1.0"),
    ({"optim.warmup_steps": -1}, "optim.warmup_steps: -1 is negative"),
    ({"train.micro_batch_tokens": -1}, "train.micro_batch_tokens: -1 is negative"),
    ({"train.keep_last": 0}, "train.keep_last: 0 is not above 0"),
    ({"evaluate.metric": "valid/mlm"}, "evaluate.metric: valid/mlm does not end in _ppl, _acc or _bleu"),
    ({"seed": -1}, "seed: -1 is negative"),
]


@pytest.mark.parametrize(("changes", "complaint"), WRONG, ids=[complaint for _, complaint in WRONG])
def test_values_out_of_range_and_impossible_combinations(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny_config("run", "data", changes)
    lines = str(caught.value).splitlines()
    assert lines[0] == "wrong settings:"
    assert any(line.startswith(f"  {complaint}") for line in lines), lines


def test_all_problems_are_told_at_once() -> None:
    message = refusal("model.layers=-1", "optim.lr=0", "model.dropout=2", "train.batch_tokens=100", "data.mlm={de: -1}")
    for key in ("model.layers", "optim.lr", "model.dropout", "train.batch_tokens", "data.mlm.de"):
        assert f"\n  {key}: " in message


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


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("optim.lrr=3", "optim.lr"),
        ("model.dimm=8", "model.dim"),
        ("trian.steps=3", "train"),
        ("experimant=quickstart", "experiment"),
        ("lr=3", "optim.lr"),
    ],
)
def test_the_key_that_was_meant_is_named(override: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean {re.escape(meant)}\?"):
        compose("config", ["run=x", "data.path=y", override])


@pytest.mark.parametrize("word", ["train.steps", "data.mlm={en:", "--steps"])
def test_how_settings_are_written(word: str) -> None:
    assert "settings are key=value without blanks around the =" in refusal(word)


@pytest.mark.parametrize("form", [["--config-dir", "{}"], ["--config-dir={}"]])
def test_a_directory_of_ones_own(tmp_path: Path, form: list[str]) -> None:
    own = tmp_path / "it's mine"
    (own / "experiment").mkdir(parents=True)
    (own / "experiment" / "mine.yaml").write_text("# @package _global_\noptim: {lr: 0.125}\n", encoding="utf-8")
    flags = [word.format(own) for word in form]
    assert train_config(*flags, "experiment=mine").optim.lr == 0.125
    assert f"{tmp_path}/nowhere: there is no such directory" in refusal("--config-dir", f"{tmp_path}/nowhere")


CORPUS = """\
output: out/ende
columns: {de: translation.de, en: translation.en}
train:
  pairs:
    de-en:
      - "data/*.{lang}"
      - /far/x.parquet
valid: {mono: {en: [../dev.en]}}
bpe: {codes: codes, merges: 7}
vocab: {file: vocab}
"""


def test_a_corpus_anywhere_has_paths_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "my corpus" / "ende.yaml"
    path.parent.mkdir()
    path.write_text(CORPUS, encoding="utf-8")
    found = compose("prepare", ["valid.mono.de=[here.de]", str(path), "bpe.merges=9"])
    assert found.train.pairs == {"de-en": [f"{path.parent}/data/*.{{lang}}", "/far/x.parquet"]}
    assert found.valid.mono == {"en": [f"{path.parent}/../dev.en"], "de": ["here.de"]}
    assert (found.output, found.bpe.codes) == (f"{path.parent}/out/ende", f"{path.parent}/codes")
    assert (found.vocab.file, found.bpe.merges) == (f"{path.parent}/vocab", 9)
    assert found.columns == {"de": "translation.de", "en": "translation.en"}
    assert compose("prepare", [str(path), "output=here"]).output == "here"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "merges: 7->mergers: 7",
            r"ende\.yaml: Key 'mergers' .*full_key: bpe\.mergers.*mean bpe\.merges",
        ),
        ("valid: ->vlaid: ", r"ende\.yaml: Key 'vlaid' .*full_key: vlaid.*did you mean valid\?"),
        ("merges: 7->merges: many", r"ende\.yaml: Value 'many' .*full_key: bpe\.merges"),
        ("merges: 7->merges: [", r"ende\.yaml:\d+: not YAML"),
        ("out/ende->~/ende", "output: ~/ende: the shell has not expanded the ~"),
        ("out/ende->${oc.env:HOME}", "output: .* asks for something outside the settings"),
        ("out/ende->''", "output=: empty"),
        ("{de: translation.de->{dee: translation.de", "columns.dee: there is no text in this language"),
        ("corpus=sample", r"one file of settings, or corpus=\.\.\., can be given, here are 2"),
        ("none.yaml", r"none\.yaml: there is no such file"),
    ],
)
def test_faults_of_a_corpus_anywhere_are_named(tmp_path: Path, words: str, message: str) -> None:
    change, more = (words.split("->"), []) if "->" in words else (["", ""], [words])
    (tmp_path / "ende.yaml").write_text(CORPUS.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError, match=re.compile(message, re.DOTALL)):
        compose("prepare", [str(tmp_path / "ende.yaml"), *more])


def test_only_preparation_takes_a_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("run: x\n", encoding="utf-8")
    assert "there is no such option" in refusal(str(tmp_path / "x.yaml"))


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


@pytest.mark.parametrize("value", ["${oc.env:TOKEN}", "${oc.env:TOKEN,x}", "a/${oc.env:TOKEN}"])
def test_what_is_outside_the_settings_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Else a secret in the environment would end in ``config.json`` of the run, or be sent for by a foreign one."""
    monkeypatch.setenv("TOKEN", "secret")
    assert refusal(f"run={value}").startswith(f"run: {value} asks for something outside the settings")
    with pytest.raises(ConfigError, match=r"^run: .* asks for something outside the settings"):
        from_json(Config, {"run": value})
    assert train_config("run=${data.path}").run == "somewhere"


# Values of settings that are text, as a shell hands them on.
@pytest.mark.parametrize(
    "value", ["größe", "a=b", "x#1", "1e5", "007", "true", "a b", "it's", "(x)", "a;b", "a\\", "a\\'b", "x&y", "100"]
)
def test_a_text_setting_is_taken_as_it_stands(value: str) -> None:
    assert train_config(f"run={value}").run == value
    assert compose("finetune", [*FINETUNE, f"init.pretrained={value}"]).init.pretrained == value


def test_references_and_quotes_in_text_settings_are_read() -> None:
    assert train_config("run='a,b'").run == "a,b"
    assert train_config("run=größe/${seed}").run == "größe/0"
    assert "Ambiguous value" in refusal("run=a,b")
    for value in ("{x}", "x [y]", "'x"):
        assert refusal(f"run={value}").startswith(f"run={value}: cannot be read; settings are key=value")


@pytest.mark.parametrize("value", ["[t.tsv]", "{a: b}"])
def test_one_file_is_wanted_for_each_language(value: str) -> None:
    with pytest.raises(ConfigError, match=r"\n  task\.train\.en: .* is not text; give a single path or value$"):
        compose("finetune", [*FINETUNE[:2], FINETUNE[3], f"task.train={{en: {value}}}"])
    probe = f"evaluate.zero_shot_probe={{train: {{en: {value}}}, test: {{de: b}}}}"
    assert "evaluate.zero_shot_probe.train.en: " in refusal(probe)


@pytest.mark.parametrize("key", ["optim.lr", "train.hang_timeout", "optim.weight_decay", "optim.clip_grad_norm"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_numbers_are_finite(key: str, value: str) -> None:
    assert f"\n  {key}: {value} is " in refusal(f"{key}={value}")


def test_numbers_fit_into_64_bits() -> None:
    assert f"\n  train.steps: {1 << 63} is too large" in refusal(f"train.steps={1 << 63}")


@pytest.mark.parametrize("key", ["run", "data.path", "evaluate.bilingual_lexicon"])
@pytest.mark.parametrize("value", ["~", "~/x", "~someone/x"])
def test_a_home_directory_is_written_out(key: str, value: str) -> None:
    assert refusal(f"{key}={value}") == f"{key}: {value}: the shell has not expanded the ~; give the whole path"
    assert train_config("run=x~y").run == "x~y"


GLOBAL = b"# @package _global_\n"
FAULTY = {
    "tab": (GLOBAL + b"optim:\n\tlr: 1\n", "3: not YAML: found character '\\t'"),
    "bracket": (GLOBAL + b"data: {mlm: {de: 1\n", "3: not YAML: expected ',' or '}'"),
    "latin-1": (GLOBAL + "# Größe\nrun: Größe\n".encode("latin-1"), "2: not UTF-8"),
    "byte-order mark": ("\ufeff".encode() + GLOBAL + b"optim: {lr: 1}\n", "1: begins with a byte-order mark"),
    "doubled key": (GLOBAL + b"optim: {lr: 1}\noptim: {lr: 2}\n", "3: optim is there twice"),
    "no package": (b"# mine\noptim: {lr: 1}\n", "1: the first line must be '# @package _global_'"),
    "empty": (b"", "1: the first line must be '# @package _global_'"),
    "comments": (GLOBAL + b"# later\n", "1: has no settings"),
    "a list": (GLOBAL + b"- lr\n", "1: has no settings"),
    "Norwegian": (GLOBAL + b"data:\n  mlm: {no: 1}\n", "3: YAML does not read no as text; put it in quotes"),
    "number": (GLOBAL + b"run: 1e5\n", "2: YAML does not read 1e5 as text; put it in quotes"),
    "truth": (GLOBAL + b"train: {precision: off}\n", "2: YAML does not read off as text; put it in quotes"),
    "defaults": (GLOBAL + b"defaults: model\n", "2: defaults must be a list"),
    "NUL": (GLOBAL + b"seed: 1\nrun: a\0b\n", "3: not YAML: special characters are not allowed"),
    "a list as a key": (GLOBAL + b"? [a, b]\n: 2\n", "2: a key must be text; put it in quotes"),
    "deep": (GLOBAL + b"run: " + b"[" * 2000 + b"\n", "1: not YAML that can be read (RecursionError"),
    "in itself": (GLOBAL + b"data: &x {mlm: *x}\n", "1: has more than 100,000 values, its aliases"),
    "chooses itself": (GLOBAL + b"defaults: [/experiment: mine]\n", "1: its defaults choose this file again"),
}


@pytest.mark.parametrize(("content", "complaint"), FAULTY.values(), ids=FAULTY)
def test_faulty_yaml_is_named_with_its_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "experiment").mkdir()
    path = tmp_path / "experiment" / "mine.yaml"
    path.write_bytes(content)
    flags = ["--config-dir", str(tmp_path)]
    assert refusal(*flags, "experiment=mine").startswith(f"{path}:{complaint}")
    assert train_config(*flags, "experiment=quickstart").data.mlm  # a file that is not chosen does not matter


@pytest.mark.parametrize("word", ["experiment=null", "model=", "data=null"])
def test_no_file_of_a_group_is_no_choice(word: str) -> None:
    assert refusal(word).startswith(f"{word}: name one of ")


def test_faulty_yaml_that_a_preset_chooses(tmp_path: Path) -> None:
    for group, content in (("experiment", GLOBAL + b"defaults:\n  - override /model: mine\n"), ("model", b"dim: {\n")):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_bytes(content)
    assert f"{tmp_path}/model/mine.yaml:2: not YAML" in refusal("--config-dir", str(tmp_path), "experiment=mine")
    (tmp_path / "model" / "mine.yaml").write_bytes(b"dim: 8\nheads: 2\n")
    assert train_config("--config-dir", str(tmp_path), "experiment=mine").model.dim == 8


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
