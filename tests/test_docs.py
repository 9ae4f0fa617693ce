"""Every command and every piece of Python in README and docs can be run as it stands there."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import xlmtrain
from tests.support.repository import REPOSITORY
from xlmtrain.cli import COMMANDS, load_command
from xlmtrain.config.load import compose, parse_args
from xlmtrain.config.schema import Config
from xlmtrain.finetuned import FinetunedModel
from xlmtrain.pretrained import PretrainedModel

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Commands whose settings are composed from configs/NAME.yaml.
COMPOSED = {"train": "config", "prepare": "prepare", "finetune": "finetune"}
HYDRA_FLAGS = {"--help", "--cfg", "job", "-m"}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield (page, content) of the fenced blocks in a language."""
    for page in PAGES:
        for found, content in BLOCK.findall(page.read_text(encoding="utf-8")):
            if found == language:
                yield str(page.relative_to(REPOSITORY)), content


def blocks_of(path: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in a language."""
    return [content for page, content in blocks(language) if REPOSITORY / page == path]


def commands() -> list[tuple[str, str]]:
    """Return (page, command), continued lines joined."""
    return [
        (page, line.strip())
        for page, content in blocks("bash")
        for line in content.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]


def check_command(name: str, words: list[str]) -> None:
    """Raise unless the command of xlmtrain takes these arguments."""
    if name in COMPOSED:
        if "-m" in words:  # a sweep; try the first of its values
            words = [word if "{" in word else word.partition(",")[0] for word in words if not word.startswith("hydra/")]
        if words != ["--help"]:
            compose(COMPOSED[name], [word for word in words if word not in HYDRA_FLAGS])
        return
    if name not in COMMANDS:
        assert [name, *words] == ["--help"], name
        return
    module = load_command(name)
    schemas = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
    ]
    if not schemas:
        module.main(words)
        return
    (schema,) = schemas
    takes_config = Config in vars(module).values() or "compose" in vars(module)
    _, others = parse_args(schema, words, more=takes_config)
    if takes_config and others:
        compose("config", [word for word in others if "=" in word])


def check(command: str) -> None:
    """Raise unless the command's program exists and takes its arguments."""
    words = list(itertools.takewhile(lambda word: word not in (">", "|"), shlex.split(command, comments=True)))
    while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words.pop(0)
    program = words.pop(0)
    if program == "xlmtrain":
        check_command(words[0], words[1:])
    elif program in ("python", "torchrun"):
        while not words[0].endswith(".py") and words[0] != "-m":
            assert words[0].startswith("-"), command
            words.pop(0)
        path, *rest = words
        if path == "-m":
            assert rest[0] == "xlmtrain", command
            check_command(rest[1], rest[2:])
        else:
            assert (REPOSITORY / path).is_file(), path
            check_command(Path(path).stem.replace("_", "-").replace("import-data", "import"), rest)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words if "=" not in word} <= set(targets), command
    elif program in ("sbatch", "tools/launch/host.sh"):
        script = next((word for word in words if word.startswith("tools/")), program)
        assert (REPOSITORY / script).is_file(), command
        compose("config", [word for word in words if "=" in word and not word.startswith("-")])
    else:
        assert program in ("tensorboard", "pre-commit", "python3", "mkdir", "pip", ".venv/bin/pip"), command


@pytest.fixture
def corpus_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for what the pages name: my_corpus.yaml, corpus=mine, mine/experiment/big.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_corpus.yaml").write_text(blocks_of(REPOSITORY / "docs" / "data.md", "yaml")[0], encoding="utf-8")
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    preset = (REPOSITORY / "configs" / "experiment" / "small_cpu.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine" / "experiment" / "big.yaml").write_text(preset, encoding="utf-8")


@pytest.mark.usefixtures("corpus_files")
@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_are_taken(page: str, command: str) -> None:
    check(command.replace("corpus=mine", "corpus=sample"))


@pytest.mark.parametrize(
    "command", ["xlmtrain prepare corpus=sample bpe.mergers=3", "xlmtrain tea", "make tea", "frobnicate"]
)
def test_a_wrong_command_is_found(command: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(command)


@pytest.mark.parametrize(("page", "content"), list(blocks("python")))
def test_python_names_what_there_is(page: str, content: str) -> None:
    model = FinetunedModel if "load_finetuned" in content else PretrainedModel
    tree, owners = ast.parse(content), {"xlmtrain": xlmtrain, "model": model}
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {
        alias.name for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            if node.func.value.id not in owners:
                assert node.func.value.id in own, ast.unparse(node)
                continue
            names = inspect.signature(getattr(owners[node.func.value.id], node.func.attr)).parameters
            assert {keyword.arg for keyword in node.keywords} <= names.keys(), ast.unparse(node)
