"""Columns of the modes of `eval-variance`."""

from __future__ import annotations

from typing import Literal

from pickaxe import Column


def _column(name: str, doc: str, direction: Literal["higher", "lower", "none"] = "higher", unit: str = "") -> Column:
    return Column(name, doc, "float64", unit, direction, nullable=True)


def _count(name: str, doc: str) -> Column:
    return Column(name, doc, "int64", "", "none")


PRIMARY = {
    "snr": _column("snr", "|seed_mean| / seed_std at the last checkpoint; inf where all seeds score the same."),
    "monotonicity": _column("monotonicity", "Mean over seeds of tau-b of score and checkpoint, -1 to 1."),
    "neg_std": _column("neg_std", "Minus seed_std."),
}
BENCHMARK = (
    PRIMARY["snr"],
    PRIMARY["monotonicity"],
    _column("seed_mean", "Mean over seeds at the last checkpoint.", "none"),
    _column("seed_std", "Standard deviation over seeds at the last checkpoint.", "lower"),
    _column("min_detectable_difference", "Difference two single runs need at 95 %: 1.96 sqrt(2) seed_std.", "lower"),
    _column("ci95_half_width", "Half of the 95 % interval over items, mean over seeds.", "lower"),
    _column("ci95_analytic", "The same as 1.96 standard errors.", "lower"),
    _column("ci95_low", "Lower end of the interval over items, mean over seeds.", "none"),
    _column("ci95_high", "Upper end of the interval over items, mean over seeds.", "none"),
    _column("wilson_low", "Lower end of Wilson's interval over items, where all item scores are 0 or 1.", "none"),
    _column("wilson_high", "Upper end of Wilson's interval.", "none"),
    _column("monotonicity_min", "Lowest tau-b of a seed."),
    _count("n_seeds", "Runs."),
    _count("n_checkpoints", "Checkpoints."),
    _count("n_constant", "Runs whose score never moves: left out of monotonicity."),
)  # fmt: skip
_COMPARE = (
    _column("diff", "Mean of A minus mean of B; turned where lower is better, so above 0 means A is better."),
    _column("z", "diff in standard deviations of the difference of two single runs.", "none"),
    _column("detectable", "1 when |diff| reaches min_detectable_difference.", "none"),
    _column("p_value", "Two-sided: exact permutation of the runs up to 12, Welch's t beyond.", "lower"),
    _column("seed_std", "Standard deviation over seeds, pooled or given.", "lower"),
    _column("min_detectable_difference", "1.96 sqrt(2) seed_std.", "lower"),
    _count("n_a", "Runs of A."),
    _count("n_b", "Runs of B."),
)
_ITEMS = (
    _column("corrected_discrimination", "Correlation over models of the item's score with the others' total."),
    _column("discrimination", "Correlation over models of the item's score with the total."),
    _column("difficulty", "Mean score over models: 1 is easy.", "none"),
    Column("keep", "1 for items that stay once the least discriminating are dropped.", "int64"),
)
_IRT = (
    _column("p_irt", "Estimated score on all items of fit."),
    _column("p_irt_error", "Its standard error.", "lower"),
    _column("theta", "Ability: MAP with a standard normal prior.", "higher"),
    _column("theta_error", "Its standard error.", "lower"),
    _column("seen_mean", "Mean of the answers given."),
    _count("n_seen", "Answers given."),
)
_CHOICES = (
    _column("correct_mass", "Probability of the right option among the options."),
    _column("correct", "1 when the right option has the highest (normalised) log-likelihood."),
    _column("loglikelihood", "Log-likelihood of the right option; its negative is the NLL.", unit="nats"),
    _column("letter_mass", "correct_mass of the letters A, B …; only where a model reads the question."),
    _column("letter_correct", "correct of the letters."),
)
BY_MODE = {"compare": _COMPARE, "items": _ITEMS, "irt": _IRT, "choices": _CHOICES}
