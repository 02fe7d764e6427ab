"""Checks for methods that can be fitted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pickaxe.artifact import Artifact
from pickaxe.call import Call
from pickaxe.data import Progress
from pickaxe.errors import ArtifactCorrupt, Cancelled
from pickaxe.hooks import implemented
from pickaxe.testing import elsewhere
from pickaxe.testing.check import Failed, check, require
from pickaxe.testing.plain import difference, plain, same
from pickaxe.testing.subject import Subject, answer

TRAINING = ("jax", "jaxlib", "optax", "torch")
"""Libraries that only a fit may need."""


def _trainable(subject: Subject) -> bool:
    return subject.trainable


def _uses_fit(subject: Subject) -> bool:
    return subject.trainable and subject.kind.fitted != "never"


def _answering(subject: Subject, artifact: str) -> Iterator[tuple[str, str]]:
    """(role, artifact that it answers with) for a fitted artifact; retrievers answer from an index of their own."""
    for role in subject.roles:
        if role != "retriever":
            yield role, artifact


@check(_trainable)
def progress(subject: Subject) -> None:
    """Progress is reported, by declared stages in their order, and never goes back."""
    declared = subject.kind.stages
    reached: dict[str, int] = {}
    for step in subject.fitting(subject.scratch()):
        _forward(step, reached, declared)
    require(reached, "fit reports no progress")


def _forward(step: Progress, reached: dict[str, int], declared: tuple[str, ...]) -> None:
    stage = step.stage
    require(stage in declared, f"stage {stage!r} is not among the declared {declared}")
    later = [each for each in reached if declared.index(each) > declared.index(stage)]
    require(not later, f"stage {stage!r} comes after {later}")
    require(step.step >= reached.get(stage, 0), f"stage {stage!r} goes back from {reached.get(stage)} to {step.step}")
    require(not step.total or step.step <= step.total, f"stage {stage!r} is at {step.step} of {step.total}")
    reached[stage] = step.step


@check(_trainable)
def again(subject: Subject) -> None:
    """The same fit gives the same artifact, byte for byte."""
    _equal(subject.first_fit(), subject.fit(), "a second fit")


@check(_trainable)
def one_pass(subject: Subject) -> None:
    """Examples that can be read only once give the same artifact."""
    out = subject.scratch()
    given = subject.example
    once = replace(given, examples=iter(given.examples), validation=given.validation and iter(given.validation))  # type: ignore[arg-type]
    for _ in subject.fitting(out, example=once):
        pass
    _equal(subject.first_fit(), str(out), "a fit on examples that can be read only once")


@check(_trainable)
def resume(subject: Subject) -> None:
    """A fit that was interrupted after any of its steps gives, run again, the same artifact."""
    whole, steps = subject.first_fit(), subject.fit_steps
    for stop in sorted({1, (steps + 1) // 2, steps}):
        out = subject.scratch()
        running = subject.fitting(out)
        for _ in range(stop):
            next(running)
        running.close()  # type: ignore[attr-defined]
        require(not out.exists(), f"interrupted after step {stop}, yet the artifact is there")
        for _ in subject.fitting(out):
            pass
        _equal(whole, str(out), f"a fit resumed after step {stop} of {steps}")


@check(_trainable)
def cancel_leaves_nothing(subject: Subject) -> None:
    """A cancelled fit raises Cancelled and leaves no artifact."""
    out, call = subject.scratch(), Call()
    try:
        for _ in subject.fitting(out, call=call):
            call.cancel()
    except Cancelled:
        require(not out.exists(), "the fit was cancelled, yet the artifact is there")
        return
    raise Failed("the fit ran to its end although it was cancelled at its first step")


@check(_trainable)
def digests(subject: Subject) -> None:
    """The artifact's files are those of the manifest, also after it was used."""
    path = _copy(subject)
    require(Artifact.open(path).manifest["files"], "the artifact has no files: what was learned belongs into files")
    for role, artifact in _answering(subject, str(path)):
        answer(subject.open(role, artifact), role, subject.example)
    listed = {*Artifact.open(path).manifest["files"], "manifest.json"}
    there = {each.name for each in path.iterdir()}
    require(there == listed, f"using the artifact left {sorted(there ^ listed)} in it")


@check(_trainable)
def tampering(subject: Subject) -> None:
    """One changed byte in any file is noticed when the artifact is opened."""
    path = _copy(subject)
    role = subject.roles[0]
    for name in Artifact.open(path).manifest["files"]:
        file = path / name
        kept = file.read_bytes()
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]) if kept else b"x")
        try:
            subject.open(role, str(path))
        except ArtifactCorrupt:
            file.write_bytes(kept)
            continue
        raise Failed(f"file {name!r} was changed and opens all the same")


@check(_uses_fit)
def elsewhere_without_training_libraries(subject: Subject) -> None:
    """A moved artifact answers the same in a fresh interpreter that has no training library."""
    here, moved = Path(subject.first_fit()), subject.scratch()
    expected = {role: plain(subject.outcome(role)) for role, _ in _answering(subject, str(here))}
    shutil.move(here, moved)
    try:
        there = elsewhere.answers(subject.target, dict(_answering(subject, str(moved))), blocked=TRAINING)
    finally:
        shutil.move(moved, here)
    for role, result in expected.items():
        if found := difference(json.loads(json.dumps(result)), there[role]):
            raise Failed(f"{role} of a moved artifact differs in a fresh interpreter: {found}")


@check(lambda subject: subject.trainable and "merge" in implemented(subject.kind))
def merge(subject: Subject) -> None:
    """Fits on two halves add up to the fit on the whole."""
    given = subject.example
    half = len(given.examples) // 2
    parts = []
    for examples in (given.examples[:half], given.examples[half:]):
        out = subject.scratch()
        for _ in subject.fitting(out, example=replace(given, examples=examples)):
            pass
        parts.append(str(out))
    merged = subject.open(subject.roles[0]).merge(parts, out=subject.scratch())
    for role, _ in _answering(subject, subject.first_fit()):
        whole = subject.outcome(role)
        same(whole, answer(subject.open(role, str(merged.artifact.path)), role, given), f"{role} of merged halves")


def _copy(subject: Subject) -> Path:
    """The example's artifact once more, to be handled roughly."""
    copied: Path = shutil.copytree(subject.first_fit(), subject.scratch())
    return copied


def _equal(one: str, other: str, what: str) -> None:
    """Fail, naming what differs, unless both artifacts have the same digest."""
    first, second = Artifact.open(one), Artifact.open(other)
    if first.digest != second.digest:
        raise Failed(f"{what} gives another artifact: {difference(plain(first.manifest), plain(second.manifest))}")
