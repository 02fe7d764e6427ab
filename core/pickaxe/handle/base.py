"""What all handles share: items at the boundary, calls, and fitting."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeVar

from pickaxe.artifact import Artifact, Kind, writing
from pickaxe.call import Call
from pickaxe.data import InputField, Item, Items, Progress, kind_of
from pickaxe.errors import ArtifactMismatch, InvalidItems, Violation
from pickaxe.opened import Opened, open_method

H = TypeVar("H", bound="MethodHandle")

ItemLike = Item | str
OnProgress = Callable[[Progress], None]


def as_item(value: object, position: str) -> Item:
    """An item as it is; a string becomes one with its position as id."""
    if isinstance(value, Item):
        if not isinstance(value.id, str):
            raise InvalidItems(f"items[{position}].id", f"is {value.id!r}, wanted a string")
        return value
    if isinstance(value, str):
        return Item(position, value)
    raise InvalidItems(f"items[{position}]", f"is a {type(value).__name__}, wanted a pickaxe.Item or a string")


def as_items(values: Iterable[ItemLike]) -> Items:
    if isinstance(values, Items):
        return values
    return Items(as_item(value, str(row)) for row, value in enumerate(values))


def violations(item: Item, fields: Sequence[InputField], where: str) -> Iterator[Violation]:
    """What is wrong with an item, by the declared fields."""
    for each in fields:
        value = item.get(each.name)
        place = f"{where}.text" if each.name == "text" else f"{where}.fields.{each.name}"
        if value is None:
            if each.required:
                yield Violation(place, f"is missing (item {item.id!r}): {each.doc}")
        elif not _fits(kind_of(value), each.kind):
            yield Violation(
                place, f"is {kind_of(value) or type(value).__name__}, wanted {each.kind} (item {item.id!r})"
            )


def _fits(found: str, wanted: str) -> bool:
    return found == wanted or (wanted == "float64" and found == "int64")


def _all_plain(items: Items, fields: Sequence[InputField]) -> bool:
    """The check of nearly every call, without naming who fails it: a tenth of the time of `violations`.

    Texts where texts are wanted, and nothing else where nothing else is needed.
    """
    others = [each for each in fields if not each.name == each.kind == "text"]
    if any(each.required or each.name == "text" for each in others):
        return False
    return all(type(item.text) is str and not (others and item.fields) for item in items)


class Checked(Iterable[Item]):
    """Items that are checked as they pass; iterable again whenever the source is."""

    def __init__(self, source: Iterable[ItemLike], fields: Sequence[InputField], label: str, unique: bool = False):
        self._source, self._fields, self._label, self._unique = source, fields, label, unique

    def fingerprint(self) -> str:
        """Changes with the source: tells a resumed fit from one on other data.

        Files go by path, size and time of change (their reader's `identity`), sequences by ids and texts; "" for
        what can be read only once.
        """
        identity = getattr(self._source, "identity", None)
        if identity is not None:
            return json.dumps(identity())
        if not isinstance(self._source, Sequence):
            return ""
        digest = hashlib.blake2b(digest_size=16)
        for value in self._source:
            parts = (value.id, value.text or "") if isinstance(value, Item) else (str(value),)
            digest.update("\x1f".join(parts).encode("utf-8", "surrogatepass") + b"\x1e")
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Item]:
        seen: set[str] = set()
        for row, value in enumerate(self._source):
            item = as_item(value, str(row))
            if found := list(violations(item, self._fields, f"{self._label}[{row}]")):
                raise InvalidItems(found)
            if self._unique:
                if item.id in seen:
                    raise InvalidItems(f"{self._label}[{row}].id", f"{item.id!r} was used before")
                seen.add(item.id)
            yield item


class MethodHandle:
    """An opened method in one role.  Cheap to make, safe to share between threads."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self.params, name)!r}" for name in sorted(self.params.model_fields_set))
        return f"<{self.opened.role} {self.name}({given})>"

    @property
    def name(self) -> str:
        return self.opened.name

    @property
    def params(self) -> Any:
        return self.opened.params

    @property
    def artifact(self) -> Artifact | None:
        return self.opened.artifact

    def with_artifact(self: H, artifact: str | os.PathLike[str] | Artifact) -> H:
        """The same method and given parameters on another artifact."""
        given = self.params.model_dump(mode="json", include=self.params.model_fields_set)
        return type(self)(
            open_method(type(self.opened.method), self.name, self.opened.role, given, artifact, self.opened.host.parent)
        )

    def check_items(self, values: Iterable[ItemLike], label: str = "items", start: int = 0) -> Items:
        """The items, once every declared field is there; raises `InvalidItems` with all violations.

        Violations name the place in the whole input, of which these are the items from `start` on.
        """
        items = as_items(values)
        fields = self.opened.method.reads
        if _all_plain(items, fields):
            return items
        found = [each for row, item in enumerate(items, start) for each in violations(item, fields, f"{label}[{row}]")]
        if found:
            raise InvalidItems(found)
        return items

    def fit(
        self: H,
        examples: Iterable[ItemLike],
        *,
        validation: Iterable[ItemLike] | None = None,
        unlabelled: Iterable[ItemLike] | None = None,
        out: str | os.PathLike[str] | None = None,
        init_from: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
        progress: OnProgress | None = None,
    ) -> H:
        """Fit on the examples and return the handle on the new artifact.

        Without `out` the artifact lives in a temporary directory as long as the returned handle does.
        """
        return self._made(
            lambda path, durable: self.fitting(
                examples,
                path,
                validation=validation,
                unlabelled=unlabelled,
                init_from=init_from,
                overwrite=overwrite,
                call=call or Call(timeout=timeout, seed=seed),
                durable=durable,
            ),
            out,
            progress,
        )

    def fitting(
        self,
        examples: Iterable[ItemLike],
        out: str | os.PathLike[str],
        *,
        validation: Iterable[ItemLike] | None = None,
        unlabelled: Iterable[ItemLike] | None = None,
        init_from: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        call: Call | None = None,
        durable: bool = True,
    ) -> Iterator[Progress]:
        """`fit` as a generator of progress; the artifact is at `out` once it ends.

        With `durable` a crash of the machine does not take what was finished.
        """
        self.opened.require("fit")
        fields = self.opened.method.fit_reads
        start = None if init_from is None else Artifact.open(self.opened.host.artifact_path(init_from))
        arguments = {
            "examples": Checked(examples, fields, "examples"),
            "validation": None if validation is None else Checked(validation, fields, "validation"),
            "unlabelled": None if unlabelled is None else Checked(unlabelled, (), "unlabelled"),
            "init_from": start,
        }
        yield from self._making("fit", "fit", out, arguments, overwrite, call, durable)

    def merge(self: H, artifacts: Sequence[str | os.PathLike[str]], *, out: str | os.PathLike[str] | None = None) -> H:
        """Add up artifacts fitted on parts of the data."""
        self.opened.require("merge")
        parts = [Artifact.open(self.opened.host.artifact_path(path)) for path in artifacts]

        def run(path: str | os.PathLike[str], durable: bool) -> Iterator[Progress]:
            return self._making("fit", "merge", path, {"artifacts": parts}, False, None, durable)

        return self._made(run, out, None)

    def _making(
        self,
        kind: str,
        hook: str,
        out: str | os.PathLike[str],
        arguments: Mapping[str, Any],
        overwrite: bool,
        call: Call | None,
        durable: bool,
    ) -> Iterator[Progress]:
        opened, call = self.opened, call or Call()
        with writing(
            out,
            kind="index" if kind == "index" else "fit",
            method=self.name,
            method_version=opened.method.version,
            params=self.params.model_dump(mode="json"),
            inputs=_inputs(arguments, call),
            data=_data(arguments),
            references=opened.host.references,
            overwrite=overwrite,
            durable=durable,
        ) as writer:
            with closing(opened.pull(hook, out=writer, call=call, **arguments)) as steps:
                for step in steps:
                    if not isinstance(step, Progress):
                        raise opened.nonsense(f"{hook} yielded {type(step).__name__}, wanted Progress")
                    call.check()
                    yield step
            call.check()

    def _made(
        self: H,
        run: Callable[[str | os.PathLike[str], bool], Iterator[Progress]],
        out: str | os.PathLike[str] | None,
        progress: OnProgress | None,
    ) -> H:
        scratch = None
        if out is None:
            scratch = tempfile.mkdtemp(prefix="pickaxe-")
            out = Path(scratch) / "artifact"
        try:
            for step in run(out, scratch is None):
                if progress is not None:
                    progress(step)
            handle = self.with_artifact(Artifact.open(out))
        except BaseException:
            if scratch is not None:
                rmtree(scratch, ignore_errors=True)
            raise
        if scratch is not None:
            weakref.finalize(handle.opened.artifact, rmtree, scratch, ignore_errors=True)
        return handle

    def _ready(self, kind: Kind, *, required: bool) -> None:
        """Raise `ArtifactMismatch` unless the artifact, where there is or must be one, is of this method and kind."""
        if self.artifact is not None:
            self.artifact.check_method(self.name, self.opened.method.version, kind)
        elif required:
            raise ArtifactMismatch(
                f"{self.name} needs an artifact: {_REMEDY[kind]} first, or name one made earlier",
                metadata={"method": self.name, "wanted": kind},
            )

    def _ready_to_answer(self) -> None:
        """The same for scoring, reranking and decoding, which may need what `fit` made."""
        self._ready("fit", required=self.opened.method.fitted == "required")


def _inputs(arguments: Mapping[str, Any], call: Call) -> dict[str, Any]:
    """What an artifact was made from, for its manifest."""
    start, base = arguments.get("init_from"), arguments.get("base")
    inputs = {"seed": call.seed, "init_from": start.digest if start else ""}
    return inputs | ({"base": base.digest} if base else {})


def _data(arguments: Mapping[str, Any]) -> list[str]:
    """Fingerprints of what it is made from."""
    found = [each.fingerprint() for each in arguments.values() if isinstance(each, Checked)]
    return found + ([json.dumps(sorted(removed))] if (removed := arguments.get("remove")) else [])


_REMEDY: dict[Kind, str] = {"fit": "call fit(examples)", "index": "call index(documents)"}
