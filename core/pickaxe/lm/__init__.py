"""Language models: `LM` reads, samples and scores; everything else here is what it is made of."""

from pickaxe.lm.attention import Contexts
from pickaxe.lm.cache import KV, rotate
from pickaxe.lm.engine import EngineSettings
from pickaxe.lm.generate import Generation
from pickaxe.lm.grammar import FollowGrammar, Grammar
from pickaxe.lm.lm import LM
from pickaxe.lm.processors import (
    FollowTrie,
    LogitsProcessor,
    OnlyTokens,
    TokenTrie,
    WithoutTokens,
    same_tokenizer,
)
from pickaxe.lm.request import LMParams, Request, prompt_ids, read_prompts
from pickaxe.lm.sampling import Draw, drawn, logsumexp
from pickaxe.lm.transcript import Step, Transcript

__all__ = [
    "KV",
    "LM",
    "Contexts",
    "Draw",
    "EngineSettings",
    "FollowGrammar",
    "FollowTrie",
    "Generation",
    "Grammar",
    "LMParams",
    "LogitsProcessor",
    "OnlyTokens",
    "Request",
    "Step",
    "TokenTrie",
    "Transcript",
    "WithoutTokens",
    "drawn",
    "logsumexp",
    "prompt_ids",
    "read_prompts",
    "rotate",
    "same_tokenizer",
]
