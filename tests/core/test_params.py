"""Parameters: one declaration, every violation at once, one string per meaning."""

import json
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.errors import InvalidParams
from pickaxe.params import MethodRef, Params, canonical, parse, schema


class Inner(Params):
    depth: int = pydantic.Field(1, ge=0, description="A depth.")


class Some(Params):
    k: float = pydantic.Field(0.2, gt=0, le=1, description="A share.")
    n: int = pydantic.Field(3, ge=1, description="A count.")
    mode: Literal["a", "b"] = pydantic.Field("a", description="A mode.")
    names: tuple[str, ...] = pydantic.Field((), description="Names.")
    inner: Inner = pydantic.Field(Inner(), description="More.")
    judge: MethodRef | None = pydantic.Field(None, description="Another method.")

    @pydantic.model_validator(mode="after")
    def _together(self) -> "Some":
        if self.mode == "b" and self.n < 2:
            raise ValueError("mode b needs n of at least 2")
        return self


def refused(**values: Any) -> dict[str, str]:
    with pytest.raises(InvalidParams) as caught:
        parse(Some, values)
    return {each.field: each.description for each in caught.value.violations}


def test_all_violations_at_once() -> None:
    found = refused(k=2, n=0, mode="c", inner={"depth": -1}, names=["x", 3], other=1)
    assert set(found) == {"k", "n", "mode", "inner.depth", "names[1]", "other"}
    assert found["k"] == "input should be less than or equal to 1 (got 2)"
    assert found["other"].startswith("is not a parameter; known are k, n, mode")


def test_a_joint_constraint_belongs_to_all() -> None:
    assert "mode b needs n" in refused(mode="b", n=1)["(all)"]


@pytest.mark.parametrize("value", [float("nan"), None, "x", [], {}, 1 + 2j, b"\xff", object()])
def test_what_is_no_number_is_refused(value: object) -> None:
    assert set(refused(k=value)) == {"k"}


def test_whole_doubles_are_integers() -> None:
    assert parse(Some, {"n": 3.0}).n == 3
    assert set(refused(n=3.5)) == {"n"}


def test_parameters_are_immutable() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        parse(Some, {}).n = 4


def test_the_given_mapping_is_left_alone() -> None:
    given_values = {"judge": "zip-fit"}
    parse(Some, given_values)
    assert given_values == {"judge": "zip-fit"}


def test_a_method_is_named_or_described() -> None:
    short, long = parse(Some, {"judge": "zip-fit"}), parse(Some, {"judge": {"name": "zip-fit", "params": {}}})
    assert short == long
    assert canonical(short) == canonical(long)
    assert set(refused(judge="")) == {"judge.name"}
    assert set(refused(judge={"name": "x", "level": 3})) == {"judge.level"}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "k": st.floats(0, 1, exclude_min=True),
            "n": st.integers(2, 2**62),
            "mode": st.sampled_from("ab"),
            "names": st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=3),
            "inner": st.fixed_dictionaries({"depth": st.integers(0, 9)}),
        },
    )
)
def test_canonical_text_is_the_meaning(values: dict[str, Any]) -> None:
    params = parse(Some, values)
    assert parse(Some, json.loads(canonical(params))) == params
    backwards = parse(Some, dict(reversed(values.items())))
    assert canonical(backwards) == canonical(params)


def test_schema_is_json_and_tells_bounds() -> None:
    described = json.loads(json.dumps(schema(Some)))
    assert described["properties"]["k"] == {
        "default": 0.2, "description": "A share.", "exclusiveMinimum": 0, "maximum": 1, "title": "K", "type": "number",
    }  # fmt: skip
    assert described["additionalProperties"] is False
