"""The code speaks the field's language: retired words stay away, docstrings begin with what is done or returned."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

PLACES = ("xlmtrain", "tools", "benchmarks", "tests", "configs", "docs", "examples")
FILES = sorted(
    [path for path in REPOSITORY.glob("*.*") if path.is_file()]
    + [path for place in PLACES for path in (REPOSITORY / place).rglob("*") if "__pycache__" not in path.parts]
)
SOURCES = [path for path in FILES if path.suffix == ".py" and "tests" not in path.parts]
TESTS = [path for path in FILES if path.suffix == ".py" and "tests" in path.parts]
SETTINGS = [path for path in FILES if path.suffix == ".yaml" and "tests" not in path.parts]
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "benchmarks").glob("*.md")]
)

# Word -> what is said instead. In names each part of snake_case and CamelCase counts.
RETIRED = {
    "adviser": "run monitor",
    "aided": "cloze_parallel",
    "ancestor": "the original XLM",
    "contest": "benchmark",
    "doubt": "warning, finding",
    "doubts": "warnings, findings",
    "draw_tokens": "sub_batch_tokens",
    "grave": "severity",
    "mend": "fix",
    "moments": "optimizer state",
    "room": "package, memory, space",
    "settle": "wait, warm up",
    "stepper": "train step",
    "stretch": "span",
    "stretches": "spans",
    "survey": "inspect",
    "told": "said, reported",
    "zeroshot": "zero_shot",
}
PHRASES = (
    "put up with",
    "of no use",
    "no good",
    "made anew",
    "shared out",
    "languages have met",
    "languages have not met",
    "written alike",
    "weigh alike",
    "lead on from",
    "belongs beside",
    "stands for itself",
    "scripts are there",
    "begun anew",
    "tokenizer of others",
)
# Riddles begin so: "What the start before may not have come to."
HEADLESS = re.compile(r"(What|Whether|How|That|Those|Where|It)\b")


def words_of(name: str) -> Iterator[str]:
    """Yield the parts of an identifier in lower case."""
    for part in name.split("_"):
        yield from (word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part))


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (name, line) of everything that the module names."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def strings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (text, line) of every string: docstrings, messages, keys."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno


def retired_in(text: str) -> list[str]:
    """Return the retired words and phrases in a text, in the parts of its names too: ``draw_data``, ``draw-data``."""
    lower = f"{text} {re.sub('[_-]', ' ', text)}".lower()
    return [word for word in RETIRED if re.search(rf"\b{word}\b", lower)] + [
        phrase for phrase in PHRASES if phrase in lower
    ]


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=named)
def test_retired_words_stay_away(path: Path) -> None:
    if path.name in ("old_names.py", "test_old_names.py", "test_language.py"):
        pytest.skip("it lists old names")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [f"{path.name}:{line}: {name}" for name, line in identifiers(tree) if RETIRED.keys() & set(words_of(name))]
    found += [f"{path.name}:{line}: {retired_in(text)}" for text, line in strings(tree) if retired_in(text)]
    comments = [line.partition("#")[2] for line in path.read_text(encoding="utf-8").splitlines() if "# " in line]
    found += [f"{path.name}: # {comment}" for comment in comments if retired_in(comment)]
    assert not found


def test_files_have_no_retired_names() -> None:
    assert not [named(path) for path in FILES if retired_in(path.stem)]


@pytest.mark.parametrize("path", SETTINGS, ids=named)
def test_presets_have_no_retired_words(path: Path) -> None:
    assert not retired_in(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_docstrings_say_what_is_done_or_returned(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node) or ""
            if HEADLESS.match(text):
                found.append(f"{getattr(node, 'lineno', 1)}: {text.splitlines()[0]}")
    assert not found


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_pages_have_no_retired_words(path: Path) -> None:
    if path.name == "CHANGELOG.md":
        pytest.skip("it names what was renamed")
    text = re.sub(r"\*[^*\n]+\*", "", path.read_text(encoding="utf-8"))  # quoted sentences are in italics
    lines = text.splitlines()
    assert not [f"{number}: {retired_in(line)}" for number, line in enumerate(lines, 1) if retired_in(line)]


def test_the_glossary_is_short() -> None:
    text = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert 0 < text.count("| **") <= 10
