"""The training kit: small networks in JAX, for methods whose `fit` trains one (extra `train`).

Training libraries are imported inside functions: what is fitted runs without them.  `docs/training.md` has a tour.
"""
