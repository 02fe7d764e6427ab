"""BatchPrompt: many items in one prompt, asked again in other orders (arXiv 2309.00384)."""

from pickaxe_plugins.decoding.batchprompt.methods import BatchLabel, BatchPrompt

__all__ = ["BatchLabel", "BatchPrompt"]
