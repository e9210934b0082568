"""Statistics of paired runs: summaries, intervals, tests, effect sizes, factorial effects, correlation."""

from analysis.statistics.correlation import Correlation, correlate_metrics, correlation
from analysis.statistics.effects import (
    EffectSize,
    effect_size,
    minimum_detectable_effect,
    power_of_paired_t,
)
from analysis.statistics.factorial import Factorial, analyse_factorial
from analysis.statistics.intervals import Interval, hierarchical_interval, seeds_to_decide
from analysis.statistics.summary import FEW_SEEDS, Summary, interquartile_mean, summarise
from analysis.statistics.tests import (
    TestResult,
    holm,
    paired_permutation_test,
    paired_t_test,
    paired_test,
    wilcoxon_test,
)

__all__ = [
    "FEW_SEEDS",
    "Correlation",
    "EffectSize",
    "Factorial",
    "Interval",
    "Summary",
    "TestResult",
    "analyse_factorial",
    "correlate_metrics",
    "correlation",
    "effect_size",
    "hierarchical_interval",
    "holm",
    "interquartile_mean",
    "minimum_detectable_effect",
    "paired_permutation_test",
    "paired_t_test",
    "paired_test",
    "power_of_paired_t",
    "seeds_to_decide",
    "summarise",
    "wilcoxon_test",
]
