"""docs/command-line.md names every command, and every command line in the docs would be understood."""

import re
from pathlib import Path

import click
import pytest

from pickaxe_services.cli import COMMANDS, pickaxe

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
LINES = [
    pytest.param(line, id=f"{path.stem}: {line[:60]}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for block in re.findall(r"```\w*\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    for line in re.findall(r"^(?:\$ )?pickaxe (\S.*)$", block.replace("\\\n", " "), re.MULTILINE)
]


def options(command: click.Command) -> set[str]:
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    return {name for each in command.params for name in each.opts}.union(*map(options, inner))


def test_every_command_is_on_the_page() -> None:
    assert not [name for name in COMMANDS if f"`pickaxe {name}" not in PAGE]


def test_every_option_on_the_page_exists() -> None:
    context = click.Context(pickaxe)
    commands = [pickaxe.get_command(context, name) for name in COMMANDS]
    known = {"--help"}.union(*(options(command) for command in commands if command is not None))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) <= known


@pytest.mark.parametrize("line", LINES)
def test_command_lines_name_commands_and_options_that_exist(line: str) -> None:
    words = line.split("  #")[0].split(" |")[0].split()
    command = pickaxe.get_command(click.Context(pickaxe), words[0])
    assert command is not None, f"no command {words[0]!r}"
    given = {word.split("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    assert given <= options(command) | {"--help", "-h"}, f"{words[0]} has no {sorted(given - options(command))}"
