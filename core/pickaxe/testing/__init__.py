"""The conformance kit: does a method do what the contract asks for?

In a plugin's tests one line is enough:

    from pickaxe.testing import conforms

    test_conformance = conforms("min-k-prob", known_failures={"scorer.empty_text": "the paper defines it away"})

`pickaxe check NAME` runs the same without pytest, and `checks` hands them out one by one.  pytest is needed only by
`conforms`.
"""

from pickaxe.testing.check import Check, Failed
from pickaxe.testing.run import Outcome, attempt, checks, conforms, expect_failure, run

__all__ = ["Check", "Failed", "Outcome", "attempt", "checks", "conforms", "expect_failure", "run"]
