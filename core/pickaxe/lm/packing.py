"""Reading prompts of unlike lengths in few rows: several prompts share one (Prepacking, arXiv 2404.09529)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.lm.attention import UNSEEN
from pickaxe.lm.cache import KV
from pickaxe.lm.scoring import TokenList

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm.lm import LM

Packer = Literal["least_loaded", "first_fit_decreasing", "exact"]
Emit = Literal["last_token", "packed"]
EXACT_PROMPTS = 32
"""Most prompts for which the fewest rows are searched."""
RUN_SLOTS = 8192
"""Slots of one run, where the caller sets no bound."""
CAPACITY = {"cpu": 128, "cuda": 512}
"""Most slots of a row, where the caller sets no bound: attention is computed over whole rows, which a CPU notices."""
PADDING = {"cpu": 16, "cuda": 256}
"""Slots of padding in a row above which another run is cheaper: whatever it holds, a run costs as much as a few
tokens, on a GPU as much as many."""
STEP_SLOTS = 4096
"""Slots of keys and values that are copied into one batch to read last tokens."""


@dataclass(frozen=True)
class Plan:
    """Which prompts share a row.  Prompts lie in a row one after the other from slot 0, in the order given.

    `slots`: tokens packed of each prompt; a prompt without any is in no row.
    """

    slots: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]

    @functools.cached_property
    def loads(self) -> tuple[int, ...]:
        """Slots used in each row."""
        return tuple(sum(self.slots[prompt] for prompt in row) for row in self.rows)

    @property
    def width(self) -> int:
        """Slots of every row: of the longest."""
        return max(self.loads, default=0)

    @property
    def computed(self) -> int:
        """Slots that one run over all rows computes, with the padding."""
        return len(self.rows) * self.width

    @functools.cached_property
    def places(self) -> np.ndarray:
        """int64 (prompts, 2): row and first slot of each prompt; (-1, 0) for one that is in no row."""
        places = np.tile(np.array([-1, 0], np.int64), (len(self.slots), 1))
        for number, row in enumerate(self.rows):
            start = 0
            for prompt in row:
                places[prompt] = number, start
                start += self.slots[prompt]
        return places

    def lay_out(self, token_lists: Sequence[TokenList], pad: int = 0) -> Layout:
        """The prompts' first `slots` tokens as rows."""
        shape = len(self.rows), self.width
        ids, positions, segments = np.full(shape, pad, np.int64), np.ones(shape, np.int64), np.full(shape, -1, np.int64)
        for prompt, ((row, start), count) in enumerate(zip(self.places, self.slots, strict=True)):
            if count:
                own = row, slice(start, start + count)
                ids[own], positions[own], segments[own] = token_lists[prompt][:count], np.arange(count), prompt
        return Layout(ids, positions, segments)


@dataclass(frozen=True)
class Layout:
    """int64 (rows, width) each: token ids; positions, which begin anew with every prompt (1 where there is none);
    and the number of the prompt that a slot belongs to, -1 for none."""

    ids: np.ndarray
    positions: np.ndarray
    segments: np.ndarray

    def bias(self) -> np.ndarray:
        """float32 (rows, 1, width, width): a slot sees those of its own prompt only (on top of a causal mask).

        Padding sees padding, so that no row of the softmax is empty.
        """
        apart = self.segments[:, None, :, None] != self.segments[:, None, None, :]
        return np.where(apart, np.float32(UNSEEN), np.float32(0))


def pack(
    slots: Sequence[int],
    capacity: int | None = None,
    packer: Packer = "least_loaded",
    *,
    sizes: Sequence[int] | None = None,
    call: Call | None = None,
) -> Plan:
    """Put prompts that need so many slots into rows of `capacity` (default: the largest prompt).

    `sizes` is what prompts count as against the capacity, where that is not their slots.  A prompt larger than the
    capacity gets a row of its own.  `least_loaded` and `first_fit_decreasing` take prompts by decreasing size and
    put each into the least loaded, or the first, row that has room; `exact` finds the fewest rows for up to 32
    prompts.  Ties: prompts in input order, rows in the order opened.
    """
    counted = list(slots if sizes is None else sizes)
    if min(slots, default=0) < 0 or len(counted) != len(slots):
        raise InvalidParams("slots", f"are {list(slots)}; must be numbers of at least 0, with a size each")
    if capacity is not None and capacity < 1:
        raise InvalidParams("capacity", f"is {capacity}; must be at least 1")
    order = [prompt for prompt in sorted(range(len(slots)), key=lambda each: -counted[each]) if slots[prompt]]
    room = capacity or max((counted[prompt] for prompt in order), default=1)
    if packer == "exact":
        if len(order) > EXACT_PROMPTS:
            raise InvalidParams("packer", f"exact is for at most {EXACT_PROMPTS} prompts, here are {len(order)}")
        rows = _fewest_rows(order, counted, room, call)
    else:
        rows = _greedy(order, counted, room, least_loaded=packer == "least_loaded")
    return Plan(tuple(slots), tuple(map(tuple, rows)))


