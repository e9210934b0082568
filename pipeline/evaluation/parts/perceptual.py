"""HaarPSI, LPIPS and DISTS over the image stream; the last two without weights: rows that say so."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.evaluation.context import Context
from pipeline.evaluation.parts.part import mean_row
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import View
from pipeline.metrics import haarpsi
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.perceptual import Dists, Lpips, PerceptualDistance, too_small
from pipeline.records.rows import MetricRow
from pipeline.weights import WeightsMissing

WEIGHTED = ("lpips_recon_alex", "lpips_recon_vgg", "dists")


class PerceptualPart:
    """`haarpsi`, `lpips_recon_alex`, `lpips_recon_vgg`, `dists`, per image."""

    def __init__(self, context: Context) -> None:
        folder, device = context.protocol.weights_dir, context.device
        makers: dict[str, Callable[[], PerceptualDistance]] = {
            "lpips_recon_vgg": lambda: Lpips("vgg", folder, device),
            "dists": lambda: Dists(folder, device),
        }
        self.metrics: dict[str, PerceptualDistance] = {}
        self.missing: dict[str, str] = {}
        height, width = context.dataset.height, context.dataset.width
        self.no_haarpsi = haarpsi.why_not(height, width)
        self.small = too_small(height, width)
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
        """Per-image similarities and distances of output and target."""
        found = {name: metric.distance(view.output, view.target) for name, metric in self.metrics.items()}
        if not self.no_haarpsi:
            found["haarpsi"] = haarpsi.haarpsi(view.output, view.target)
        return {f"each/{name}": values.cpu().numpy() for name, values in found.items()}

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Means over images, or why there is none."""
        rows = []
        if self.no_haarpsi:
            rows.append(make.not_applicable("haarpsi", self.no_haarpsi))
        else:
            rows.append(mean_row("haarpsi", totals, make))
        for name in WEIGHTED:
            if self.small:
                rows.append(make.not_applicable(name, self.small))
            elif name in self.metrics:
                rows.append(mean_row(name, totals, make, weights=self.metrics[name].weights_digest))
            else:
                rows.append(make.unavailable(name, self.missing[name]))
        return rows
