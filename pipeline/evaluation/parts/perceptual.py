"""LPIPS and DISTS over the image stream; without weights, rows that say so."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.evaluation.context import Context
from pipeline.evaluation.parts.part import mean_row
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import View
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.perceptual import Dists, Lpips, PerceptualDistance, too_small
from pipeline.records.rows import MetricRow
from pipeline.weights import WeightsMissing

NAMES = ("lpips_recon_alex", "lpips_recon_vgg", "dists")


class PerceptualPart:
    """`lpips_recon_alex`, `lpips_recon_vgg`, `dists`, per image."""

    def __init__(self, context: Context) -> None:
        folder, device = context.protocol.weights_dir, context.device
        makers: dict[str, Callable[[], PerceptualDistance]] = {
            "lpips_recon_vgg": lambda: Lpips("vgg", folder, device),
            "dists": lambda: Dists(folder, device),
        }
        self.metrics: dict[str, PerceptualDistance] = {}
        self.missing: dict[str, str] = {}
        self.small = too_small(context.dataset.height, context.dataset.width)
        if self.small:
            return
        alex, self.missing["lpips_recon_alex"] = context.lpips
        if alex is not None:
            self.metrics["lpips_recon_alex"] = alex
        for name, maker in makers.items():
            try:
                self.metrics[name] = maker()
            except WeightsMissing as error:
                self.missing[name] = str(error)

    def measure(self, view: View) -> Contribution:
        """Per-image distances of output and target."""
        return {
            f"each/{name}": metric.distance(view.output, view.target).cpu().numpy()
            for name, metric in self.metrics.items()
        }

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Means over images, or why there is none."""
        rows = []
        for name in NAMES:
            if self.small:
                rows.append(make.not_applicable(name, self.small))
            elif name in self.metrics:
                rows.append(mean_row(name, totals, make, weights=self.metrics[name].weights_digest))
            else:
                rows.append(make.unavailable(name, self.missing[name]))
        return rows
