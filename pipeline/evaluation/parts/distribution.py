"""Fréchet and kernel distances over the stream: FID and KID on Inception, fd_seg and kd_seg on the own segmenter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.context import Context
from pipeline.evaluation.reference import reference_features
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import View
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.distribution import Moments, frechet, frechet_interval, kernel_distance
from pipeline.metrics.features import FeatureExtractor, InceptionFeatures, SegmenterFeatures
from pipeline.records.rows import MetricRow
from pipeline.weights import WeightsMissing

NAMES = {"inception": InceptionFeatures.names, "segmenter": SegmenterFeatures.names}


class DistributionPart:
    """Features of every reconstruction are kept (some kilobytes an image); the images are not."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.cfg = context.protocol.distribution
        self.extractors: dict[str, FeatureExtractor] = {}
        self.missing: dict[str, str] = {}
        for kind in self.cfg.features:
            try:
                self.extractors[kind] = self._extractor(kind)
            except WeightsMissing as error:
                self.missing[kind] = str(error)
        # Before the stream, in all processes: rows are made by the main one alone.
        self.real = {kind: self._real(extractor) for kind, extractor in self.extractors.items()}

    def _real(self, extractor: FeatureExtractor) -> tuple[NDArray[np.float32], str]:
        """Features of the real images compared with, and their digest."""
        assert self.context.splits is not None, "extractors exist only with splits"
        reference = self.context.splits(self.cfg.reference_split)
        wanted = self.cfg.reference_images
        total = len(reference) if wanted is None else min(wanted, len(reference))
        return reference_features(extractor, reference, total, self.context)

    def _extractor(self, kind: str) -> FeatureExtractor:
        if self.context.splits is None:
            raise WeightsMissing(f"the reference split {self.cfg.reference_split} was not given to the evaluation")
        if kind == "inception":
            return InceptionFeatures(self.context.protocol.weights_dir, self.context.device)
        segmenter, reason = self.context.segmenter
        if segmenter is None:
            raise WeightsMissing(reason)
        return SegmenterFeatures(segmenter)

    def measure(self, view: View) -> Contribution:
        """Feature rows of the outputs, rounded to 8 bits as the real images are."""
        images = view.output.quantised()
        return {f"feat/{kind}": extractor.features(images) for kind, extractor in self.extractors.items()}

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Distance, interval, kernel distance, and the floor between two halves of the real images."""
        rows = [make.unavailable(name, reason) for kind, reason in self.missing.items() for name in NAMES[kind]]
        for kind, extractor in self.extractors.items():
            rows += self._distances(extractor, totals.stacked(f"feat/{kind}"), *self.real[kind], make)
        return rows

    def _distances(
        self, extractor: FeatureExtractor, features: NDArray, real: NDArray, content: str, make: RowMaker
    ) -> list[MetricRow]:
        cfg, total = self.cfg, len(real)
        settings: dict[str, Any] = {
            "features": extractor.identity,
            "reference": content,
            "reference_split": cfg.reference_split,
            "n_reference": total,
        }
        frechet_name, kernel_name = extractor.names
        n = len(features)
        if min(n, total) < 2:
            reason = f"needs at least 2 images of either kind, got {n} generated and {total} real"
            return [make.unavailable(name, reason, **settings) for name in extractor.names]
        moments, real_moments = Moments.of(features), Moments.of(real)
        value = frechet(real_moments.mean, real_moments.covariance, moments.mean, moments.covariance)
        rows = [make.ok(frechet_name, value, n, note=rank_note(min(n, total), extractor.width), **settings)]
        if cfg.bootstrap:
            interval = frechet_interval(
                real_moments.mean, real_moments.covariance, features, resamples=cfg.bootstrap, seed=cfg.seed
            )
            how = {**settings, "resamples": cfg.bootstrap, "seed": cfg.seed}
            rows.append(make.ok(f"{frechet_name}_low", interval.low, n, **how))
            rows.append(make.ok(f"{frechet_name}_high", interval.high, n, **how))
        drawing: dict[str, Any] = {"subsets": cfg.kid_subsets, "subset_size": cfg.kid_subset_size, "seed": cfg.seed}
        kernel = kernel_distance(real, features, **drawing)
        note = (
            ""
            if kernel.subset_size == cfg.kid_subset_size
            else f"subsets of {kernel.subset_size} images: no more there"
        )
        rows.append(make.ok(kernel_name, 1000.0 * kernel.mean, n, note=note, **settings, **drawing))
        if cfg.floor and total >= 4:
            halves = [Moments.of(real[start::2]) for start in (0, 1)]
            floor = frechet(halves[0].mean, halves[0].covariance, halves[1].mean, halves[1].covariance)
            note = rank_note(total // 2, extractor.width)
            rows.append(make.ok(f"{frechet_name}_floor", floor, total // 2, note=note, **settings))
            low = kernel_distance(real[0::2], real[1::2], **drawing)
            rows.append(make.ok(f"{kernel_name}_floor", 1000.0 * low.mean, total // 2, **settings, **drawing))
        return rows


def rank_note(n: int, width: int) -> str:
    """What to know about a covariance of `n` rows in `width` dimensions; "" where it has full rank."""
    return f"rank-deficient: {n} images for {width} features" if n <= width else ""