def _greedy(order: Sequence[int], sizes: Sequence[int], room: int, least_loaded: bool) -> list[list[int]]:
    rows: list[list[int]] = []
    loads: list[int] = []
    for prompt in order:
        fitting = [row for row, load in enumerate(loads) if load + sizes[prompt] <= room]
        if not fitting:
            rows.append([prompt])
            loads.append(sizes[prompt])
            continue
        row = min(fitting, key=loads.__getitem__) if least_loaded else fitting[0]
        rows[row].append(prompt)
        loads[row] += sizes[prompt]
    return rows


def _fewest_rows(order: Sequence[int], sizes: Sequence[int], room: int, call: Call | None) -> list[list[int]]:
    alone = [[prompt] for prompt in order if sizes[prompt] > room]
    rest = [prompt for prompt in order if sizes[prompt] <= room]
    best = _greedy(rest, sizes, room, least_loaded=False)
    least = -(-sum(sizes[prompt] for prompt in rest) // room)
    for count in range(least, len(best)):
        if found := _into_rows(tuple(rest), sizes, room, count * room - sum(sizes[each] for each in rest), set(), call):
            return alone + found
    return alone + best


def _into_rows(
    left: tuple[int, ...],
    sizes: Sequence[int],
    room: int,
    waste: int,
    failed: set[tuple[int, ...]],
    call: Call | None,
) -> list[list[int]] | None:
    """Rows for the prompts that are left, with no more slots wasted than `waste`; None when there are none.

    Row by row: the largest prompt left goes in, with every choice of others that leaves little room.
    """
    if not left:
        return []
    if call is not None:
        call.check()
    key = waste, *(sizes[prompt] for prompt in left)
    if key in failed:
        return None
    for others in _fillings(left[1:], sizes, room - sizes[left[0]], waste):
        taken = {left[0], *others}
        free = room - sum(sizes[prompt] for prompt in taken)
        rest = tuple(prompt for prompt in left if prompt not in taken)
        found = _into_rows(rest, sizes, room, waste - free, failed, call)
        if found is not None:
            return [[left[0], *others], *found]
    failed.add(key)
    return None


def _fillings(prompts: tuple[int, ...], sizes: Sequence[int], room: int, waste: int) -> Iterator[tuple[int, ...]]:
    """Choices of prompts that leave at most `waste` of the room and no room for another; of equal sizes the first."""
    if sum(sizes[prompt] for prompt in prompts) < room - waste:
        return
    fitting = [place for place, prompt in enumerate(prompts) if sizes[prompt] <= room]
    if not fitting:
        if room <= waste:
            yield ()
        return
    place = fitting[0]
    prompt = prompts[place]
    for others in _fillings(prompts[place + 1 :], sizes, room - sizes[prompt], waste):
        yield prompt, *others
    smaller = tuple(each for each in prompts[place + 1 :] if sizes[each] < sizes[prompt])
    for others in _fillings(smaller, sizes, room, waste):
        if room - sum(sizes[each] for each in others) < sizes[prompt]:  # or it would have fitted in
            yield others


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Prefilled:
    """What was read of each prompt: `caches` of one row and all its tokens, and logits (prompts, vocab) after it.

    `runs` of the model computed `computed` slots.
    """

    caches: list[KV]
    logits: np.ndarray
    plan: Plan
    runs: int
    computed: int


def prefill_packed(
    lm: LM,
    token_lists: Sequence[TokenList],
    call: Call | None = None,
    *,
    capacity: int | None = None,
    packer: Packer = "least_loaded",
    emit: Emit = "packed",
    count_last: bool = False,
    max_rows: int | None = None,
    max_slots: int | None = None,
) -> Prefilled:
    """Read many prompts at once; the same numbers as reading each alone.

    `emit`: "packed" packs all tokens and takes logits at each prompt's last slot; "last_token" packs all but the
    last, which are then read in batches on top.  `capacity` of a row in slots; default the longest prompt, but at
    most 128 on a CPU and 512 on a GPU.  With `count_last`, prompts of emit="last_token" count
    all of their tokens against it.  A run takes at most `max_rows` rows and `max_slots` slots, but always one row.
    Rows of one prompt alone are read without a mask.  Raises `InvalidItems` for an empty prompt.
    """
    arrays = [np.asarray(tokens, dtype=np.int64) for tokens in token_lists]
    for item, tokens in enumerate(arrays):
        if not len(tokens):
            raise InvalidItems(f"token_lists[{item}]", "is empty: give at least a start token")
    held = 1 if emit == "last_token" else 0
    lengths = [len(tokens) for tokens in arrays]
    slots = [length - held for length in lengths]
    sizes = lengths if count_last else slots
    device = "cuda" if lm.network.runtime.is_cuda else "cpu"
    room = capacity or max(1, min(CAPACITY[device], max(sizes, default=1)))
    plan = pack(slots, room, packer, sizes=sizes, call=call)
    reader = _Reader(lm, arrays, plan, call)
    for rows in _runs(plan, max_rows, max_slots or RUN_SLOTS, PADDING[device]):
        reader.read(rows, logits=not held)
    if held:
        reader.read_last(max_slots or STEP_SLOTS)
    return reader.result()


def _runs(plan: Plan, max_rows: int | None, max_slots: int, padding: int) -> Iterator[list[int]]:
    """Rows to read together, the longest first.

    Those of single prompts, which need no mask, are apart from the shared ones; of these two kinds each, rows that
    would be padded by more than `padding` slots wait for another run.
    """
    for kind in (1, 2):
        rows = [row for row, prompts in enumerate(plan.rows) if min(len(prompts), 2) == kind]
        rows.sort(key=lambda row: -plan.loads[row])
        while rows:
            longest = plan.loads[rows[0]]
            count = max(1, min(max_slots // longest, max_rows or len(rows)))
            alike = sum(longest - plan.loads[row] <= padding for row in rows)
            yield rows[: min(count, alike)]
            del rows[: min(count, alike)]


class _Reader:
    """Reads the rows of a plan and takes them apart."""

    def __init__(self, lm: LM, arrays: list[np.ndarray], plan: Plan, call: Call | None) -> None:
        self._lm, self._arrays, self._plan, self._call = lm, arrays, plan, call
        self._caches: dict[int, KV] = {}
        self._logits = np.empty((len(arrays), lm.vocab_size), np.float32)
        self._runs = self._computed = 0

    def read(self, rows: list[int], logits: bool) -> None:
        """One run over these rows of the plan; with `logits`, prompts are read to their ends."""
        plan, lm = self._plan, self._lm
        prompts = [prompt for row in rows for prompt in plan.rows[row]]
        part = Plan(tuple(plan.slots[each] for each in prompts), _renumbered(plan.rows[row] for row in rows))
        layout = part.lay_out([self._arrays[each] for each in prompts])
        ends = part.places[:, 1] + np.array(part.slots) - 1
        wanted, columns = _by_row(part.places[:, 0], ends, len(rows))
        shared = len(prompts) > len(rows)
        found, cache = lm.forward(
            layout.ids,
            lengths=part.loads,
            positions=layout.positions if shared else None,
            bias=layout.bias() if shared else None,
            logits_at=wanted if logits else "none",
            call=self._call,
        )
        self._runs, self._computed = self._runs + 1, self._computed + layout.ids.size
        for place, (prompt, (row, start)) in enumerate(zip(prompts, part.places, strict=True)):
            own = slice(start, start + part.slots[place])
            copies = [tensor[row : row + 1, :, own].copy() for tensor in cache.tensors]
            self._caches[prompt] = KV(copies, [part.slots[place]])
            if found is not None:
                self._logits[prompt] = found[row, columns[place]]

    def read_last(self, max_slots: int) -> None:
        """Every prompt's last token on top of its others, in batches of like length."""
        lm, lengths = self._lm, [len(tokens) for tokens in self._arrays]
        nothing = KV.empty(lm.network.architecture, 1, 1, lm.network.dtype)
        order = sorted(range(len(lengths)), key=lambda each: -lengths[each])
        while order:
            count = max(1, max_slots // lengths[order[0]])
            group, order = order[:count], order[count:]
            past = KV.concatenate([self._caches.get(each, nothing) for each in group])
            ids = [self._arrays[each][-1:] for each in group]
            found, cache = lm.forward(np.stack(ids), past=past, call=self._call)
            assert found is not None
            self._logits[group] = found
            self._runs, self._computed = self._runs + 1, self._computed + len(group)
            for row, prompt in enumerate(group):
                self._caches[prompt] = cache.gather([row])

    def result(self) -> Prefilled:
        caches = [self._caches[prompt] for prompt in range(len(self._arrays))]
        return Prefilled(caches, self._logits, self._plan, self._runs, self._computed)


def _renumbered(rows: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The same rows for prompts counted through in their order."""
    numbers = itertools.count()
    return tuple(tuple(next(numbers) for _ in row) for row in rows)


def _by_row(rows: np.ndarray, slots: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The wanted slots as (rows, k), filled up with 0, and the column of each."""
    columns = np.array([int((rows[:place] == row).sum()) for place, row in enumerate(rows)], np.int64)
    wanted = np.zeros((count, int(columns.max(initial=0)) + 1), np.int64)
    wanted[rows, columns] = slots
    return wanted, columns
