"""The decoder `kv-predict`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import pydantic
from pydantic import Field

from pickaxe import Artifact, ArtifactWriter, Call, Chunk, Example, InputField, Item, Method, Progress, Prompt, Sampling
from pickaxe.errors import ArtifactMismatch, Unmet
from pickaxe.extras import require
from pickaxe.hooks import hookimpl
from pickaxe.lm import LMParams, Request, read_prompts
from pickaxe_plugins.decoding._streams import streamed
from pickaxe_plugins.decoding.kv_predict._fitting import GRAPH, MAP, Fitting
from pickaxe_plugins.decoding.kv_predict._loss import Loss
from pickaxe_plugins.decoding.kv_predict._reader import Reader
from pickaxe_plugins.train.settings import Recipe

if TYPE_CHECKING:
    from pickaxe.lm import KV, LM


class Params(LMParams):
    """Parameters of `kv-predict`; `model` is the base."""

    prompt_min_tokens: int = Field(16, ge=1, description="Prompts of fewer tokens are read by the base alone.")
    refresh: int = Field(1, ge=1, description="Last tokens of the prompt that the base reads itself; the paper's is 1.")
    max_error: float | None = Field(
        None,
        gt=0,
        description="Most error on the validation examples, mean over layers of keys or of values, at which "
        "predictions are used; above it the base reads the prompts itself.",
    )
    batch: int = Field(1, ge=1, le=256, description="Prompts of a call that the auxiliary model reads together.")
    keep: float = Field(0.5, gt=0, le=1, description="Fit: share of the base's layers that the auxiliary model keeps.")
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="Fit: which layers it keeps; else by `keep`."
    )
    prefill_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Fit: keep as many layers as prediction may have at 256 tokens for this share of the base's "
        "operations until the first token.",
    )
    aux: str | None = Field(
        None, min_length=1, description="Fit: another model with the same tokenizer to start from; null: base layers."
    )
    layer_map: tuple[int, ...] | None = Field(
        None, description="Fit: for each layer of the base the auxiliary layer that it is predicted from."
    )
    start: Literal["regression", "random"] = Field(
        "regression", description="Fit: the predictor before training: least squares on the examples, or random."
    )
    start_tokens: int = Field(8192, ge=1, description="Fit: most tokens of the least squares.")
    length: int = Field(256, ge=2, description="Fit: most tokens of a training sequence; the paper's is 2048.")
    steps: int | None = Field(None, ge=0, description="Fit: training steps; null: as the recipe's epochs say; 0: none.")
    recipe: Recipe = Field(
        Recipe(epochs=1, batch=4, rate=3e-4, warmup=20, decay=0.1, checkpoint=50), description="Fit: how it is trained."
    )
    loss: Loss = Field(Loss(), description="Fit: shares of the terms of the loss.")

    @pydantic.model_validator(mode="after")
    def _one_auxiliary(self) -> Params:
        given = [name for name in ("layers", "prefill_share", "aux") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} each say what the auxiliary model is: give one of them")
        if self.layers is not None and list(self.layers) != sorted(set(self.layers)):
            raise ValueError("layers must rise")
        return self


class KVPredict(Method[Params]):
    """Read the prompt with a small model and predict the large model's cache from it, for an early first token.

    `fit` makes the small model out of the base's own layers, or of another model with the same tokenizer, and a linear
    predictor of keys and values; the base reads only the last token of the prompt, and decodes on its own after it.
    """

    title = "KV Prediction for Improved Time to First Token"
    paper = "arXiv:2410.08391"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The prompt, where it has no messages.", False),)
    fit_reads = (
        InputField("text", "text", "A text of the kind that prompts are.", False),
        InputField("ids", "tensor", "Its token ids, in place of the text.", False),
    )
    fitted = "required"
    stages = ("start", "train", "measure")
    constraints = frozenset({"allowed"})
    cost = (
        "The auxiliary model's reading of the prompt, two small matrix products per layer, and one token of the base."
    )
    reproduced = (
        "Loss terms and predictor of the authors' code.  SmolLM2-135M with half of its layers: first token in 0.42 to "
        "0.56 of the processor time; 16 training steps are far too few for its accuracy (4.71 nat against 2.84).  A "
        "small base: 0.625 nat against its own 0.622."
    )

    @classmethod
    def example(cls) -> Example:
        """Three texts and two prompts for the small model that is shipped."""
        facts = ("The Moon turns around the Earth.", "Water boils at 100 degrees.", "Green tea likes 80 degrees.")
        return Example(
            params={
                "model": "draft",
                "precision": "fp32",
                "max_tokens": 6,
                "temperature": 0.0,
                "prompt_min_tokens": 3,
                "keep": 0.34,
                "steps": 2,
                "recipe": {"batch": 1, "warmup": 1, "checkpoint": 1},
            },
            examples=tuple(Item(f"fact {row}", text) for row, text in enumerate(facts)),
            prompts=(Prompt("Water boils at 100"), Prompt("The Moon turns around the", sampling=Sampling(n=2))),
        )

    # ------------------------------------------------------------ fitting

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        init_from: Artifact | None,
        out: ArtifactWriter,
        call: Call,
    ) -> Iterator[Progress]:
        require("jax", extra="train")
        yield from Fitting(self.params, self.host, out, call).run(examples, validation, init_from)

    # ------------------------------------------------------------ decoding

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        params = self.params
        base = self.host.lm(params.model, params.precision)
        reader = self._reader(base)
        asked = read_prompts(prompts, base, params, call.seed, "kv-predict")
        for start in range(0, len(asked), params.batch):
            group = asked[start : start + params.batch]
            begun = time.monotonic()
            pasts = self._pasts(group, reader, call)
            usage = [{"predicted_tokens": 0 if past is None else past.width} for past in pasts]
            yield from streamed(base, group, call, pasts=pasts, usage=usage, begun=begun)

    def _reader(self, base: LM) -> Reader | None:
        """None where predictions are not good enough."""
        assert self.artifact is not None
        record = self.artifact.read_json(MAP)
        if record["base"] != base.digest:
            raise ArtifactMismatch(
                f"the artifact was fitted to another model than {base.name!r}: decode with that one, or fit again",
                metadata={"model": base.name, "found": base.digest, "wanted": record["base"]},
            )
        if self.params.max_error is not None:
            measured = record["validation"]
            if measured is None:
                raise Unmet("max_error needs an error that was measured: fit with validation examples, or leave it out")
            if max(measured["k_loss/average"], measured["v_loss/average"]) > self.params.max_error:
                return None
        aux, graph = self.host.lm_at(self.artifact.path, self.params.precision), self.artifact.file(GRAPH)
        self.host.session(graph)  # so that it stays loaded from one call to the next
        return Reader.open(base, aux, record["map"], graph)

    def _pasts(self, group: Sequence[Request], reader: Reader | None, call: Call) -> list[KV | None]:
        """Predicted caches, for those prompts that are long enough."""
        params = self.params
        least = max(params.prompt_min_tokens, params.refresh + 1)
        chosen = [row for row, request in enumerate(group) if reader is not None and len(request.ids) >= least]
        pasts: list[KV | None] = [None] * len(group)
        if chosen:
            assert reader is not None
            heads = [group[row].ids[: -params.refresh] for row in chosen]
            for row, past in zip(chosen, reader.read(heads, call), strict=True):
                pasts[row] = past
        return pasts
