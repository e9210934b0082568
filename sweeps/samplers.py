"""Samplers and pruners by name.

A sampler is made anew for every trial, seeded with (sweep seed, trial number): a restarted sweep does not replay its first
proposals, workers do not propose the same points, and one worker's sweep is reproducible.
"""

from __future__ import annotations

import hashlib
import warnings

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from pipeline.errors import UserError
from sweeps.sweep import Pruner, Sampler


def make_sampler(settings: Sampler, number: int) -> BaseSampler:
    """The sampler for trial `number`."""
    seed = int.from_bytes(hashlib.sha256(f"{settings.seed}/{number}".encode()).digest()[:4], "big") % 2**31
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if settings.kind == "tpe":
            return TPESampler(
                multivariate=True, group=True, constant_liar=True, n_startup_trials=settings.startup, seed=seed
            )
        if settings.kind == "nsga2":
            return NSGAIISampler(population_size=settings.population, seed=seed)
        if settings.kind == "qmc":  # its sequence is one for all workers; the storage says who takes which point
            return QMCSampler(scramble=True, seed=settings.seed, independent_sampler=RandomSampler(seed=seed))
        if settings.kind == "random":
            return RandomSampler(seed=seed)
        try:
            import cmaes  # noqa: F401
        except ImportError as error:
            raise UserError("sampler cmaes needs the package cmaes: pip install 'ca2sis-lab[sweeps]'") from error
        return CmaEsSampler(n_startup_trials=settings.startup, seed=seed, independent_sampler=RandomSampler(seed=seed))


def make_pruner(settings: Pruner, iterations: int) -> BasePruner:
    """The pruner for runs of `iterations` iterations; steps are iterations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if settings.kind == "median":
            return MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.min_iterations)
        if settings.kind == "asha":
            return SuccessiveHalvingPruner(min_resource=settings.min_iterations, reduction_factor=settings.reduction)
        if settings.kind == "hyperband":
            most = max(iterations, settings.min_iterations)
            return HyperbandPruner(settings.min_iterations, most, settings.reduction)
    return NopPruner()
