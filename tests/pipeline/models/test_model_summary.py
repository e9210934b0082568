"""The network table: totals, closed-form FLOPs, and that a switch shows in its part alone."""

from __future__ import annotations

import pytest

from pipeline.config import compose
from pipeline.models.build import build_generator
from pipeline.models.summary import as_texts, summarise
from tests.pipeline.models.ca2sis_cases import make

SIZE = (16, 24)


def test_totals_are_the_networks() -> None:
    generator = make(mapping={"enabled": True})
    summary = summarise(generator, SIZE)
    total = sum(p.numel() for p in generator.parameters())
    assert summary.parameters == total == sum(row.parameters for row in summary.rows)
    drawing = sum(row.flops for row in summary.rows if row.part.startswith("mapping."))
    assert drawing > 0 and summary.flops == sum(row.flops for row in summary.rows) - drawing
    assert next(generator.parameters()).device.type == "cpu"  # the network itself is left alone


def test_flops_in_closed_form() -> None:
    rows = {row.part: row for row in summarise(make(), SIZE).rows}
    assert rows["(between parts)"].flops == 2 * 5 * (8 * 24 + 4 * 96)  # means inside masks, at strides 4 and 2
    assert rows["to_rgb"].output == (1, 3, 16, 24)
    assert rows["to_rgb"].flops == 2 * 16 * 24 * 4 * 3
    assert rows["embedder.embed"].flops == 2 * 4 * (8 * 12) * (4 * 6)
    assert rows["encoder.down.0"].flops == 2 * (8 * 12) * 20 * 2 * 9  # 5 classes x 4 features, 2 inputs a group
    pixels, inner, codes = 8 * 12, 16, 5  # stage 1: cross-attention without self-attention, 2 heads x 8, codes 16 wide
    projections = 2 * pixels * 4 * inner * 2
    cross = 2 * (
        pixels * inner * inner * 2 + codes * 16 * inner * 2 + 3 * pixels * codes * inner
    )  # q, out; k, v; qk, av, logits
    feed_forward = 2 * pixels * (inner * 8 * inner + 4 * inner * inner)
    assert rows["stages.1.transformer"].flops == projections + cross + feed_forward


def test_a_switch_shows_in_its_part_alone() -> None:
    one = {row.part: row for row in summarise(make(), SIZE).rows}
    other = {
        row.part: row for row in summarise(make(conditioning=["none", "cross_attention", "cross_attention"]), SIZE).rows
    }
    assert {part for part in one if one[part] != other[part]} == {"stages.0.transformer"}


def test_text_names_parts_totals_and_the_achieved_ratio() -> None:
    summary = summarise(make(encoder={"grouping": "shared_matched"}), SIZE)
    columns, lines = as_texts(summary)
    assert columns == ("part", "output", "parameters", "MFLOPs")
    assert ("stages.2.transformer", "1x4x16x24") in [line[:2] for line in lines]
    assert lines[-1] == ("total", "", f"{summary.parameters:,}", f"{summary.flops / 1e6:,.2f}")
    assert [note.partition(" is ")[0] for note in summary.notes] == ["encoder: parameter count"]


@pytest.mark.parametrize("family", ["ca2sis", "spade", "clade", "oasis", "sean", "inade", "maskgan", "scam", "painter"])
def test_every_family_has_a_table(family: str) -> None:
    generator = build_generator(compose([f"model={family}"]).model, 19, (32, 32))
    summary = summarise(generator, (32, 32))
    assert (
        summary.parameters == sum(p.numel() for p in generator.parameters()) == sum(r.parameters for r in summary.rows)
    )
    assert summary.flops > 0
    images = [row.part for row in summary.rows if row.output == (1, 3, 32, 32)]
    assert bool(images) == (summary.parameters > 0)  # a family's last part makes the image; the painter has no parts


def test_parts_stand_in_the_order_they_run() -> None:
    parts = [row.part for row in summarise(make(), SIZE).rows]
    assert parts.index("encoder.first") < parts.index("encoder.codes.4") < parts.index("encoder.up.1")
    assert parts.index("encoder.up.1") < parts.index("embedder.embed") < parts.index("mix") < parts.index("to_rgb")
