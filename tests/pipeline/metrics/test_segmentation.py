"""IoU, accuracy, attention agreement."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.metrics.attention import AttentionAgreement, leakage_and_entropy, nearest_label
from pipeline.metrics.segmentation import Confusion
from pipeline.models.head_maps import level_names


def test_iou_by_hand() -> None:
    confusion = Confusion(3)
    label = torch.tensor([[0, 0, 1, 1]])
    confusion.update(torch.tensor([[0, 1, 1, 2]]), label)
    iou = confusion.iou()
    assert iou[:2] == pytest.approx([1 / 2, 1 / 3]) and math.isnan(iou[2])  # class 2 is in no label
    assert confusion.mean_iou() == pytest.approx(5 / 12)
    assert confusion.accuracy() == 0.5


def test_equal_to_torchmetrics_and_additive_over_batches() -> None:
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 5, (6, 16, 16), generator=generator)
    found = torch.where(torch.rand(label.shape, generator=generator) < 0.6, label, label.flip(0))
    whole, parts = Confusion(5), Confusion(5)
    whole.update(found, label)
    for i in (5, 0, 3, 1, 4, 2):
        parts.update(found[i : i + 1], label[i : i + 1])
    assert torch.equal(whole.counts, parts.counts)
    theirs = multiclass_jaccard_index(found, label, num_classes=5, average="none")
    assert whole.iou() == pytest.approx(theirs.tolist(), abs=1e-6)
    theirs = multiclass_accuracy(found, label, num_classes=5, average="micro")
    assert whole.accuracy() == pytest.approx(float(theirs), abs=1e-6)


def test_ignored_pixels_count_nowhere_and_foreign_ids_raise() -> None:
    confusion = Confusion(3, ignore=2)
    confusion.update(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 2]))
    assert confusion.mean_iou() == 1.0 and int(confusion.counts.sum()) == 2
    with pytest.raises(ValueError, match="outside"):
        confusion.update(torch.tensor([3]), torch.tensor([0]))
    with pytest.raises(ValueError, match="without any"):
        Confusion(2).mean_iou()


def test_attention_that_is_the_mask_agrees_perfectly_and_uniform_attention_does_not() -> None:
    label = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(label, 4).permute(0, 3, 1, 2).float()
    leak, entropy = leakage_and_entropy(one_hot * 100, label)
    assert leak.tolist() == pytest.approx([0, 0], abs=1e-9) and entropy.tolist() == pytest.approx([0, 0], abs=1e-9)
    leak, entropy = leakage_and_entropy(torch.zeros(2, 4, 8, 8), label)
    assert leak.tolist() == pytest.approx([0.75, 0.75]) and entropy.tolist() == pytest.approx([1, 1])
    agreement = AttentionAgreement(4)
    agreement.update([one_hot[..., ::2, ::2], one_hot], label)
    values = agreement.values()
    assert values["attention_miou"] == values["attention_miou_4"] == values["attention_miou_8"] == 1.0
    blurred = AttentionAgreement(4)
    blurred.update([one_hot + 2 * torch.rand(one_hot.shape, generator=torch.Generator().manual_seed(1))], label)
    assert blurred.values()["attention_miou"] < 1.0


def test_attention_is_additive_over_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 4, (3, 8, 8), generator=generator)
    logits = torch.randn(3, 4, 4, 4, generator=generator)
    whole, parts = AttentionAgreement(4), AttentionAgreement(4)
    whole.update([logits], label)
    for i in range(3):
        parts.update([logits[i : i + 1]], label[i : i + 1])
    assert parts.values() == pytest.approx(whole.values())


def test_labels_shrink_by_nearest_and_levels_have_names() -> None:
    label = torch.arange(16).view(1, 4, 4)
    assert nearest_label(label, 2, 2).tolist() == [[[0, 2], [8, 10]]]
    assert level_names([8, 8, 16]) == [
        "8",
        "8_2",
        "16",
    ]
    with pytest.raises(ValueError, match="no attention"):
        AttentionAgreement(2).update([], label)
