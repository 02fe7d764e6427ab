"""Five complexities of Python code, as radon 6.0 and cognitive_complexity 1.3 define them."""

from __future__ import annotations

import ast
import functools
import io
import math
import textwrap
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe.errors import InvalidItems

METRICS = ("physical_loc", "cyclomatic", "halstead_vocabulary", "mi_inverted", "cognitive")
WEIGHTS = (0.1, 0.2, 0.15, 0.25, 0.3)
"""Of the metrics, in their order [code]."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.ClassDef)


@functools.lru_cache(maxsize=65536)
def complexity(code: str) -> tuple[float, ...]:
    """The values of `METRICS`.  Code without a function or class is the body of one.

    Raises `InvalidItems` naming the line where the code cannot be parsed.
    """
    code, tree = _parsed(code)
    loc = sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in code.splitlines())
    halstead, lines = _halstead(tree), _lines(code)
    index = _maintainability(halstead, _total_cyclomatic(tree), lines)
    blocks = list(_blocks(tree))
    mean = sum(map(_cyclomatic, blocks)) / len(blocks) if blocks else 0.0
    return float(loc), mean, float(halstead.vocabulary), 100 - index, float(_cognitive(tree))


def _parsed(code: str) -> tuple[str, ast.Module]:
    code = textwrap.dedent(code)
    try:
        tree = ast.parse(code)
        if not any(isinstance(node, _SCOPES) for node in tree.body) and tree.body:
            code = "def solution():\n" + textwrap.indent(code, "    ")
            tree = ast.parse(code)
    except SyntaxError as error:
        raise InvalidItems("code", f"cannot be parsed, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidItems("code", f"cannot be parsed: {type(error).__name__}: {error}") from None
    return code, tree


@dataclass(frozen=True)
class Bounds:
    """Least and largest value of each metric over a data set, which scale new ones to 0 to 1."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> Bounds:
        """Over (n, 5) values."""
        return cls(tuple(values.min(0).tolist()), tuple(values.max(0).tolist()))

    def normalised(self, values: np.ndarray) -> np.ndarray:
        """(n, 5) in [0, 1]: values beyond the bounds are cut; a metric that is constant is 0."""
        low, high = np.array(self.low), np.array(self.high)
        spread = high - low
        inside = values.clip(low, high) - low
        found: np.ndarray = np.divide(inside, spread, out=np.zeros_like(values), where=spread > 0)
        return found

    def combined(self, values: np.ndarray, weights: Sequence[float] = WEIGHTS) -> np.ndarray:
        """Weighted sums of the normalised metrics, (n,)."""
        found: np.ndarray = self.normalised(values) @ np.array(weights)
        return found


# ---------------------------------------------------------------- cyclomatic


