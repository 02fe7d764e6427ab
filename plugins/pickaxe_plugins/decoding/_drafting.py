"""Making a draft: samples of the target, a small network that is trained on them, and how well it drafts."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Artifact, ArtifactWriter, Call, Item, Message, Progress, Sampling
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.lm import same_tokenizer
from pickaxe.lm.weights import Architecture, open_checkpoint
from pickaxe.randomness import generator
from pickaxe_plugins.train import distil, llama

if TYPE_CHECKING:
    from pickaxe.host import Host
    from pickaxe.lm import LM
    from pickaxe_plugins.decoding.draft import Params

BLOCK = 32
"""Examples that are sampled together, and kept together for a resumed fit."""


@dataclass(frozen=True)
class Drafting:
    """One fit of a draft for `target`."""

    params: Params
    host: Host
    target: LM
    out: ArtifactWriter
    call: Call

    def run(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, init_from: Artifact | None
    ) -> Iterator[Progress]:
        learned = yield from self._sequences(examples, "samples")
        if not learned:
            raise InvalidItems("examples", "are none: fit needs at least one text or prompt")
        held = yield from self._sequences(validation or (), "held")
        if not self.out.done("train"):
            architecture, weights = self._start(init_from)
            weights = yield from self._trained(architecture, weights, learned)
            llama.save(weights, architecture, self.out.path)
            self.target.tokenizer.save(self.out.path)
            self.out.finish("train")
        yield from self._describe(learned, held)
        for path in [*self.out.path.glob("samples-*.json"), *self.out.path.glob("held-*.json")]:
            path.unlink()

    # ------------------------------------------------------------ what is learned

    def _sequences(self, items: Iterable[Item], name: str) -> Generator[Progress, None, list[np.ndarray]]:
        """Prompts with the target's continuations, or the texts alone, as token ids; kept block by block."""
        found: list[np.ndarray] = []
        remaining, number = iter(items), 0
        while block := list(islice(remaining, BLOCK)):
            known = dict(self.out.stage_notes("sample")) if self.out.done("sample") else {}
            file = self.out.file(f"{name}-{number}.json")
            if number < known.get(name, 0):
                rows = json.loads(file.read_text())
            else:
                rows = self._sampled(block, BLOCK * number, name)
                self.out.write_json(file.name, rows)
                known |= {name: number + 1, "examples": known.get("examples", 0) + len(block)}
                self.out.finish("sample", **known)
                yield Progress("sample", known["examples"])
            found += [np.array(ids, np.int32) for ids in rows]
            number += 1
        return found

    def _sampled(self, block: Sequence[Item], first: int, name: str) -> list[list[int]]:
        from pickaxe.lm import Generation

        params, length = self.params, self.params.length
        prompts = [self._prompt(item) for item in block]
        if not params.samples:
            return [ids[start : start + length] for ids in prompts for start in range(0, len(ids), length)]
        requests = []
        for place, ids in enumerate(prompts):
            seed = int(generator(self.call.seed, "draft", name, first + place).integers(2**63))
            begun = ids[-(length // 2) :]
            sampling = Sampling(max_tokens=length - len(begun), temperature=1.0, seed=seed, n=params.samples)
            requests.append(Generation(begun, sampling))
        rows = {(place, n): list(each.prompt_ids) for place, each in enumerate(requests) for n in range(params.samples)}
        with closing(self.target.generate_all(requests, self.call)) as steps:
            for place, step in steps:
                rows[place, step.sample].append(step.token_id)
        return [rows[key] for key in sorted(rows)]

    def _prompt(self, item: Item) -> list[int]:
        tokenizer, text = self.target.tokenizer, item.text or ""
        if self.params.chat:
            return tokenizer.encode_chat([Message("user", text)])
        start = tokenizer.eos_ids[0] if tokenizer.bos_id is None else tokenizer.bos_id
        return tokenizer.encode(text, add_special=True) or [start]

    def _teacher(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The target's logits; rows without a sequence are read as one token that does not count."""
        logits, _ = self.target.forward(ids, lengths=np.maximum(lengths, 1), logits_at="all", call=self.call)
        assert logits is not None
        return logits

    # ------------------------------------------------------------ the draft

    def _start(self, init_from: Artifact | None) -> tuple[Architecture, dict[str, np.ndarray]]:
        """The network before training: an earlier draft, another model, or a new one of the parameters' shape."""
        params = self.params
        if init_from is not None:
            found = open_checkpoint(init_from.path)
            same_tokenizer(self.target.tokenizer, self.host.lm_at(init_from.path).tokenizer)
        elif params.base is not None:
            same_tokenizer(self.target.tokenizer, self.host.lm(params.base).tokenizer)
            found = open_checkpoint(self.host.model_path(params.base))
        else:
            return self._new()
        return found.architecture, llama.load(found.architecture, found.tensors)

    def _new(self) -> tuple[Architecture, dict[str, np.ndarray]]:
        target = open_checkpoint(self.host.model_path(self.params.model))
        of = target.architecture
        architecture = replace(self.params.shape.sized(of.vocab, of.context), rope_base=of.rope_base, eps=of.eps)
        weights = llama.initial(architecture, self.call.seed)
        words = target.tensors.tensor("embedding" if of.tied else "output")
        weights["embedding"] = distil.reduced(words, architecture.width, self.call.seed)
        return architecture, weights

    def _trained(
        self, architecture: Architecture, weights: dict[str, np.ndarray], learned: Sequence[np.ndarray]
    ) -> Generator[Progress, None, dict[str, np.ndarray]]:
        params, seed = self.params, self.call.seed
        steps = params.recipe.steps(len(learned)) if params.steps is None else params.steps
        self.out.notes["steps"] = steps
        if not steps:
            return weights
        made = yield from distil.distil(
            architecture,
            weights,
            learned,
            self._teacher,
            params.recipe,
            self.out,
            steps=steps,
            sharpen=params.sharpen,
            seed=seed,
        )
        return made

    def _describe(self, learned: Sequence[np.ndarray], held: Sequence[np.ndarray]) -> Iterator[Progress]:
        made = open_checkpoint(self.out.path)
        weights = llama.load(made.architecture, made.tensors)
        notes = self.out.notes
        notes["target"] = self.target.digest
        notes["sequences"], notes["tokens"] = len(learned), sum(map(len, learned))
        notes["parameters"] = sum(array.size for array in weights.values())
        notes["versions"] = {name: require(name, extra="train").__version__ for name in ("jax", "optax")}
        if held:
            size = self.params.recipe.batch
            notes["validation"] = yield from distil.likeness(made.architecture, weights, held, self._teacher, size)
