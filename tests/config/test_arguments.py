"""The arguments of the small tools: key=value for their own settings, the rest handed on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import pytest

from xlmtrain.config.load import parse_args
from xlmtrain.errors import ConfigError


class Size(str, Enum):
    """How large."""

    small = "small"
    large = "large"


@dataclass
class Place:
    """A group of settings."""

    files: dict[str, str] = field(default_factory=dict)
    """Language -> file."""

    depth: int = 1
    """How deep."""


@dataclass
class Options:
    """Settings of a tool."""

    run: str = "???"
    """Where to look."""

    count: int = 5
    """How many
    of them."""

    size: Size = Size.small
    """How large they are."""

    text: str | None = None
    """What to say."""

    place: Place = field(default_factory=Place)
    """Where it is."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count: {self.count} is less than 1")


def refusal(*argv: str, more: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_args(Options, argv, more)
    return str(caught.value)


def test_keys_are_settings_and_the_rest_is_handed_on_in_its_order() -> None:
    options, others = parse_args(Options, ["a b", "run=here", "count=3", "<mask> c", "size=large"])
    assert options == Options("here", 3, Size.large, None)
    assert others == ["a b", "<mask> c"]
    assert parse_args(Options, ["run=here"]) == (Options("here"), [])


@pytest.mark.parametrize(
    "text", ["a = b", "x=y=z", "null", "1", "a, b: {c}", "[d]", "'quoted' \"too\"", "groß", "${5}"]
)
def test_a_text_is_taken_as_it_stands(text: str) -> None:
    assert parse_args(Options, ["run=here", f"text={text}"])[0].text == text


def test_the_last_of_several_values_counts() -> None:
    assert parse_args(Options, ["count=1", "run=a", "count=2", "run=b"]) == (Options("b", 2), [])


def test_keys_of_others() -> None:
    """A misspelt key must not pass for a text, unless somebody else looks at it."""
    assert refusal("run=here", "cuont=3") == (
        "no such settings: cuont=3; there are count, place, run, size, text; did you mean count?"
    )
    options, others = parse_args(Options, ["optim.lr=1", "run=here", "experiment=small", "+x=1"], more=True)
    assert (options, others) == (Options("here"), ["optim.lr=1", "experiment=small", "+x=1"])
    assert refusal("run=here", "cuont=3", more=True).endswith("; did you mean count?")


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("count=many", ["'many'", "count"]),
        ("count=2.5", ["'2.5'", "count"]),
        ("count=", ["''", "count"]),
        ("size=huge", ["huge", "small", "large", "size"]),
        ("count=0", ["count: 0 is less than 1"]),
        ("run=???", ["run=..."]),
    ],
)
def test_wrong_values_are_named(argument: str, names: list[str], more: bool) -> None:
    message = refusal("run=here", argument, more=more)
    assert [name for name in names if name not in message] == []


def test_what_has_no_value_yet_is_asked_for() -> None:
    assert refusal("count=1") == "these settings have no value yet: run=..."


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_explains_every_setting_and_ends(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_args(Options, ["count=many", flag])
    assert caught.value.code == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for setting, meaning in (
        ("run=???   [str]", "Where to look."),
        ("count=5   [int]", "How many of them."),
        ("size=small   [small | large]", "How large they are."),
        ("text=null   [str | null]", "What to say."),
    ):
        assert lines[lines.index(setting) + 1] == meaning


def test_a_group_is_given_as_hydra_reads_it() -> None:
    options, _ = parse_args(Options, ["run=here", "place={files: {en: 'a=b.tsv', de: c d.tsv}, depth: 2}"])
    assert options.place == Place({"en": "a=b.tsv", "de": "c d.tsv"}, 2)
    assert "depht" in refusal("run=here", "place={depht: 2}")
    assert "place={files: {en: cannot be read" in refusal("run=here", "place={files: {en")
    assert "place" in refusal("run=here", "place=3")