def _inside(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes below, without what stands in functions and classes; asserts are not entered."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (*_SCOPES, ast.Assert)):
            stack.extend(ast.iter_child_nodes(node))


def _decisions(nodes: Iterable[ast.AST]) -> int:
    return sum(_decision(node) for node in _inside(nodes))


def _decision(node: ast.AST) -> int:
    match node:
        case ast.If() | ast.IfExp() | ast.Assert():
            return 1
        case ast.For() | ast.AsyncFor() | ast.While():
            return 1 + bool(node.orelse)
        case ast.Try():
            return len(node.handlers) + bool(node.orelse)
        case ast.BoolOp():
            return len(node.values) - 1
        case ast.comprehension():
            return 1 + len(node.ifs)
        case ast.Match():
            catches_all = any(
                isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None for case in node.cases
            )
            return len(node.cases) - catches_all
    return 0


def _cyclomatic(function: Any) -> int:
    return 1 + _decisions(function.body)


def _blocks(tree: ast.Module) -> Iterator[ast.AST]:
    """Functions at the top, and the methods of classes there."""
    for node in _inside(tree.body):
        if isinstance(node, _FUNCTIONS):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from (each for each in _inside(node.body) if isinstance(each, _FUNCTIONS))


def _total_cyclomatic(tree: ast.Module) -> int:
    """Of the whole module: 1 and all decisions; a class adds each of its methods too."""
    total = 1 + _decisions(tree.body)
    for node in _inside(tree.body):
        if isinstance(node, _FUNCTIONS):
            total += _cyclomatic(node) - 1
        elif isinstance(node, ast.ClassDef):
            methods = [each for each in _inside(node.body) if isinstance(each, _FUNCTIONS)]
            total += _decisions(node.body) + sum(map(_cyclomatic, methods))
    return total


# ---------------------------------------------------------------- Halstead and maintainability


@dataclass(frozen=True)
class _Halstead:
    vocabulary: int
    length: int

    @property
    def volume(self) -> float:
        return self.length * math.log2(self.vocabulary) if self.vocabulary else 0.0


def _halstead(tree: ast.Module) -> _Halstead:
    """Operators and operands of arithmetic, boolean and comparison nodes; operands are told apart by function."""
    operators: set[str] = set()
    operands: set[tuple[str, Any]] = set()
    length = 0
    stack: list[tuple[ast.AST, str]] = [(tree, "")]
    while stack:
        node, place = stack.pop()
        ops, sides = _operation(node)
        operators.update(type(op).__name__ for op in ops)
        operands.update((place, _operand(side)) for side in sides)
        length += len(ops) + len(sides)
        if isinstance(node, _FUNCTIONS):
            stack.extend((child, node.name) for child in node.body)
        else:
            stack.extend((child, place) for child in ast.iter_child_nodes(node))
    return _Halstead(len(operators) + len(operands), length)


def _operation(node: ast.AST) -> tuple[Sequence[ast.AST], Sequence[ast.AST]]:
    match node:
        case ast.BinOp():
            return (node.op,), (node.left, node.right)
        case ast.UnaryOp():
            return (node.op,), (node.operand,)
        case ast.BoolOp():
            return (node.op,), node.values
        case ast.AugAssign():
            return (node.op,), (node.target, node.value)
        case ast.Compare():
            return node.ops, (node.left, *node.comparators)
    return (), ()


def _operand(node: ast.AST) -> Any:
    """What makes operands equal: a name, a constant, an attribute's name; anything else is unlike all others."""
    match node:
        case ast.Name():
            return node.id
        case ast.Constant():
            return node.value
        case ast.Attribute():
            return node.attr
    return node


@dataclass(frozen=True)
class _Lines:
    logical: int
    comment_percent: float


def _lines(code: str) -> _Lines:
    """Logical lines, and comments with multi-line strings in percent of source lines."""
    rows = code.splitlines()
    logical = comments = multi = source = 0
    for line in _statements(code):
        comments += sum(token.type == tokenize.COMMENT for token in line)
        held = [token for token in line if token.type not in _BLANKS]
        if not held:
            continue
        logical += _logical(held)
        first, last = held[0].start[0], held[-1].end[0]
        filled = sum(bool(row.strip()) for row in rows[first - 1 : last])
        if len(held) == 1 and held[0].type == tokenize.STRING:
            multi += filled if last > first else 0
        else:
            source += filled
    return _Lines(logical, 100 * (comments + multi) / source if source else 0.0)


_BLANKS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


def _statements(code: str) -> Iterator[list[tokenize.TokenInfo]]:
    held: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        held.append(token)
        if token.type == tokenize.NEWLINE:
            yield held
            held = []
    yield held


def _logical(tokens: Sequence[tokenize.TokenInfo]) -> int:
    """Parts between semicolons; one with a colon that is not its last token counts twice, slices too [code]."""
    count, colon, last = 0, False, ""
    for token in [*tokens, None]:
        text = ";" if token is None else token.string if token.type == tokenize.OP else "x"
        if text == ";":
            count += (2 if colon and last != ":" else 1) if last else 0
            colon, last = False, ""
        else:
            colon, last = colon or text == ":", text
    return count


def _maintainability(halstead: _Halstead, cyclomatic: int, lines: _Lines) -> float:
    """0 to 100, high is easy to maintain; 100 without operators or lines."""
    if halstead.volume <= 0 or lines.logical <= 0:
        return 100.0
    raw = 171 - 5.2 * math.log(halstead.volume) - 0.23 * cyclomatic - 16.2 * math.log(lines.logical)
    raw += 50 * math.sin(math.sqrt(2.46 * math.radians(lines.comment_percent)))
    return min(max(0.0, raw * 100 / 171), 100.0)


# ---------------------------------------------------------------- cognitive


def _cognitive(tree: ast.Module) -> int:
    """Branches cost their depth, which functions deepen too; boolean operators cost 1 each and are not entered."""
    total = 0
    stack: list[tuple[ast.AST, int]] = [(node, 0) for node in tree.body]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, ast.BoolOp):
            total += sum(isinstance(each, ast.BoolOp) for each in ast.walk(node))
            continue
        if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            depth += 1
        elif isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
            total += max(1, depth)
        elif isinstance(node, (ast.If, ast.For, ast.While)):
            depth += 1
            total += depth + bool(node.orelse)
        elif isinstance(node, (ast.IfExp, ast.ExceptHandler)):
            depth += 1
            total += depth
        stack.extend((child, depth) for child in ast.iter_child_nodes(node))
    return total


def named(values: Sequence[float]) -> Mapping[str, float]:
    """Metric -> value."""
    return dict(zip(METRICS, values, strict=True))
