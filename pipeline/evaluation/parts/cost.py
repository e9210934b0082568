"""Group `cost`: what a generator costs; times are taken along the stream, the rest once at its end."""

from __future__ import annotations

from pipeline.evaluation.context import Context
from pipeline.evaluation.inversion import Inverted, feed_forward
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import View
from pipeline.metrics import cost
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.records.rows import MetricRow


class CostPart:
    """Parameters, FLOPs, latency, throughput and memory; they belong to no split."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.throughput = cost.Throughput()  # of this attempt alone: another one may have run on another machine

    def measure(self, view: View) -> Contribution:
        """Nothing that is kept: the clock is noted."""
        self.throughput.add(len(view.batch.keys), view.seconds)
        return {}

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """One row a cost; times and memory under the name of the hardware."""
        context = self.context
        generator, device = feed_forward(context.generator), context.device
        sample = context.batch(0, 1).to(device)
        where = {"hardware": cost.hardware(device)}
        bare = RowMaker(
            make.protocol, "", make.state, {"size": make.data["size"], "label_space": make.data["label_space"]}
        )
        speed = self.throughput.images_per_s()
        inversion = self._inversion(bare, where)
        if speed is not None and inversion.value is not None:
            speed = 1.0 / (1.0 / speed + inversion.value)  # the stream found the codes done
        return [
            inversion,
            bare.ok("params", cost.parameter_count(generator), 1),
            bare.ok("flops_per_image", cost.flops_per_image(generator, sample.image, sample.mask), 1),
            bare.ok("latency_ms", cost.latency_ms(generator, sample.image, sample.mask), 1, **where),
            bare.unavailable(
                "eval_images_per_s", "every batch was measured by an earlier, interrupted attempt", **where
            )
            if speed is None
            else bare.ok("eval_images_per_s", speed, context.total, batch_size=context.protocol.batch_size, **where),
            bare.ok("peak_mem_gib", cost.peak_memory_gib(device.type), 1, **where),
        ]

    def _inversion(self, make: RowMaker, where: dict[str, str]) -> MetricRow:
        """Seconds of inversion a photo, under the name of the budget."""
        generator = self.context.generator
        if not isinstance(generator, Inverted):
            reason = "feed-forward: a style takes one pass, which the latency counts"
            return make.not_applicable("inversion_s_per_image", reason, **where)
        budget = {"budget": generator.budget.identity_values(), "term": generator.term}
        seconds = sum(generator.seconds) / len(generator.seconds)
        return make.ok("inversion_s_per_image", seconds, len(generator.seconds), note=generator.note, **budget, **where)
