"""One fit of `ict-bfs-wlp`: pre-training on pages, then fine-tuning on questions."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import pickaxe
from pickaxe import Artifact, ArtifactWriter, Call, Item, Progress
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.retrieval import _towers
from pickaxe_plugins.retrieval.ict_bfs_wlp._page_pairs import BLOCK, Corpus, Pair, Task, mixture, page
from pickaxe_plugins.retrieval.ict_bfs_wlp._train import Towers, duplicates, fresh, masked, objective, staged
from pickaxe_plugins.train import bert, bert_files, optimisers, vocabulary
from pickaxe_plugins.train.descent import Shuffle, descend
from pickaxe_plugins.train.pairs import Framing, batch

if TYPE_CHECKING:
    from pickaxe.host import Host
    from pickaxe_plugins.retrieval.ict_bfs_wlp import Params


def titled(title: object, text: str) -> str:
    """What the document tower reads."""
    return f"{title}. {text}" if title else text


@dataclass(frozen=True)
class Fit:
    """One fit, and what it reads."""

    params: Params
    host: Host
    out: ArtifactWriter
    call: Call

    def run(
        self, examples: Iterable[Item], unlabelled: Iterable[Item] | None, init_from: Artifact | None
    ) -> Generator[Progress, None, None]:
        params, seed = self.params, self.call.seed
        items = [*examples, *(unlabelled or ())]
        questions = [item for item in items if item.get("positive") is not None]
        pages = [page(item, row) for row, item in enumerate(items) if item.get("positive") is None]
        if not items:
            raise InvalidItems("examples", "are none: fit wants pages, or questions with their passages")
        corpus = Corpus(pages, params.min_tokens, params.keep_prob)
        if pages and not corpus.passages:
            raise InvalidItems("examples", "hold pages without any text")
        mix = self._mix(corpus)
        config, tree, tokenizer = self._start(init_from, corpus, questions)
        mlm = "mlm" in params.tasks and bool(pages)
        if mlm and not config.mlm:
            config, tree = self._with_mlm(config, tree)
        towers = Towers(config, params.share_towers, params.dropout, params.chunk)
        frames = {"query": Framing(tokenizer, params.query_len), "document": Framing(tokenizer, params.doc_len)}
        if pages and (mix or mlm):
            draws = _Draws(corpus, mix, frames, params, seed, tokenizer if mlm else None)
            tree = yield from staged(
                self.out, "pretrain", tree, lambda: self._descend("pretrain", towers, draws, bool(mix), mlm, tree)
            )
        if questions:
            asked = _Questions(questions, frames, params, seed)
            whole = asked.size % (params.chunk or 1) == 0
            towers = towers if whole else replace(towers, chunk=None)
            start = tree
            tree = yield from staged(
                self.out, "finetune", start, lambda: self._descend("finetune", towers, asked, True, False, start)
            )
        self._write(config, tree, tokenizer)
        self.out.notes |= {
            "pages": len(pages), "passages": len(corpus.passages), "questions": len(questions), "seed": seed,
            "tasks": {str(task): weight for task, weight in mix.items()} | ({"mlm": 1.0} if mlm else {}),
            "dropped_tasks": [task for task in params.tasks if task not in mix and not (task == "mlm" and mlm)],
        }  # fmt: skip

    def _mix(self, corpus: Corpus) -> dict[Task, float]:
        tasks: list[Task] = [task for task in self.params.tasks if task != "mlm"]
        if not tasks or not corpus.passages:
            return {}  # masked words or questions alone
        try:
            return mixture(corpus, tasks, self.params.mix)
        except ValueError as error:
            raise InvalidItems("examples", str(error)) from error

    # ------------------------------------------------------------ networks

    def _start(
        self, init_from: Artifact | None, corpus: Corpus, questions: list[Item]
    ) -> tuple[bert.Config, dict[str, Any], Tokenizer]:
        params, seed = self.params, self.call.seed
        sides = ("both",) if params.share_towers else ("query", "document")
        if init_from is not None:
            networks, tokenizer = _towers.networks(init_from)
            known = networks["query"].config
            return known, {side: dict(networks["document" if side == "document" else "query"].weights)
                           for side in sides}, tokenizer  # fmt: skip
        if params.base is not None:
            path = self.host.model_path(params.base)
            config, weights = bert_files.load(path)
            tokenizer = Tokenizer.open(path)
        else:
            texts = [" ".join(passage) for passage in corpus.passages]
            texts += [text for item in questions for text in (item.text or "", str(item.get("positive")))]
            tokenizer = vocabulary.learn_words(texts, params.vocab, self.out.path)
            longest = max(params.query_len, params.doc_len)
            config = bert.Config(params.layers, params.width, params.heads, 4 * params.width, tokenizer.vocab_size,
                                 longest, pooling="cls")  # fmt: skip
            weights = bert.initial(config, seed)
        if max(params.query_len, params.doc_len) > config.positions:
            raise InvalidParams("doc_len", f"and query_len may be at most {config.positions} for {params.base!r}")
        return config, {side: {**weights, **fresh(config, params.dim, seed, side)} for side in sides}, tokenizer

    def _with_mlm(self, config: bert.Config, tree: Mapping[str, Any]) -> tuple[bert.Config, dict[str, Any]]:
        made = {side: bert.with_heads(config, weights, self.call.seed, mlm=True) for side, weights in tree.items()}
        return next(iter(made.values()))[0], {side: weights for side, (_, weights) in made.items()}

    def _write(self, config: bert.Config, tree: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        params = self.params
        config = replace(config, mlm=False)
        kept = {side: {name: array for name, array in weights.items() if not name.startswith("cls.")}
                for side, weights in tree.items()}  # fmt: skip
        lengths: dict[_towers.Side, int] = {"query": params.query_len, "document": params.doc_len}
        networks = {side: _towers.Network(config, kept["both" if params.share_towers else side], length)
                    for side, length in lengths.items()}  # fmt: skip
        _towers.write(self.out, networks, tokenizer)
        for path in self.out.path.glob("stage-*.safetensors"):
            path.unlink()

    def _descend(
        self, name: str, towers: Towers, draws: _Draws | _Questions, contrast: bool, mlm: bool, tree: Any
    ) -> Generator[Progress, None, Any]:
        params = self.params
        steps, lr = (params.steps, params.lr) if name == "pretrain" else (params.tune.steps, params.tune.lr)
        rate = optimisers.Linear(lr, steps, round(params.warmup_ratio * steps))
        return (yield from descend(
            objective(towers, contrast, mlm), optimisers.adamw(rate, decay=0.0, clip=params.clip), tree, draws.given,
            steps, self.out, seed=self.call.seed, stage=name, checkpoint=params.checkpoint,
        ))  # fmt: skip


class _Draws:
    """Pairs of the stream, a batch a step."""

    def __init__(
        self, corpus: Corpus, mix: Mapping[Task, float], frames: Mapping[str, Framing], params: Params, seed: int,
        masking: Tokenizer | None,
    ) -> None:  # fmt: skip
        self._corpus, self._mix, self._frames, self._params, self._seed = corpus, mix, frames, params, seed
        self._masking = masking
        self._block: tuple[int, list[Pair]] = (-1, [])

    def given(self, step: int) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if self._mix:
            first = step * self._params.batch
            pairs = [self._pair(number) for number in range(first, first + self._params.batch)]
            documents = [titled(pair.title, pair.passage) for pair in pairs]
            places = [pair.passage_at for pair in pairs]
            given |= _sides(self._frames, [pair.query for pair in pairs], documents, places, self._params)
        if self._masking is not None:
            given |= self._masked(self._masking, step)
        return given

    def _pair(self, number: int) -> Pair:
        block, place = divmod(number, BLOCK)
        if self._block[0] != block:
            self._block = block, self._corpus.block(block, self._mix, self._seed)
        return self._block[1][place]

    def _masked(self, tokenizer: Tokenizer, step: int) -> dict[str, Any]:
        """Passages for the document tower, and sentences of them for the query tower."""
        random = pickaxe.generator(self._seed, "mlm", step)
        rows = random.integers(0, len(self._corpus.passages), self._params.batch).tolist()
        passages = [self._corpus.passages[row] for row in rows]
        texts = {
            "document": [" ".join(passage) for passage in passages],
            "query": [passage[int(random.integers(len(passage)))] for passage in passages],
        }
        mask = tokenizer.token_to_id("[MASK]")
        if mask is None:
            raise InvalidParams("tasks", "name mlm, but the tokenizer has no [MASK]")
        return {
            f"masked {side}": masked(self._frames[side].texts(each), mask, tokenizer.vocab_size, random)
            for side, each in texts.items()
        }


class _Questions:
    """Questions with their passages, a batch a step, every batch as large."""

    def __init__(self, items: list[Item], frames: Mapping[str, Framing], params: Params, seed: int) -> None:
        self._items, self._frames, self._params = items, frames, params
        self.size = min(params.tune.batch, len(items))
        self._shuffle = Shuffle(len(items), self.size, seed)

    def given(self, step: int) -> dict[str, Any]:
        rows = self._shuffle.rows(step)
        again = self._shuffle.rows(step - step % self._shuffle.per_epoch)[: self.size - len(rows)]
        items = [self._items[row] for row in np.concatenate([rows, again])]
        documents = [titled(item.get("title"), str(item.get("positive"))) for item in items]
        return _sides(self._frames, [item.text or "" for item in items], documents, documents, self._params)


def _sides(
    frames: Mapping[str, Framing], queries: list[str], documents: list[str], names: list[Any], params: Params
) -> dict[str, Any]:
    """The two sides of a batch, and which documents in it are the same."""
    sides = {"query": batch(frames["query"].texts(queries)), "document": batch(frames["document"].texts(documents))}
    none = np.zeros((len(names), len(names)), bool)
    return {**sides, "same": duplicates(names) if params.mask_duplicates else none}
