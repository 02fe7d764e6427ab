"""Benchmarks: every `bench_*.py` yields rows; `python -m benchmarks` runs them."""
