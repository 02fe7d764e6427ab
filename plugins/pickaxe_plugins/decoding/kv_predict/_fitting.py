"""From texts to an artifact, and from an artifact to a reader.

An artifact holds the auxiliary model (`model.safetensors`, `config.json` and the tokenizer, which other readers of
Llama models open too), the predictor (`predictor.onnx`, and `predictor.safetensors` to go on from) and `map.json`: the
layer map, the base's digest and what was measured.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe import Artifact, ArtifactWriter, Call, Item, Progress
from pickaxe.errors import ArtifactCorrupt, ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.extras import require
from pickaxe.lm import same_tokenizer
from pickaxe.lm.weights import Architecture, Checkpoint, open_checkpoint
from pickaxe_plugins.decoding.kv_predict._graph import write_graph
from pickaxe_plugins.decoding.kv_predict._layers import kept_layers, nearest_map, prefill_share, spread_map
from pickaxe_plugins.decoding.kv_predict._predictor import shapes
from pickaxe_plugins.decoding.kv_predict._training import Arrays, Pairing, Trainer, pruned, windows
from pickaxe_plugins.train import llama

if TYPE_CHECKING:
    from pickaxe.host import Host
    from pickaxe.tokenizers import Tokenizer
    from pickaxe_plugins.decoding.kv_predict._method import Params

MAP, GRAPH, PREDICTOR, START = "map.json", "predictor.onnx", "predictor.safetensors", "start.safetensors"
TYPICAL = 256
"""Tokens of the prompt at which the shares of operations are given."""


@dataclass(frozen=True)
class Fitting:
    """One fit."""

    params: Params
    host: Host
    out: ArtifactWriter
    call: Call

    def run(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, init_from: Artifact | None
    ) -> Iterator[Progress]:
        params = self.params
        checkpoint = open_checkpoint(self.host.model_path(params.model))
        base = llama.load(checkpoint.architecture, checkpoint.tensors)
        tokenizer = self.host.lm(params.model, params.precision).tokenizer
        learned, held = self._windows(examples, tokenizer), self._windows(validation or (), tokenizer)
        if not learned:
            raise InvalidItems("examples", "hold no text of two tokens: there is nothing to learn from")
        pairing, aux = self._pairing(checkpoint, base, tokenizer, init_from)
        trainer = Trainer.of(pairing, base, params.loss, params.recipe, self.out, self.call)
        if not self.out.done("train"):
            tree = yield from self._trained(trainer, aux, learned, init_from)
            self._write(pairing, tree, base, tokenizer)
        tree = self._read(self.out.path, pairing)
        measured = None
        if held:
            measured = yield from trainer.measure(tree, held)
        self._describe(checkpoint, pairing, measured, len(learned))

    def _windows(self, items: Iterable[Item], tokenizer: Tokenizer) -> list[np.ndarray]:
        return windows((_ids(item, tokenizer) for item in items), self.params.length)

    # ------------------------------------------------------------ the auxiliary model

    def _pairing(
        self, checkpoint: Checkpoint, base: Arrays, tokenizer: Tokenizer, init_from: Artifact | None
    ) -> tuple[Pairing, Arrays]:
        """Which models and layers go together, and the auxiliary model to start from."""
        params, layers = self.params, checkpoint.architecture.layers
        if init_from is not None:
            record = init_from.read_json(MAP)
            _check_base(record, checkpoint.digest)
            other, mapped = open_checkpoint(init_from.path), tuple(record["map"])
        elif params.aux is not None:
            same_tokenizer(tokenizer, self.host.lm(params.aux).tokenizer)
            other = open_checkpoint(self.host.model_path(params.aux))
            if other.architecture.layers > layers:
                raise InvalidParams(
                    "aux", f"has {other.architecture.layers} layers, more than the {layers} of the base"
                )
            mapped = spread_map(layers, other.architecture.layers)
        else:
            kept = self._kept(checkpoint.architecture)
            architecture, aux = pruned(checkpoint.architecture, base, kept)
            return Pairing(checkpoint.architecture, architecture, self._map(nearest_map(layers, kept), len(kept))), aux
        pairing = Pairing(checkpoint.architecture, other.architecture, self._map(mapped, other.architecture.layers))
        return pairing, llama.load(other.architecture, other.tensors)

    def _kept(self, base: Architecture) -> tuple[int, ...]:
        params = self.params
        if params.layers is not None:
            if params.layers[0] < 0 or params.layers[-1] >= base.layers:
                raise InvalidParams("layers", f"are {list(params.layers)}; the base has layers 0 to {base.layers - 1}")
            return params.layers
        if params.prefill_share is None:
            return kept_layers(base.layers, max(1, round(params.keep * base.layers)))
        for count in range(base.layers, 0, -1):
            kept = kept_layers(base.layers, count)
            if prefill_share(base, pruned(base, {}, kept)[0], TYPICAL) <= params.prefill_share:
                return kept
        raise InvalidParams("prefill_share", f"is {params.prefill_share}: even one layer takes more than that")

    def _map(self, usual: tuple[int, ...], auxiliary: int) -> tuple[int, ...]:
        given = self.params.layer_map
        if given is None:
            return usual
        if len(given) != len(usual) or min(given) < 0 or max(given) >= auxiliary:
            raise InvalidParams(
                "layer_map",
                f"is {list(given)}; it must name, for each of the {len(usual)} layers of the base, one of the layers "
                f"0 to {auxiliary - 1} of the auxiliary model",
            )
        return given

    # ------------------------------------------------------------ stages

    def _trained(
        self, trainer: Trainer, aux: Arrays, learned: Sequence[np.ndarray], init_from: Artifact | None
    ) -> Generator[Progress, None, dict[str, Arrays]]:
        params, safetensors = self.params, require("safetensors.numpy", extra="cpu")
        kept = self.out.file(START)
        if not self.out.done("start"):
            if init_from is not None:
                predictor = _arrays(init_from.file(PREDICTOR), trainer.pairing)
            else:
                predictor = yield from trainer.start(aux, learned, params.start, params.start_tokens)
            safetensors.save_file({name: np.ascontiguousarray(array) for name, array in predictor.items()}, str(kept))
            self.out.finish("start")
        tree = {"aux": aux, "predictor": _arrays(kept, trainer.pairing)}
        steps = params.recipe.steps(len(learned)) if params.steps is None else params.steps
        if steps:
            tree = yield from trainer.train(tree, learned, steps)
        self.out.notes["steps"] = steps
        return tree

    def _write(self, pairing: Pairing, tree: Mapping[str, Arrays], base: Arrays, tokenizer: Tokenizer) -> None:

        llama.save(tree["aux"], pairing.aux, self.out.path)
        tokenizer.save(self.out.path)
        stored = {name: np.ascontiguousarray(array) for name, array in tree["predictor"].items()}
        require("safetensors.numpy", extra="cpu").save_file(stored, str(self.out.file(PREDICTOR)))
        if pairing.base.qk_norm:
            own = [base[f"layers.{layer}.k_norm"] for layer in range(pairing.base.layers)]
            stored["key_norm"] = np.stack(own)
        write_graph(stored, pairing.layer_map, pairing.base, pairing.aux, self.out.file(GRAPH))
        self.out.file(START).unlink()
        self.out.finish("train")

    def _read(self, folder: Path, pairing: Pairing) -> dict[str, Arrays]:

        made = open_checkpoint(folder)
        predictor = _arrays(folder / PREDICTOR, pairing)
        return {"aux": llama.load(made.architecture, made.tensors), "predictor": predictor}

    def _describe(
        self, checkpoint: Checkpoint, pairing: Pairing, measured: Mapping[str, float] | None, sequences: int
    ) -> None:
        record = {"base": checkpoint.digest, "map": list(pairing.layer_map), "validation": measured}
        self.out.write_json(MAP, record)
        notes = self.out.notes
        notes["validation"] = measured
        notes["sequences"] = sequences
        notes["prefill_share"] = prefill_share(pairing.base, pairing.aux, TYPICAL)
        notes["versions"] = {name: require(name, extra="train").__version__ for name in ("jax", "optax")}


def _ids(item: Item, tokenizer: Tokenizer) -> list[int]:
    given = item.get("ids")
    if given is not None:
        ids = np.asarray(given)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or not ((ids >= 0) & (ids < tokenizer.vocab_size)).all():
            raise InvalidItems(
                f"example {item.id!r}",
                f"has ids that are not whole numbers in one row from 0 to {tokenizer.vocab_size - 1}",
            )
        return ids.tolist()
    if item.text is None:
        raise InvalidItems(f"example {item.id!r}", "has neither text nor ids")
    return tokenizer.encode(item.text, add_special=True)


def _check_base(record: Mapping[str, Any], digest: str) -> None:
    if record["base"] != digest:
        raise ArtifactMismatch(
            "the artifact to start from was fitted to another base model: name that one as model",
            metadata={"found": digest, "wanted": record["base"]},
        )


def _arrays(path: Path, pairing: Pairing) -> Arrays:
    arrays: Arrays = require("safetensors.numpy", extra="cpu").load_file(str(path))
    wanted = shapes(pairing.base, pairing.aux)
    found = {name: array.shape for name, array in arrays.items()}
    if found != wanted:
        raise ArtifactCorrupt(
            f"{path} holds arrays of shapes {found}, the two models need {wanted}", metadata={"path": path}
        )
    return arrays
