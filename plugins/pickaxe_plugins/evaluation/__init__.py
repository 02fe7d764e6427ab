"""Methods that say what a benchmark, a difference or a retriever is worth."""
