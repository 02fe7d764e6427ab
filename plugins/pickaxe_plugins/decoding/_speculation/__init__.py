"""Speculative decoding: drafts of what a model may say next, checked by the model itself many tokens at a time."""
