"""Property-based tests draw the same examples in every run, and none fails for being slow on a busy machine."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "pickaxe", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pickaxe")
