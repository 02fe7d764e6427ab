"""Training of small causal language models with JAX, for methods whose `fit` trains one (extra `train`).

Training libraries are imported inside functions: what is fitted runs without them.
"""
