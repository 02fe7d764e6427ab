"""Our engine and its peers on one model, each in a process of its own, all with the same few measurements.

`llama.cpp` (`pip install --no-deps xllamacpp`) reads the same GGUF file.  onnxruntime-genai (`pip install --no-deps
onnxruntime-genai`) needs its own build of the model: `python -m onnxruntime_genai.models.builder -i CHECKPOINT -o
FOLDER -p int4 -e cpu`; name the folder in PICKAXE_GENAI_MODEL.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np

THREADS = os.cpu_count() or 1
ARRIVE = 0.05
"""Seconds between requests that come apart."""
EIGHT = tuple(range(64, 129, 9))
"""Tokens that each of eight requests writes."""


def prompt(length: int, start: int = 0) -> list[int]:
    """Token ids without sense; another `start` gives another prompt."""
    return [1000 + (start * 7919 + place * 31) % 20_000 for place in range(length)]


class Ours:
    """pickaxe's engine, weights as stored (4 bits with offsets; 8 bits in embedding and head)."""

    def __init__(self) -> None:
        import pickaxe
        from pickaxe.lm import EngineSettings

        self.lm = pickaxe.Host(engine=EngineSettings(prefix_bytes=0)).lm()

    def _times(self, ids: Sequence[int], tokens: int) -> list[float]:
        """Moments of each token, without an end before the last."""
        from pickaxe import Call, Sampling
        from pickaxe.lm import Generation, WithoutTokens

        never = (WithoutTokens(self.lm.tokenizer.eos_ids),)
        request = Generation(ids, Sampling(max_tokens=tokens, temperature=0), never)
        return [time.perf_counter() for _ in self.lm.generate(request, Call())]

    def plain(self, tokens: int) -> float:
        times = self._times(prompt(10), tokens)
        return (len(times) - 1) / (times[-1] - times[0])

    def eight(self) -> float:
        def one(place: int) -> None:
            time.sleep(place * ARRIVE)
            self._times(prompt(64, place), EIGHT[place])

        start = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(8)))
        return sum(EIGHT) / (time.perf_counter() - start)

    def prefill(self, length: int) -> float:
        start = time.perf_counter()
        return length / (self._times(prompt(length), 1)[0] - start)

    def texts(self, count: int) -> tuple[float, float]:
        """Seconds of the log-probabilities of so many texts, and of a loop over padded batches of 16."""
        lengths = np.random.default_rng(0).lognormal(np.log(60), 0.7, count).astype(int).clip(8, 400)
        lists = [prompt(int(length), place) for place, length in enumerate(lengths)]
        start = time.perf_counter()
        self.lm.token_logprobs(lists)
        middle = time.perf_counter()
        for first in range(0, count, 16):
            self._padded(lists[first : first + 16])
        return middle - start, time.perf_counter() - middle

    def _padded(self, lists: Sequence[Sequence[int]]) -> None:
        from pickaxe.lm import logsumexp

        lengths = [len(ids) for ids in lists]
        ids = np.zeros((len(lists), max(lengths)), np.int64)
        for row, tokens in enumerate(lists):
            ids[row, : len(tokens)] = tokens
        logits, _ = self.lm.forward(ids, lengths=lengths, logits_at="all")
        assert logits is not None
        np.take_along_axis(logits[:, :-1], ids[:, 1:, None], axis=2)[..., 0] - logsumexp(logits[:, :-1])

    def memory(self) -> tuple[float, float]:
        """MiB that eight requests of 1,024 tokens take at their peak, and of weights, keys and values alone.

        Counted is memory of the process's own, packed weights among it; the mapped file that they were packed from
        is cache that the system may drop.
        """
        weights = sum(path.stat().st_size for path in self.lm.network.folder.glob("*.data"))
        done, own = threading.Event(), 0

        def watch() -> None:
            nonlocal own
            while not done.wait(0.01):
                with open("/proc/self/status", encoding="utf-8") as status:
                    own = max(own, next(int(line.split()[1]) for line in status if line.startswith("RssAnon")))

        watching = threading.Thread(target=watch)
        watching.start()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda place: self._times(prompt(896, place), 128), range(8)))
        done.set()
        watching.join()
        return own / 1024, (weights + 8 * 1024 * self.lm.network.token_bytes) / 2**20


