"""Comparing arms of a study: paired by seed value, and by test image where per-image values were recorded.

Differences are always arm minus reference, in the metric's unit; `advantage` turns the sign so that positive is better.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.intervals import Interval, hierarchical_interval
from analysis.statistics.tests import Method, TestResult, holm, paired_test
from analysis.study import Study

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class Comparison:
    """One arm against the reference on one metric, over the seeds that both have."""

    arm: str
    reference: str
    metric: str
    direction: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]  # one a seed
    interval: Interval | None  # None for one seed without per-image values
    test: TestResult | None  # None for one seed: nothing can be said about training noise
    p_holm: float | None = None  # corrected within the declared family
    images: int = 1  # test images paired; 1: seeds alone

    @property
    def difference(self) -> float:
        return sum(self.differences) / len(self.differences)

    @property
    def advantage(self) -> float:
        """The difference with the sign turned so that positive is better."""
        return -self.difference if self.direction == "min" else self.difference

    @property
    def stars(self) -> str:
        """Significance marks by the corrected p-value."""
        p_value = self.p_holm
        return next((mark for limit, mark in STARS if p_value is not None and p_value < limit), "")


def generator_for(*names: str) -> np.random.Generator:
    """A generator that depends on the names alone: results neither change between calls nor with the order of arms."""
    text = "\x1f".join(names)
    return np.random.default_rng(np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint32))


def compare(
    study: Study,
    metric: str,
    direction: str,
    arm: str,
    reference: str,
    values: Mapping[str, Mapping[int, float]],
    *,
    fingerprint: str | None = None,
    level: float = 0.95,
    method: Method = "auto",
    images: bool = True,
) -> Comparison | None:
    """Compare two arms by `values` ({arm: {seed: value}}); None when they share no seed.

    `images` pairs by test image as well, when the per-image values agree with the run values.
    """
    seeds = tuple(sorted(set(values.get(arm, {})) & set(values.get(reference, {}))))
    if not seeds:
        return None
    differences = np.array([values[arm][seed] - values[reference][seed] for seed in seeds])
    matrix = differences[:, None]
    if images:
        matrix = paired_matrix(study, metric, arm, reference, seeds, values, fingerprint)
    generator = generator_for(study.name, metric, arm, reference)
    interval = hierarchical_interval(matrix, level=level) if matrix.size > 1 else None
    test = paired_test(differences.tolist(), generator, method=method) if len(seeds) > 1 else None
    return Comparison(
        arm,
        reference,
        metric,
        direction,
        seeds,
        tuple(map(float, differences)),
        interval,
        test,
        images=matrix.shape[1],
    )


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Fill in Holm's corrected p-values; the comparisons passed are the family."""
    tested = [item for item in comparisons if item.test is not None]
    corrected = iter(holm([item.test.p_value for item in tested if item.test is not None]))
    return [
        dataclasses.replace(item, p_holm=next(corrected)) if item.test is not None else item for item in comparisons
    ]


def paired_matrix(
    study: Study,
    metric: str,
    arm: str,
    reference: str,
    seeds: Sequence[int],
    values: Mapping[str, Mapping[int, float]],
    fingerprint: str | None,
    *,
    scale: float = 1.0,
) -> np.ndarray:
    """Differences arm - scale * reference, shape (seeds, images).

    (seeds, 1) where no per-image values fit the run values.

    A metric of a whole image set (FID, or a PSNR of the mean error) is no mean over images: then only seeds are
    paired.
    """
    whole = np.array([[values[arm][seed] - scale * values[reference][seed]] for seed in seeds])
    matrices = _per_image(study, metric, arm, reference, seeds, fingerprint)
    if matrices is None:
        return whole
    matrix = matrices[0] - scale * matrices[1]
    agrees = np.allclose(matrix.mean(axis=1), whole[:, 0], rtol=1e-4, atol=1e-6)
    return matrix if agrees else whole


def _per_image(
    study: Study, metric: str, arm: str, reference: str, seeds: Sequence[int], fingerprint: str | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Values of both arms (seeds, images) over the images that all runs involved have; None where there are none."""
    values = study.per_image(metric, protocol_fingerprint=fingerprint, arms=(arm, reference))
    values = values[values["seed"].isin(seeds)]
    if values.empty or values.duplicated(["arm", "seed", "key"]).any():
        return None
    wide = values.pivot(index="key", columns=["arm", "seed"], values="value")
    needed = pd.MultiIndex.from_product([[arm, reference], seeds])
    if not needed.isin(wide.columns).all():
        return None
    wide = wide[needed].dropna().sort_index()
    if wide.empty:
        return None
    first, second = (wide[name][list(seeds)].to_numpy(dtype=np.float64).T for name in (arm, reference))
    return first, second
