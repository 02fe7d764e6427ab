"""The command line: `pickaxe COMMAND …`.

Each command lives in a module of its own that is imported when the command runs, so that `pickaxe methods` and
`pickaxe --help` start as quickly as Python does.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

import click

_HERE = "pickaxe_services.cli"
COMMANDS = {
    "methods": "List the installed methods.",
    "show": "Show everything a method says about itself.",
    "fit": "Fit a method on examples and write an artifact.",
    "index": "Index documents for a retriever.",
    "score": "Score items, any number of them.",
    "select": "Keep the best-scored records of a data set.",
    "search": "Search an index.",
    "rerank": "Put candidates into a better order.",
    "decode": "Continue prompts.",
    "evaluate": "Measure runs against judgments.",
    "compare": "Run several methods on the same input and compare them.",
    "serve": "Serve the methods over gRPC.",
    "jobs": "List, watch and cancel the jobs of a server.",
    "models": "Pull, list and verify models.",
    "check": "Run the conformance checks of a method.",
    "new": "Write a new plugin project.",
}
"""Command → what it does in a line; the module of the same name holds it."""


class Lazy(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{_HERE}.{cmd_name}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read our output has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(128 + signal.SIGPIPE)
        return result

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else "`pickaxe --help` lists the commands"
            raise click.UsageError(f"no command is called {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from pickaxe.version import __version__

        click.echo(f"pickaxe {__version__}")
        ctx.exit()


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog='Completion: eval "$(_PICKAXE_COMPLETE=bash_source pickaxe)" (also zsh_source, fish_source).',
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def pickaxe() -> None:
    """Pick data, documents, orders and tokens with published methods.

    \b
      pickaxe methods                     what there is
      pickaxe show zip-fit                what one does, reads and needs
      pickaxe score zip-fit --artifact art --input corpus.jsonl --output scores.jsonl

    Exit codes: 0 done, 1 a method failed, 2 wrong parameters or usage, 3 wrong input, 4 unknown method, artifact or
    job, 5 something is not set up, 6 does not fit, 7 server busy or away, 8 too late, 130 interrupted.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    given = list(sys.argv[1:] if args is None else args)
    try:
        code = pickaxe.main(given, prog_name="pickaxe", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        from pickaxe_services.cli.failure import report

        code = report(error, as_json="--json" in given)
        if code is None:
            raise
    sys.exit(code if isinstance(code, int) else 0)
