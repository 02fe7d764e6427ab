"""The proxy of `s2l`: a small language model trained on everything, and what each example costs it on the way."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.train import llama, loop, trained, vocabulary
from pickaxe_plugins.train.descent import Shuffle, adamw, go_on
from pickaxe_plugins.train.loop import Text
from pickaxe_plugins.train.settings import Net, Recipe
from pickaxe_plugins.train.trained import Trained

BATCH = 32
"""Examples whose losses are computed at a time."""


def texts(items: Sequence[Item], net: Net) -> tuple[Architecture, list[Text | None]]:
    """What the proxy learns: prompt and answer as tokens, the mean over the answer's tokens as loss.

    None where no token of an answer is left, because it is empty or the prompt fills the context.
    """
    pairs = [(str(item.get("prompt") or ""), str(item.get("answer") or "")) for item in items]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = vocabulary.learn((part for pair in pairs for part in pair), net.vocab, Path(folder))
    end = tokenizer.eos_ids[0]
    found: list[Text | None] = []
    for prompt, answer in pairs:
        asked = [end, *tokenizer.encode(prompt)]
        told = [*tokenizer.encode(answer), end] if answer else []
        ids = np.array([*asked, *told][: net.context], np.int32)
        found.append(masked(ids, len(asked)) if len(ids) > len(asked) else None)
    return net.architecture(tokenizer.vocab_size), found


def masked(ids: np.ndarray, prompt: int) -> Text:
    """The text whose loss is the mean over the tokens after the first `prompt` ones."""
    weights = np.zeros(len(ids), np.float32)
    weights[prompt:] = 1 / (len(ids) - prompt)
    return Text(ids, weights)


def losses(
    architecture: Architecture, weights: Mapping[str, Any], given: Sequence[Text], call: Call, size: int = BATCH
) -> np.ndarray:
    """(n,) each text's loss, in nats; texts of like length are read together."""
    evaluate, found = _evaluation(architecture), np.empty(len(given), np.float32)
    order = np.argsort([len(text.ids) for text in given], kind="stable")
    for start in range(0, len(given), size):
        call.check()
        rows = order[start : start + size]
        batch = loop.batch([given[row] for row in rows], size)
        found[rows] = np.asarray(evaluate(dict(weights), batch))[: len(rows)] * len(rows)
    return found


@functools.lru_cache(maxsize=4)
def _evaluation(architecture: Architecture) -> Callable[..., Any]:
    """(weights, batch) -> each row's share of the batch's loss."""
    jax = require("jax", extra="train")
    jnp = jax.numpy

    def rows(weights: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        hidden = llama.hidden_states(weights, architecture, given["ids"])
        chosen = jnp.take_along_axis(hidden, given["places"][..., None], 1)
        logprobs = jax.nn.log_softmax(llama.logits(weights, chosen))
        told = jnp.take_along_axis(logprobs, given["targets"][..., None], -1)[..., 0]
        return -(given["shares"] * told).sum(1)

    compiled: Callable[..., Any] = jax.jit(rows)
    return compiled


@functools.lru_cache(maxsize=4)
def _loss(architecture: Architecture) -> Callable[..., Any]:
    def loss(weights: Mapping[str, Any], given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        return _evaluation(architecture)(weights, given).sum(), {}

    return loss


def trajectories(
    items: Sequence[Item], net: Net, recipe: Recipe, checkpoints: int, out: ArtifactWriter, call: Call
) -> Generator[Progress, None, np.ndarray]:
    """(n, T) losses of all examples at evenly spaced points of a training on all of them; NaN without an answer.

    A fit that was interrupted goes on from the last of these points.
    """
    architecture, given = texts(items, net)
    learned = [text for text in given if text is not None]
    if not learned:
        raise InvalidItems("examples", "have no answer within the proxy's context: nothing can be learned")
    steps = recipe.steps(len(learned))
    points = sorted({max(1, round(steps * (at + 1) / checkpoints)) for at in range(checkpoints)})
    shuffle, optimiser = Shuffle(len(learned), recipe.batch, call.seed), adamw(recipe, steps)
    state, done = _resumed(Trained(llama.initial(architecture, call.seed)), optimiser, out)
    hashes = list(out.stage_notes("points")["hashes"]) if done else []
    for at, point in enumerate(points[done:], done):
        following = go_on(
            _loss(architecture),
            optimiser,
            state,
            lambda step: loop.batch([learned[row] for row in shuffle.rows(step)], recipe.batch),
            point,
            out,
            seed=call.seed,
            checkpoint=recipe.checkpoint,
        )
        state = yield from _told(following, steps, shuffle.per_epoch, at)
        out.write_array(f"losses-{at}.npy", losses(architecture, state.tree, learned, call))
        hashes.append(_hash(state.tree))
        trained.write(out.file(f"proxy-{at}.safetensors"), state)
        out.finish("points", done=at + 1, hashes=hashes)
        if at:
            out.file(f"proxy-{at - 1}.safetensors").unlink(missing_ok=True)
    out.notes["proxy"] = {"parameters": sum(array.size for array in state.tree.values()), "points": points}
    out.notes["proxy"] |= {"hashes": hashes, "steps": steps, "learned": len(learned)}
    found = np.full((len(items), len(points)), np.nan, np.float32)
    rows = [row for row, text in enumerate(given) if text is not None]
    for at in range(len(points)):
        found[rows, at] = np.load(out.file(f"losses-{at}.npy"))
    return found


def cleared(out: ArtifactWriter) -> None:
    """Remove what only a resumed fit would need."""
    for pattern in ("losses-*.npy", "proxy-*.safetensors"):
        for path in out.path.glob(pattern):
            path.unlink()


def _told(
    following: Generator[Progress, None, Trained], steps: int, per_epoch: int, points: int
) -> Generator[Progress, None, Trained]:
    """The same progress over the whole training, with epochs and points that are done."""
    while True:
        try:
            step = next(following)
        except StopIteration as end:
            state: Trained = end.value
            return state
        metrics = {**step.metrics, "epoch": (step.step - 1) // per_epoch + 1.0, "checkpoints": float(points)}
        yield Progress("train", step.step, steps, metrics)


def _resumed(fresh: Trained, optimiser: Any, out: ArtifactWriter) -> tuple[Trained, int]:
    """The state after the last point whose losses are there, and how many points that is."""
    done = int(out.stage_notes("points")["done"]) if out.done("points") else 0
    path = out.file(f"proxy-{done - 1}.safetensors")
    if not done or not path.is_file():
        return fresh, 0
    jax = require("jax", extra="train")
    like = jax.tree_util.tree_map(jax.numpy.asarray, fresh.tree)
    return trained.read(path, Trained(like, optimiser.init(like))), done


def _hash(weights: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
