"""`pickaxe decode`: one prompt to the terminal as it is written, or files of prompts, resumable."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from pickaxe.call import Call
from pickaxe.data import WHOLE_PROMPT, Chunk, Completion, Item, Prompt, Sampling, completions
from pickaxe.errors import InvalidItems, Violation
from pickaxe.io.prompts import prompt_of
from pickaxe.io.readers import Check, Record
from pickaxe.io.resume import beside, output
from pickaxe.io.rows import completion_row, in_order
from pickaxe.io.writers import encoding
from pickaxe_services.cli import console
from pickaxe_services.cli.door import door, identify, require_role, source, tell_skipped
from pickaxe_services.cli.interrupt import running
from pickaxe_services.cli.options import Common, Reading, common, reading

BATCH = 16
"""Prompts per call of a batch run; a killed run does at most so many again."""


@click.command("decode")
@click.argument("method")
@click.option("--prompt", multiple=True, metavar="TEXT", help="A prompt; may be given several times.")
@click.option("--input", "-i", "inputs", multiple=True, metavar="PATH", help="Files of prompts.")
@click.option("--output", "-o", "out", default="-", show_default=True, metavar="PATH", help="Where completions go.")
@click.option("--chat", is_flag=True, help="Bare texts are messages of a user, put through the chat template.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Most tokens per choice.")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 is greedy.")
@click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), help="Draw from this share of the mass.")
@click.option("--top-k", type=click.IntRange(min=0), help="Draw from the k likeliest tokens; 0: from all.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given several times.")
@click.option("-n", "choices", type=click.IntRange(min=1), default=1, show_default=True, help="Choices per prompt.")
@click.option("--overwrite", is_flag=True, help="Replace a finished output.")
@click.option("--restart", is_flag=True, help="Drop an unfinished run instead of going on with it.")
@reading
@common
def command(
    shared: Common,
    method: str,
    prompt: tuple[str, ...],
    inputs: tuple[str, ...],
    out: str,
    chat: bool,
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    stop: tuple[str, ...],
    choices: int,
    overwrite: bool,
    restart: bool,
    reading: Reading,
) -> None:
    """Continue prompts with the decoder METHOD.

    \b
      pickaxe decode repeated-sampling --prompt 'Once upon a time' --max-tokens 40 --temperature 0.8
      pickaxe decode repeated-sampling --chat --prompt 'Name three rivers.'
      pickaxe decode repeated-sampling --input prompts.jsonl --output completions.jsonl

    A line of --input is {"text" or "prompt" or "messages": ..., "sampling": {...}, "context": [...], "allowed":
    [...], "json_schema": {...}, "regex": ...}; one line of JSON per choice comes out, and records about a whole
    prompt have choice -1.  A killed run goes on where it was when the same command is given again.
    """
    if bool(prompt) == bool(inputs):
        raise click.UsageError("give either --prompt or --input")
    sampling = Sampling(max_tokens, temperature, top_p, top_k, stop, None, choices)
    with door(shared) as opened, running(shared) as call:
        card = opened.card(method)
        require_role(card, "decoder")
        handle = opened.open(method, "decoder")
        if prompt and out == "-" and not shared.json:
            for text in prompt:
                _live(handle.decode(prompt_of(Item("prompt", text), "--prompt", sampling, chat), call=call))
            return
        if prompt:
            records: Iterator[Record] = (
                Record(Item(str(row), text), f"--prompt {row}", b"") for row, text in enumerate(prompt, 1)
            )
            request, items = None, None
        else:
            again = overwrite or restart or beside(Path(out), ".partial").exists()
            items = source(inputs, reading, check=prompt_check(sampling, chat), once=True, again=again)
            request = identify(opened, shared, card, handle, items, reading)
            if request is not None:
                request["sampling"] = [repr(sampling), chat]
        with (
            output(out, encoding(out, tables=False), request=request, overwrite=overwrite, restart=restart) as file,
            console.bar(f"decode {card.name}", shared.quiet or out == "-") as bar,
        ):
            if file.resumed:
                console.note(f"goes on after {file.resumed} prompts", shared.quiet)
            if items is not None:
                records = items.records(start=file.done)
            while part := list(islice(records, BATCH)):
                asked = [prompt_of(record.item, record.where, sampling, chat) for record in part]
                file.append(list(_rows(handle, part, asked, call)), done=len(part))
                if items is not None:
                    bar.update(items.meter.read, items.meter.total, prompts=file.done)
    if items is not None:
        tell_skipped(items, shared)
    if out != "-":
        console.note(f"decoded {file.done - file.resumed} prompts -> {out}", shared.quiet)


def prompt_check(sampling: Sampling, chat: bool) -> Check:
    """What is wrong with a record as a prompt, for readers that leave broken records out."""

    def check(item: Item, where: str) -> Iterable[Violation]:
        try:
            prompt_of(item, where, sampling, chat)
        except InvalidItems as error:
            return error.violations
        return ()

    return check


def _rows(handle: Any, part: list[Record], prompts: list[Prompt], call: Call) -> Iterator[dict[str, Any]]:
    for completion in handle.complete(prompts, call=call):
        yield completion_row(part[completion.prompt].item.id, completion)


def _live(chunks: Iterable[Chunk]) -> None:
    """Print the first choice as it comes, and the others, whole, after it."""
    first: int | None = None
    others: list[Chunk] = []
    open_line = False
    for chunk in chunks:
        if first is None and chunk.choice != WHOLE_PROMPT:
            first = chunk.choice
        if chunk.choice != first:
            others.append(chunk)
            continue
        sys.stdout.write(chunk.text)
        sys.stdout.flush()
        open_line = open_line or bool(chunk.text)
        if chunk.record is not None:
            if open_line:
                print()
            open_line = False
            _print_record(chunk.record)
    if open_line:
        print(flush=True)
    for completion in sorted(completions(others), key=lambda each: each.choice == WHOLE_PROMPT):
        _print_choice(completion)


def _print_choice(completion: Completion) -> None:
    if completion.choice != WHOLE_PROMPT:
        print(f"--- choice {completion.choice + 1}\n{completion.text}")
    for record in completion.records:
        _print_record(record)


def _print_record(record: Any) -> None:
    print(json.dumps(in_order(record), ensure_ascii=False))
