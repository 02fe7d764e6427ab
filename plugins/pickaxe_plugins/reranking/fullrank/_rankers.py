"""What orders one window: a language model, any decoder, a scorer, another reranker, or an encoder's cosines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Call, Item, Items, Message, Prompt, Sampling
from pickaxe_plugins.reranking.fullrank import _tokens as tokens
from pickaxe_plugins.reranking.fullrank._permutation import Parsed, parse_permutation
from pickaxe_plugins.reranking.fullrank._prompt import Listwise, fitted, output_text, passage

if TYPE_CHECKING:
    from pickaxe.encoder import Encoder
    from pickaxe.handle import DecoderHandle, RerankerHandle, ScorerHandle
    from pickaxe.lm import LM


@dataclass(frozen=True)
class Ruling:
    """The order of one window (places in it, best first), what it took, and how the output read."""

    parsed: Parsed
    usage: Mapping[str, float]
    max_passage_len: int | None = None


Rank = Callable[[Items], Ruling]


def by_cosine(encoder: Encoder, query: Item, candidates: Items, call: Call) -> Rank:
    """Falling cosine of query and passage; a passage is embedded once, however many queries it meets."""
    vectors = encoder.memory.encode([passage(item) for item in (query, *candidates)], call)
    cosine = dict(zip(candidates.ids, (vectors[1:] @ vectors[0]).tolist(), strict=True))
    unpaid: Mapping[str, float] = {"encoded_texts": len(vectors)}

    def rank(window: Items) -> Ruling:
        nonlocal unpaid
        usage, unpaid = unpaid, {}
        return Ruling(_falling(np.array([cosine[item.id] for item in window])), usage)

    return rank


def by_scorer(scorer: ScorerHandle, query: Item, call: Call) -> Rank:
    """Falling primary column; each passage comes with the query in its field `query`."""

    def rank(window: Items) -> Ruling:
        items = [replace(item, fields={**item.fields, "query": query.text or ""}) for item in window]
        values = np.nan_to_num(np.asarray(scorer.score(items, call=call).primary, np.float64), nan=-np.inf)
        return Ruling(_falling(values), {"scored_pairs": len(items)})

    return rank


def by_reranker(reranker: RerankerHandle, query: Item, call: Call) -> Rank:
    """The other reranker's order; what it leaves out follows in the incoming order."""

    def rank(window: Items) -> Ruling:
        ranking = reranker.rerank(query, window, call=call)
        order = [entry.index for entry in ranking]
        rest = [place for place in range(len(window)) if place not in set(order)]
        return Ruling(Parsed((*order, *rest), missing=len(rest)), dict(ranking.usage))

    return rank


def by_decoder(decoder: DecoderHandle, query: Item, max_passage_len: int, context: int | None, call: Call) -> Rank:
    """What a decoder writes, greedily.  Its tokens are unknown: three bytes of prompt count as one."""

    def prompt_tokens(messages: Sequence[Message]) -> int:
        return -(-sum(len(turn.content.encode()) for turn in messages) // 3)

    def output_tokens(n: int) -> int:
        return len(output_text(n))

    def rank(window: Items) -> Ruling:
        n = len(window)
        prompt = _prompt(query, window, max_passage_len, context, prompt_tokens, output_tokens)
        sampling = Sampling(max_tokens=output_tokens(n), temperature=0.0)
        written = [
            each for each in decoder.complete(Prompt(messages=prompt.messages, sampling=sampling), call=call)
            if each.choice == 0
        ]  # fmt: skip
        used = {"prompt_tokens": prompt.tokens, "output_tokens": sum(len(each.token_ids) for each in written)}
        parsed = parse_permutation("".join(each.text for each in written), n)
        return Ruling(parsed, used, prompt.max_passage_len)

    return rank


def by_model(lm: LM, query: Item, max_passage_len: int, context: int | None, constrained: bool, call: Call) -> Rank:
    """What a language model writes: greedily, as many tokens as the order takes, no end of text before that."""

    def encoded(messages: Sequence[Message]) -> list[int]:
        return tokens.prompt_ids(lm.tokenizer, messages)

    def output_tokens(n: int) -> int:
        return tokens.answer_length(lm.tokenizer, n)

    def rank(window: Items) -> Ruling:
        n = len(window)
        limit = lm.context_length if context is None else min(context, lm.context_length)
        prompt = _prompt(query, window, max_passage_len, limit, lambda turns: len(encoded(turns)), output_tokens)
        write = _write_constrained if constrained else _write_freely
        written = write(lm, encoded(prompt.messages), n, call)
        parsed = parse_permutation(lm.tokenizer.decode(written), n)
        return Ruling(parsed, {"prompt_tokens": prompt.tokens, "output_tokens": len(written)}, prompt.max_passage_len)

    return rank


def _write_freely(lm: LM, prompt_ids: list[int], n: int, call: Call) -> list[int]:
    from pickaxe.lm.generate import Generation
    from pickaxe.lm.processors import WithoutTokens

    request = Generation(
        prompt_ids,
        Sampling(max_tokens=len(lm.tokenizer.encode(output_text(n))), temperature=0.0),
        (WithoutTokens(lm.tokenizer.eos_ids),),
    )
    return [step.token_id for step in lm.generate(request, call)]


def _write_constrained(lm: LM, prompt_ids: list[int], n: int, call: Call) -> list[int]:
    """The greedy permutation: only identifiers not yet used may follow.

    Tokens without alternative ("]", " >", " [") are not asked for: they are read together with the next choice.
    """
    first, later = tokens.first_ids(lm.tokenizer, n), tokens.later_ids(lm.tokenizer, n)
    logits, cache = lm.prefill(prompt_ids, call)
    written: list[int] = []
    unread: list[int] = []
    unused = set(range(n))
    while unused:
        pieces = first if len(unused) == n else later
        alive, depth = sorted(unused), 0
        while len(alive) > 1 or depth < len(pieces[alive[0]]):
            options = sorted({pieces[place][depth] for place in alive})
            if len(options) > 1 and unread:
                rows, cache = lm.forward([unread], past=cache, call=call)
                assert rows is not None
                logits, unread = rows[0], []
            token = max(options, key=lambda option: logits[option]) if len(options) > 1 else options[0]
            unread.append(token)
            written.append(token)
            alive = [place for place in alive if pieces[place][depth] == token]
            depth += 1
        unused.remove(alive[0])
    return written


def _prompt(
    query: Item,
    window: Items,
    max_passage_len: int,
    context: int | None,
    prompt_tokens: Callable[[Sequence[Message]], int],
    output_tokens: Callable[[int], int],
) -> Listwise:
    texts = [passage(item) for item in window]
    return fitted(query.text or "", texts, max_passage_len, context, prompt_tokens, output_tokens)


def _falling(values: np.ndarray) -> Parsed:
    return Parsed(tuple(np.argsort(-values, kind="stable").tolist()))
