"""Methods that a server cannot carry as they are."""

import threading
from typing import Any

import numpy as np
from broken import fails
from good import GoodGroupScorer
from good import Params as GoodParams
from pydantic import Field

from pickaxe import Scores, hookimpl


@fails("wire.equal", "anyrole.threads")
class KnowsItsThread(GoodGroupScorer):
    """Answers differently outside the main thread."""

    scope = "pool"

    @hookimpl
    def score(self, items: Any) -> Scores:
        home = threading.current_thread() is threading.main_thread()
        return Scores({"score": np.full(len(items), home, np.float32)})


@fails("wire.card", "anyrole.schema_round_trip")
class HugeDefault(GoodGroupScorer):
    """Has a default that a double cannot hold."""

    class Params(GoodParams):
        mask: int = Field(2**60 + 1, description="Bits.")