class Llama:
    """llama.cpp's server, in process, on the GGUF file as it is."""

    def __init__(self) -> None:
        import xllamacpp

        import pickaxe

        params = xllamacpp.CommonParams()
        folder = pickaxe.Host().model_path("lm")
        params.model.path = str(folder if folder.is_file() else next(folder.glob("*.gguf")))
        params.n_ctx, params.n_parallel, params.n_gpu_layers, params.warmup = 16_384, 8, 0, True
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
        self.server = xllamacpp.Server(params)

    def _complete(self, ids: Sequence[int], tokens: int) -> dict[str, Any]:
        asked = {"prompt": list(ids), "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        answer = self.server.handle_completions(asked)
        return json.loads(answer) if isinstance(answer, str) else answer

    def plain(self, tokens: int) -> float:
        return float(self._complete(prompt(10), tokens)["timings"]["predicted_per_second"])

    def eight(self) -> float:
        def one(place: int) -> None:
            time.sleep(place * ARRIVE)
            self._complete(prompt(64, place), EIGHT[place])

        start = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(8)))
        return sum(EIGHT) / (time.perf_counter() - start)

    def prefill(self, length: int) -> float:
        return float(self._complete(prompt(length), 1)["timings"]["prompt_per_second"])


class Genai:
    """onnxruntime-genai on its int4 build (symmetric, output matrix too); several requests as one static batch."""

    def __init__(self) -> None:
        import onnxruntime_genai

        self.genai = onnxruntime_genai
        self.model = onnxruntime_genai.Model(os.environ["PICKAXE_GENAI_MODEL"])

    def _run(self, rows: Sequence[Sequence[int]], tokens: int) -> tuple[float, float]:
        """Seconds to the first token, and of the others."""
        params = self.genai.GeneratorParams(self.model)
        total = len(rows[0]) + tokens
        params.set_search_options(max_length=total, min_length=total, batch_size=len(rows), do_sample=False)
        start = time.perf_counter()
        generator = self.genai.Generator(self.model, params)
        generator.append_tokens(np.array(rows, np.int32))
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(tokens - 1):
            generator.generate_next_token()
        return first - start, time.perf_counter() - first

    def plain(self, tokens: int) -> float:
        return (tokens - 1) / self._run([prompt(10)], tokens)[1]

    def eight(self) -> float:
        """All at once, which is more than requests that come apart can have; tokens nobody asked for do not count."""
        return sum(EIGHT) / sum(self._run([prompt(64, place) for place in range(8)], max(EIGHT)))

    def prefill(self, length: int) -> float:
        return length / self._run([prompt(length)], 1)[0]


ENGINES = {"ours": Ours, "llama.cpp": Llama, "onnxruntime-genai": Genai}


@functools.cache
def _engine(name: str) -> Any:
    return ENGINES[name]()


def _measure(name: str, what: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_engine(name), what)(*arguments)


class Contest:
    """The engines that are there; each measures in its own process, never two at once."""

    def __init__(self) -> None:
        here = ["ours"]
        if importlib.util.find_spec("xllamacpp"):
            here.append("llama.cpp")
        if importlib.util.find_spec("onnxruntime_genai") and os.environ.get("PICKAXE_GENAI_MODEL"):
            here.append("onnxruntime-genai")
        spawn = multiprocessing.get_context("spawn")
        self.pools = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in here}
        self._lock = threading.Lock()

    def measure(self, name: str, what: str, *arguments: Any) -> Any:
        with self._lock:
            return self.pools[name].submit(_measure, name, what, arguments).result()

    def close(self) -> None:
        for pool in self.pools.values():
            pool.shutdown()
