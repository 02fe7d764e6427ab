"""Pipelines in YAML: what the file says as parameters, with errors that name line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pickaxe.errors import InvalidParams


class _Loader(yaml.SafeLoader):
    """Plain data only, and no key twice: YAML would silently take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_pipeline(path: Path) -> dict[str, Any]:
    """The parameters in a YAML (or JSON) file; raises `InvalidParams` naming file, line and column."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # of the safe loader's kind
    except OSError as error:
        raise InvalidParams(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidParams(str(path), "is not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        raise InvalidParams(where, f"is not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(value, dict):
        raise InvalidParams(str(path), "holds no object: begin with `stages:`")
    return value
