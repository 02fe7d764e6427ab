"""Language models: `LM` reads, samples and scores; everything else here is what it is made of."""

from pickaxe.lm.cache import KV, rotate
from pickaxe.lm.generate import Generation, Step
from pickaxe.lm.lm import LM
from pickaxe.lm.processors import (
    FollowTrie,
    LogitsProcessor,
    OnlyTokens,
    TokenTrie,
    WithoutTokens,
    same_tokenizer,
)
from pickaxe.lm.sampling import Draw, logsumexp

__all__ = [
    "KV",
    "LM",
    "Draw",
    "FollowTrie",
    "Generation",
    "LogitsProcessor",
    "OnlyTokens",
    "Step",
    "TokenTrie",
    "WithoutTokens",
    "logsumexp",
    "rotate",
    "same_tokenizer",
]
