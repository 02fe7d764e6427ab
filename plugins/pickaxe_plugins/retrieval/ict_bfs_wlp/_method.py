"""Two towers pre-trained on what pages say of themselves: ICT, BFS and WLP (arXiv:2002.03932)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Self

import pydantic
from pydantic import Field

import pickaxe
from pickaxe import Artifact, Call, Example, InputField, Item, Progress
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import ArtifactMismatch
from pickaxe.hooks import hookimpl
from pickaxe_plugins.retrieval import _towers
from pickaxe_plugins.retrieval._towers import Side, Tower
from pickaxe_plugins.retrieval._two_towers import TwoTowers


class Tune(pickaxe.Params):
    """How the towers are fine-tuned on questions."""

    steps: int = Field(default=500, ge=1, description="Steps.")
    batch: int = Field(default=128, ge=1, description="Questions of one step.")
    lr: float = Field(default=5e-5, gt=0, description="Highest learning rate.")


class Params(pickaxe.Params):
    tasks: tuple[Literal["ict", "bfs", "wlp", "mlm"], ...] = Field(
        ("ict", "bfs", "wlp"),
        min_length=1,
        description="fit: tasks; those that the data do not allow drop out.",
    )
    mix: dict[Literal["ict", "bfs", "wlp"], float] = Field({}, description="fit: weights of the tasks; 1 if not named.")
    keep_prob: float = Field(0.0, ge=0, le=1, description="fit: how often ICT leaves the query in its passage.")
    min_tokens: int = Field(1, ge=1, description="fit: words of the shortest sentence that may be a query.")
    base: str | None = Field(
        None, min_length=1, description="fit: the encoder that both towers begin with: alias, name or path; null: new."
    )
    layers: int = Field(2, ge=1, description="fit: layers of a new network.")
    width: int = Field(128, ge=8, description="fit: size of its hidden states.")
    heads: int = Field(2, ge=1, description="fit: its attention heads.")
    vocab: int = Field(4000, ge=50, description="fit: most word pieces of its vocabulary, learned from the texts.")
    dim: int = Field(512, ge=1, description="fit: length of the vectors.")
    query_len: int = Field(64, ge=3, le=512, description="fit: tokens of a query.")
    doc_len: int = Field(288, ge=3, le=512, description="fit: tokens of a document.")
    share_towers: bool = Field(True, description="fit: both towers have the same weights.")
    batch: int = Field(128, ge=2, description="fit: pairs of one step; the others' documents are the negatives.")
    chunk: int | None = Field(None, ge=1, description="fit: texts whose states are held at once; null: the batch.")
    lr: float = Field(1e-4, gt=0, description="fit: highest learning rate of pre-training.")
    steps: int = Field(1000, ge=1, description="fit: steps of pre-training.")
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="fit: share of the steps until the highest rate.")
    dropout: float = Field(0.1, ge=0, lt=1, description="fit: share of activations dropped.")
    clip: float = Field(1.0, gt=0, description="fit: largest norm of a gradient.")
    mask_duplicates: bool = Field(True, description="fit: another pair with the same document is no negative.")
    tune: Tune = Field(Tune(), description="fit: how it is fine-tuned, where there are questions.")
    checkpoint: int = Field(200, ge=1, description="fit: steps between the points at which an interrupted fit resumes.")

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        if self.chunk is not None and self.batch % self.chunk:
            raise ValueError(f"batch {self.batch} must be a multiple of chunk {self.chunk}")
        if any(weight < 0 for weight in self.mix.values()):
            raise ValueError("mix must not be negative")
        return self


class IctBfsWlp(TwoTowers[Params]):
    """Two towers that learn to retrieve from pages alone: a sentence finds the passage that it belongs to.

    ICT takes the passage that the sentence was cut from, BFS another one of the same page, WLP one of a page that
    links there.  Questions with their passages, where there are some, fine-tune the towers.
    """

    title = "Pre-training Tasks for Embedding-based Large-scale Retrieval"
    paper = "arXiv:2002.03932"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The document, or the question."),
        InputField("title", "text", "The document's title, read before its text.", False),
    )
    fit_reads = (
        InputField("text", "text", "A page, or a question.", False),
        InputField("positive", "text", "The passage that answers it: this makes an example a question.", False),
        InputField("title", "text", "Title of the page, or of the passage.", False),
        InputField("sections", "struct", 'Of a page, in place of its text: {"sections": [[paragraph, …], …]}.', False),
        InputField("links", "texts", "Ids of the pages that a page links to.", False),
    )
    fitted = "required"
    stages = ("pretrain", "finetune")
    grows = True
    cost = "One encoder call per document, once, and per query; fit: minutes for a network of two layers on a CPU."
    reproduced = (
        "Pairs, loss and recall of the definitions; on XQuAD-en a tiny encoder gains 0.11 recall@10 from ICT and BFS "
        "in the mean of 3 seeds (one gains nothing), and nothing from MLM."
    )

    @classmethod
    def example(cls) -> Example:
        pages = (
            Item("rain", "The rain in Spain stays in the plain. It rains little.\n\nHills stay dry. So do I.",
                 {"title": "Rain", "links": ["tea"]}),
            Item("tea", "Green tea is brewed at 80 degrees. Black tea wants more.\n\nMilk comes last. Or first.",
                 {"title": "Tea", "links": ["rain"]}),
        )  # fmt: skip
        question = Item("q", "How is black tea brewed?", {"positive": "Black tea wants more.", "title": "Tea"})
        other = Item("r", "Where is it dry?", {"positive": "Hills stay dry.", "title": "Rain"})
        return Example(
            params={
                "layers": 1, "width": 16, "vocab": 100, "dim": 8, "query_len": 16, "doc_len": 16, "batch": 4,
                "steps": 3, "tune": {"steps": 2, "batch": 2},
            },
            documents=pages,
            examples=(*pages, question, other),
            queries=(Item("q1", "How hot should water for green tea be?"), Item("q2", "Is it dry?")),
        )  # fmt: skip

    def tower(self, side: Side, source: Artifact | None) -> Tower:
        if source is None:
            raise ArtifactMismatch("ict-bfs-wlp needs an artifact: call fit(pages) first, or name one made earlier")
        return _towers.opened(source, side, self.host)

    def text(self, item: Item, side: Side) -> str:
        from pickaxe_plugins.retrieval.ict_bfs_wlp._fit import titled

        return titled(item.get("title"), item.text or "") if side == "document" else item.text or ""

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        unlabelled: Iterable[Item] | None,
        out: ArtifactWriter,
        init_from: Artifact | None,
        call: Call,
    ) -> Iterator[Progress]:
        from pickaxe_plugins.retrieval.ict_bfs_wlp._fit import Fit

        yield from Fit(self.params, self.host, out, call).run(examples, unlabelled, init_from)
