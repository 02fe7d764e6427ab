"""A method that answers whatever a test wants."""

from collections.abc import Callable, Iterator
from typing import Any

import pickaxe
from pickaxe import Call, Column, InputField, Item, Items, Method, Progress, hookimpl

Answer = Callable[..., Any]


class Any_(Method[pickaxe.Params]):
    """Answers whatever a test wants."""

    scope = "item"
    columns = (Column("s", "Score."),)
    reads = (InputField("text", "text", "The text."), InputField("x", "float64", "A number.", required=False))
    answer: Answer = staticmethod(lambda **_: None)

    @hookimpl
    def score(self, items: Items, call: Call) -> Any:
        return self.answer(items=items, call=call)

    @hookimpl
    def index(self, documents: Any, out: Any, call: Call) -> Iterator[Progress]:
        out.write_json("ids.json", [document.id for document in documents])
        yield Progress("index", 1, 1)

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> Any:
        return self.answer(queries=queries, k=k)

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int) -> Any:
        return self.answer(query=query, candidates=candidates, top_n=top_n)

    @hookimpl
    def decode(self, prompts: Any, call: Call) -> Any:
        return self.answer(prompts=prompts, call=call)
