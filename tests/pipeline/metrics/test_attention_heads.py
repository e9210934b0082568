"""Single attention heads: scores by hand in every form of the computation, and rows that tell a good head from a bad one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.config import compose
from pipeline.evaluation.evaluator import evaluate
from pipeline.evaluation.stages.attention_heads import HEAD_IMAGES, head_logits
from pipeline.models.attention import Attention
from pipeline.models.build import build_generator
from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.models.head_maps import heads_observed, observed_heads, show_heads
from pipeline.models.kernels import Form, kernel_form
from tests.pipeline.metrics.doubles import CLASSES, Echo, faces, protocol

CPU = torch.device("cpu")


def two_heads() -> Attention:
    """Two heads of width 1 on two channels: head 0 compares the first channel of pixel and code, head 1 the second."""
    layer = Attention(2, 2, heads=2, head_width=1)
    with torch.no_grad():
        for projection in (layer.to_q, layer.to_k, layer.to_v, layer.to_out):
            projection.weight.copy_(torch.eye(2))
    return layer


def test_scores_of_heads_by_hand() -> None:
    pixels = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])  # (1,P=3,2)
    codes = torch.tensor([[[1.0, -1.0], [5.0, 2.0]]])  # (1,K=2,2)
    expected = torch.tensor([[[[1.0, 5.0], [2.0, 10.0], [3.0, 15.0]], [[-10.0, 20.0], [-20.0, 40.0], [-30.0, 60.0]]]])
    forms: tuple[Form, ...] = ("plain", "naive")
    for form in forms:
        with kernel_form(form), observed_heads() as seen, torch.no_grad():
            _, mean = two_heads()(pixels, codes, logits=True)
        assert mean is not None and len(seen) == 1
        torch.testing.assert_close(seen[0], expected)
        torch.testing.assert_close(seen[0].mean(dim=1), mean)


def test_nothing_is_built_where_nobody_listens_or_asks() -> None:
    layer, x, codes = two_heads(), torch.ones(1, 3, 2), torch.ones(1, 2, 2)
    layer(x, codes, logits=True)
    assert not heads_observed()
    with observed_heads() as seen:
        layer(x, codes, logits=False)
        layer(x)
    show_heads(torch.zeros(1, 2, 3, 2))
    assert seen == [] and not heads_observed()


@pytest.mark.parametrize("form", ["fast", "plain", "naive"])
def test_heads_of_the_decoder_average_to_its_logits(form: Form) -> None:
    torch.manual_seed(0)
    generator = build_generator(compose(["size=32"]).model, CLASSES, (32, 32)).eval()
    image, label = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randint(0, CLASSES, (2, 32, 32))
    mask = torch.nn.functional.one_hot(label, CLASSES).permute(0, 3, 1, 2).float()
    with torch.no_grad(), kernel_form(form):
        style = generator.encode_style(image, mask)
        plain = generator.synthesize(mask, style)
        heads = head_logits(generator, mask, style)
        again = generator.synthesize(mask, style)
    assert torch.equal(plain.image, again.image)
    for level in plain.attention:
        own = [maps for name, maps in heads.items() if name.startswith(f"{level.shape[-2]}_head")]
        assert len(own) > 1 and not torch.allclose(own[0], own[1], atol=1e-5)
        torch.testing.assert_close(torch.stack(own).mean(dim=0), level, rtol=1e-3, atol=1e-5)


class GoodAndBadHead(Generator):
    """Head 0 is the mask; head 1 takes every class for the next one. Their mean is undecided between the two."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes, self.stride = CLASSES, 1
        self.capabilities = Capabilities(style="none", attention=True)

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        return mask.new_zeros(len(mask), 0)

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        heads = torch.stack([mask * 100, mask.roll(1, dims=1) * 100], dim=1)  # (N,2,K,H,W)
        show_heads(heads.flatten(3).transpose(2, 3))
        return Synthesis(mask[:, :3] * 2 - 1, [heads.mean(dim=1)] if attention else [])


def test_rows_tell_a_good_head_from_a_bad_one() -> None:
    found = evaluate(GoodAndBadHead(), faces(6), protocol("attention"), device=CPU)
    rows = {row.name: row for row in found.rows}
    good, bad = (rows[f"attention_miou_32_head{i}"] for i in (0, 1))
    assert good.value == 1.0 and bad.value == 0.0
    assert good.n == 6 <= HEAD_IMAGES and good.direction == "max"
    assert good.fingerprint != rows["attention_miou_32"].fingerprint
    assert rows["attention_leakage_32_head0"].value == pytest.approx(0, abs=1e-9)
    assert rows["attention_leakage_32_head1"].value == pytest.approx(1)
    # The averaged logits are undecided between two classes: half the probability leaks, ln 2 / ln K of entropy.
    assert rows["attention_leakage"].value == pytest.approx(0.5)
    assert rows["attention_entropy_32_head0"].value == pytest.approx(0, abs=1e-9)


def test_heads_are_looked_at_in_trained_families_with_attention_only() -> None:
    untrained = evaluate(GoodAndBadHead(), faces(3), protocol("attention"), device=CPU, state="untrained")
    without = evaluate(Echo(), faces(3), protocol("attention"), device=CPU)
    assert not any("head" in row.name for row in [*untrained.rows, *without.rows])
