"""Causal language models: reading, sampling, scoring."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Literal

import numpy as np

from pickaxe.errors import DoesNotFit, InvalidItems, InvalidParams
from pickaxe.lm.attention import Contexts
from pickaxe.lm.cache import KV
from pickaxe.lm.engine import Engine, EngineSettings
from pickaxe.lm.generate import Generation
from pickaxe.lm.network import CHUNK, Network, open_network
from pickaxe.lm.sampling import logsumexp
from pickaxe.lm.scoring import Normalise, TokenList, choose, score_tokens

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm.transcript import Step
    from pickaxe.models import ModelStore
    from pickaxe.session import Runtime
    from pickaxe.tokenizers import Tokenizer

BATCH_TOKENS = 2048
"""Padded tokens of one run when many texts are scored."""


class LM:
    """A language model with its tokenizer.  Safe to use from several threads.

    Log-probabilities are natural.  Results for one item do not depend on what else is in the call.
    """

    def __init__(
        self, name: str, network: Network, tokenizer: Tokenizer, settings: EngineSettings | None = None
    ) -> None:
        self.name = name
        self.network = network
        self.tokenizer = tokenizer
        self.engine = Engine(name, network, tokenizer, network.bounds(settings or EngineSettings()))

    @classmethod
    def open(
        cls,
        store: ModelStore,
        runtime: Runtime,
        name: str = "lm",
        precision: str = "auto",
        layers: int | None = None,
        settings: EngineSettings | None = None,
    ) -> LM:
        """The model of this alias, name or path.

        `precision` is fp32, int8, int4 or, on a GPU, fp16; auto is, on a CPU, int4 for weights that are
        stored in 4 bits and int8 for all others; on a GPU fp16.  The first opening of a model and precision
        converts it, which takes seconds.  A decoder that was exported to ONNX runs as it is stored.
        `layers`: only so many of its first layers, with its norm and head.
        """
        network, tokenizer = open_network(store, runtime, name, precision, layers)
        return cls(name, network, tokenizer, settings)

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and continuation together."""
        return self.network.architecture.context

    @property
    def vocab_size(self) -> int:
        return self.network.architecture.vocab

    @property
    def digest(self) -> str:
        """Of the weights: equal for equal models."""
        return self.network.digest

    def turn(self, call: Call | None) -> AbstractContextManager[None]:
        """The model for one run, in the order of asking; for those who run `network` themselves."""
        return self.engine.turns.taken(call)

    # ------------------------------------------------------------ reading

    def forward(
        self,
        ids: np.ndarray | Sequence[Sequence[int]],
        *,
        lengths: np.ndarray | Sequence[int] | None = None,
        positions: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        past: KV | None = None,
        contexts: Contexts | None = None,
        logits_at: Literal["last", "all", "none"] | np.ndarray = "last",
        call: Call | None = None,
    ) -> tuple[np.ndarray | None, KV]:
        """Read ids (B, T) on top of `past`; logits where they are asked for, and the longer cache.

        `lengths` (B,): how many ids of each row count, the rest being padding on the right (default: all).
        `positions` (B, T): rotary positions, default on from each row's length in `past`.
        `bias` (T, S), or (1 or B, 1, T, S): added to the attention scores, S = longest row of `past` + T.  The
        causal mask always holds: slot j is seen from slots at or after it only.  Use large finite negatives.
        `contexts`: slots of `past` that were read apart from each other; not together with a bias.  They may be
        more than the model's context is long, as long as the positions given are not.
        `logits_at`: "last" token of each row (B, V); "all" (B, T, V); indices (k,) or (B, k) into T (B, k, V);
        or "none".
        """
        given = np.ascontiguousarray(ids, dtype=np.int64)
        if given.ndim != 2 or not given.size:
            raise InvalidItems("ids", f"have shape {given.shape}; must be (rows, tokens), neither of them 0")
        count, width = given.shape
        self._check_ids(given)
        counts = np.full(count, width) if lengths is None else np.asarray(lengths, dtype=np.int64)
        if counts.shape != (count,) or counts.min() < 1 or counts.max() > width:
            raise InvalidParams("lengths", f"are {counts.tolist()}; must be {count} numbers in [1, {width}]")
        cache = past or KV.empty(self.network.architecture, count, width, self.network.dtype)
        if cache.rows != count:
            raise InvalidParams("past", f"has {cache.rows} rows, the ids have {count}")
        if contexts is None or positions is None:
            self._check_fit(int((cache.lengths + counts).max()))
        if positions is not None and (np.min(positions) < 0 or np.max(positions) >= self.context_length):
            raise InvalidParams("positions", f"must lie in [0, {self.context_length})")
        if bias is not None:
            bias = self._check_bias(bias, count, width, cache.width + width)
        if contexts is not None:
            if bias is not None:
                raise InvalidParams("contexts", "are given together with a bias")
            contexts.check(cache.lengths)
        rows, shape = _wanted(logits_at, counts, width)
        if bias is None and width > CHUNK:
            hidden, cache = self._read_long(given, counts, cache, rows, positions, contexts, call)
        else:
            with self.turn(call):
                hidden, cache = self.network.read(
                    given, counts, cache, rows, positions=positions, bias=bias, contexts=contexts, call=call
                )
        if isinstance(logits_at, str) and logits_at == "none":
            return None, cache
        return self.network.logits(hidden, call).reshape(*shape, self.vocab_size), cache

    def prefill(self, ids: TokenList, call: Call | None = None, past: KV | None = None) -> tuple[np.ndarray, KV]:
        """Logits (V,) after one prompt (which goes on from `past`), and its cache of one row."""
        logits, cache = self.forward(np.asarray(ids, dtype=np.int64)[None], past=past, call=call)
        assert logits is not None
        return logits[0], cache

    def _read_long(
        self,
        ids: np.ndarray,
        counts: np.ndarray,
        cache: KV,
        rows: np.ndarray,
        positions: np.ndarray | None,
        contexts: Contexts | None,
        call: Call | None,
    ) -> tuple[np.ndarray, KV]:
        """In chunks, since the memory of attention grows with the square of what is read at once."""
        cache = cache.resized(cache.width + ids.shape[1])
        hidden = self.network.empty_states(len(rows))
        owner, place = np.divmod(rows, ids.shape[1])
        for start in range(0, ids.shape[1], CHUNK):
            piece = ids[:, start : start + CHUNK]
            mine = (place >= start) & (place < start + piece.shape[1])
            local = owner[mine] * piece.shape[1] + place[mine] - start
            read = np.clip(counts - start, 0, piece.shape[1])
            with self.turn(call):
                states, cache = self.network.read(
                    np.ascontiguousarray(piece),
                    read,
                    cache,
                    local,
                    positions=None if positions is None else positions[:, start : start + CHUNK],
                    contexts=contexts,
                    call=call,
                )
            hidden[mine] = states
        return hidden, cache

    def _check_ids(self, ids: np.ndarray) -> None:
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise InvalidItems("ids", f"must lie in [0, {self.vocab_size}), the vocabulary of {self.name!r}")

    def _check_fit(self, tokens: int) -> None:
        if tokens > self.context_length:
            raise DoesNotFit(
                f"{tokens} tokens exceed the {self.context_length} of model {self.name!r}",
                metadata={"tokens": tokens, "context": self.context_length},
            )

    def _check_bias(self, bias: np.ndarray, rows: int, width: int, total: int) -> np.ndarray:
        full = bias[None, None] if bias.ndim == 2 else bias
        if full.shape not in ((1, 1, width, total), (rows, 1, width, total)):
            raise InvalidParams("bias", f"has shape {bias.shape}; must be ({width}, {total}) or (1|{rows}, 1, …)")
        return full

    # ------------------------------------------------------------ sampling

    def generate(self, request: Generation, call: Call) -> Iterator[Step]:
        """Draw continuations of a prompt; see `Generation` and `Step`.  Raises `DoesNotFit` at once.

        Steps of all samples come as they are drawn, those of one sample in order.  Sample i depends on the seed
        and i only.  Closing the iterator, or ending the call, stops within a step.
        """
        return _steps(self.generate_all([request], call))

    def generate_all(self, requests: Sequence[Generation], call: Call) -> Generator[tuple[int, Step]]:
        """The same for several prompts, decoded together: (number of the request, step)."""
        return self.engine.generate(requests, call)

    # ------------------------------------------------------------ scoring

    def token_logprobs(
        self,
        token_lists: Sequence[TokenList],
        call: Call | None = None,
        *,
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[np.ndarray]:
        """Per item float32 (n - 1,): the log-probability of each token but the first, given those before it."""
        return [rows[0] for rows in score_tokens(self, token_lists, call, batch_tokens, moments=False)]

    def token_moments(
        self,
        token_lists: Sequence[TokenList],
        call: Call | None = None,
        *,
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[np.ndarray]:
        """Per item float32 (3, n - 1): log-probability of each token but the first, and the mean and standard
        deviation that log p(t) has for t drawn from the model's distribution p at that place."""
        return score_tokens(self, token_lists, call, batch_tokens, moments=True)

    def full_logprobs(self, ids: TokenList, call: Call | None = None) -> np.ndarray:
        """float32 (n, V): row i is the model's distribution of what follows `ids[: i + 1]`."""
        logits, _ = self.forward(np.asarray(ids, dtype=np.int64)[None], logits_at="all", call=call)
        assert logits is not None
        return logits[0] - logsumexp(logits[0])[:, None].astype(np.float32)

    def choose(
        self,
        prompt_ids: TokenList,
        continuations: Sequence[TokenList],
        call: Call | None = None,
        *,
        normalise: Normalise = "none",
        batch_tokens: int = BATCH_TOKENS,
    ) -> np.ndarray:
        """float64 (m,): log-probability of each continuation after the prompt, per token or byte if asked.

        The highest is the model's choice.  The prompt is read once.
        """
        return choose(self, prompt_ids, continuations, call, normalise, batch_tokens)


def _steps(numbered: Generator[tuple[int, Step]]) -> Iterator[Step]:
    with closing(numbered):
        for _, step in numbered:
            yield step


def _wanted(
    logits_at: Literal["last", "all", "none"] | np.ndarray, counts: np.ndarray, width: int
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Flat positions in (B, T) to keep hidden states of, and the leading shape of their logits."""
    rows = len(counts)
    starts = np.arange(rows)[:, None] * width
    if isinstance(logits_at, str):
        if logits_at == "none":
            return np.zeros(1, np.int64), (1,)
        if logits_at == "all":
            return (starts + np.arange(width)).ravel(), (rows, width)
        return starts[:, 0] + counts - 1, (rows,)
    places = np.broadcast_to(np.asarray(logits_at, dtype=np.int64), (rows, np.shape(logits_at)[-1]))
    return (starts + places).ravel(), places.shape
