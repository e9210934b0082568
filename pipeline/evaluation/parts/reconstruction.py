"""Group `reconstruction`: PSNR, SSIM and RMSE of an image rebuilt from its own style."""

from __future__ import annotations

from pipeline.evaluation.context import Context
from pipeline.evaluation.parts.part import mean_row
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import View
from pipeline.metrics import reconstruction
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.records.rows import MetricRow


class ReconstructionPart:
    """PSNR, SSIM, RMSE of reconstructions, per image."""

    def __init__(self, context: Context) -> None:
        self.range2 = context.protocol.ssim_range2

    def measure(self, view: View) -> Contribution:
        """Per-image values."""
        found = {
            "each/psnr": reconstruction.psnr(view.output, view.target),
            "each/rmse": reconstruction.rmse(view.output, view.target),
        }
        if reconstruction.has_ssim(view.output):
            found["each/ssim"] = reconstruction.ssim(view.output, view.target)
            if self.range2:
                found["each/ssim_range2"] = reconstruction.ssim(view.output, view.target, data_range=2.0)
        return {name: value.cpu().numpy() for name, value in found.items()}

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Means over images."""
        rows = [mean_row(name, totals, make) for name in ("psnr", "rmse")]
        names = ("ssim", "ssim_range2") if self.range2 else ("ssim",)
        if not totals.has("each/ssim"):
            reason = f"images are smaller than the SSIM window of {reconstruction.SSIM_WINDOW} pixels"
            return rows + [make.not_applicable(name, reason) for name in names]
        return rows + [mean_row(name, totals, make) for name in names]
