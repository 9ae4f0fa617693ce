"""Print a script with which bash completes the commands, the keys of their settings, and files.

xlmtrain completion bash > ~/.local/share/bash-completion/completions/xlmtrain
"""

from collections.abc import Iterator
from dataclasses import is_dataclass

from xlmtrain.cli import COMMANDS, load_command
from xlmtrain.config.load import SCHEMAS, config_groups
from xlmtrain.config.manual import key_paths
from xlmtrain.errors import ConfigError

_COMPOSED = {
    "prepare": "prepare",
    "finetune": "finetune",
    **dict.fromkeys(("train", "doctor", "plan", "show-data"), "config"),
}
"""Command -> the settings in configs/ that it takes."""

_BASH = """_xlmtrain() {{
    local words= current=${{COMP_WORDS[COMP_CWORD]}}
    [[ $current == "=" || ${{COMP_WORDS[COMP_CWORD - 1]}} == "=" ]] && return # the file after key=
    if [[ $COMP_CWORD == 1 ]]; then
        words="{commands}"
    else
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
        compopt -o nospace
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _xlmtrain xlmtrain"""


def main(argv: list[str]) -> None:
    """Print the script."""
    if {"--help", "-h"} & set(argv):
        print(__doc__.strip())
        return
    if argv != ["bash"]:
        raise ConfigError(f"{' '.join(argv) or 'no shell is given'}: only bash is supported")
    cases = (f'            {name}) words="{" ".join(keys(name))}" ;;' for name in COMMANDS if name != "completion")
    print(_BASH.format(commands=" ".join(COMMANDS), cases="\n".join(cases)))


def keys(name: str) -> Iterator[str]:
    """Yield ``key=`` for every setting of a command."""
    module = load_command(name)
    for value in vars(module).values():
        if is_dataclass(value) and isinstance(value, type) and value.__module__ == module.__name__:
            yield from (f"{key}=" for key in key_paths(value))
    if name in _COMPOSED:
        yield from (f"{key}=" for key in (*config_groups(_COMPOSED[name]), *key_paths(SCHEMAS[_COMPOSED[name]])))
