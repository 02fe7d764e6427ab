"""docs/command-line.md names every command, and every option in it exists."""

import re
from pathlib import Path

import click

from pickaxe_services.cli import COMMANDS, pickaxe

PAGE = (Path(__file__).parent.parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8")


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
