"""The project's own segmenter learns, is cached under a digest of what made it, and is never trained twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.content import content_digest
from pipeline.errors import UserError
from pipeline.evaluation.context import Context, split_source
from pipeline.evaluation.evaluator import evaluate
from pipeline.evaluation.reference import reference_features
from pipeline.evaluation.resume import Resume
from pipeline.metrics.distribution import frechet
from pipeline.metrics.images import ImageBatch, from_uint8
from pipeline.metrics.segmentation import Confusion
from pipeline.metrics.segmenter import Segmenter, external_segmenter, trained_segmenter
from pipeline.metrics.segmenter_networks import UNet, build_network
from pipeline.metrics.segmenter_training import standardised, standards
from pipeline.progress import Quiet
from pipeline.schema.evaluation import SegmenterConfig
from tests.pipeline.metrics.doubles import CLASSES, Echo, faces, painter, protocol

CPU = torch.device("cpu")


def config(**changes: object) -> SegmenterConfig:
    small = {"width": 4, "depth": 1, "iterations": 80, "batch_size": 4, "train_images": 8, "lr": 2e-2, "stopping": None}
    return protocol().segmenter.model_copy(update={**small, **changes})


def judged(segmenter: Segmenter) -> float:
    data, confusion = faces(8, 24, "train"), Confusion(CLASSES)
    for i in range(8):
        images = from_uint8(data[i].image[None])
        confusion.update(segmenter.labels(images), torch.from_numpy(data[i].label[None]).long())
    return confusion.accuracy()


def test_it_learns_is_cached_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = faces(8, 24, "train")
    before = trained_segmenter(config(iterations=1), data, CPU, tmp_path, Quiet())
    after = trained_segmenter(config(), data, CPU, tmp_path, Quiet())
    assert judged(after) > max(0.5, judged(before) + 0.1)
    monkeypatch.setattr("pipeline.metrics.segmenter.train_segmenter", lambda *a: pytest.fail("trained a second time"))
    again = trained_segmenter(config(), faces(8, 24, "train"), CPU, tmp_path, Quiet())
    assert again.digest == after.digest != before.digest
    images = from_uint8(data[0].image[None])
    assert np.array_equal(again.features(images), after.features(images))


def test_training_is_a_function_of_config_and_data_and_leaves_the_random_state_alone() -> None:
    data = faces(8, 24, "train")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = trained_segmenter(config(iterations=3), data, CPU, None, Quiet())
    assert torch.equal(torch.rand(3), expected)
    assert first.digest == trained_segmenter(config(iterations=3), data, CPU, None, Quiet()).digest
    assert first.digest != trained_segmenter(config(iterations=3, seed=1), data, CPU, None, Quiet()).digest


def test_features_are_standardised_over_the_training_images() -> None:
    data = faces(8, 24, "train")
    segmenter = trained_segmenter(config(iterations=5), data, CPU, None, Quiet())
    features = segmenter.features(from_uint8(np.stack([data[i].image for i in range(8)])))
    assert features.shape == (8, segmenter.feature_width)
    assert segmenter.feature_std is not None
    own = segmenter.feature_std.numpy().astype(float)
    floor = 0.1 * np.sqrt(np.mean(own**2))
    assert np.allclose(features.mean(0), 0, atol=1e-4)
    assert np.allclose(features.std(0), np.minimum(own / floor, 1), atol=1e-3), "1, less where a feature hardly varies"


def test_a_feature_that_is_dead_on_real_images_is_not_the_whole_distance() -> None:
    """As found after 6,000 updates: one picture of 128 stirred a dead feature a little, and a distance of 0.1 was 23."""
    rng = np.random.default_rng(0)
    real, fake = (torch.tensor(rng.normal(size=(128, 64)), dtype=torch.float32) * 0.005 for _ in range(2))
    real[:, 30:] = 0.0
    fake[:, 30:] = 0.0
    fake[7, 40] = 4.5e-5
    mean, std = standards(real)
    assert (std[30:] == 1e-6).all()
    same, stirred = (standardised(rows, mean, std) for rows in (fake.index_fill(1, torch.tensor([40]), 0.0), fake))
    reference = standardised(real, mean, std)
    assert torch.equal(reference, (real - mean) / std), "live features are divided by their own deviation"
    moments = [(rows.double().mean(0).numpy(), np.cov(rows.double().numpy().T)) for rows in (reference, same, stirred)]
    distances = [frechet(*moments[0], *other) for other in moments[1:]]
    assert distances[1] == pytest.approx(distances[0], rel=1e-3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (30, 17), (9, 40)])
def test_any_size_goes_through_the_unet(height: int, width: int) -> None:
    network = UNet(5, 4, 3)
    assert network(torch.zeros(2, 3, height, width)).shape == (2, 5, height, width)


def test_the_torchvision_architecture_builds_and_segments() -> None:
    network = build_network(config(architecture="deeplabv3_resnet50"), 5).eval()
    segmenter = Segmenter(network, "", 2048, CPU, {}, torch.zeros(2048), torch.ones(2048))
    images = ImageBatch(torch.rand(1, 3, 32, 32), "unit")
    assert segmenter.labels(images).shape == (1, 32, 32) and segmenter.features(images).shape == (1, 2048)


class Bright(torch.nn.Module):
    """Two classes: dark and bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=1, keepdim=True)
        return torch.cat([-mean, mean], dim=1)


def test_an_external_segmenter_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "bright.pt"
    torch.jit.script(Bright()).save(str(path))
    segmenter = external_segmenter(path, 2, CPU)
    picture = torch.zeros(1, 3, 2, 2)
    picture[..., 1] = 1
    assert segmenter.labels(ImageBatch(picture, "unit")).tolist() == [[[0, 1], [0, 1]]]
    assert segmenter.feature_width is None
    with pytest.raises(UserError, match="not \\(1, 19, 64, 64\\)"):
        external_segmenter(path, 19, CPU)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a readable TorchScript file"):
        external_segmenter(path, 2, CPU)


class Means:
    """Feature extractor double that counts its calls."""

    names, identity, width = ("fd", "kd"), "means", 3

    def __init__(self) -> None:
        self.calls = 0

    def features(self, images: ImageBatch) -> np.ndarray:
        self.calls += 1
        return images.unit().mean(dim=(2, 3)).numpy()


def test_reference_features_are_cached_by_content(tmp_path: Path) -> None:
    extractor = Means()
    data = faces(6, 16, "train")
    context = Context(painter(), data, protocol(), (), 6, CPU, tmp_path, None, Quiet(), Resume(None))
    first, digest = reference_features(extractor, data, 6, context)  # type: ignore[arg-type]
    again, same = reference_features(extractor, faces(6, 16, "train"), 6, context)  # type: ignore[arg-type]
    assert extractor.calls == 1 and np.array_equal(first, again) and digest == same == content_digest(data, 6)
    _, other = reference_features(extractor, data, 5, context)  # type: ignore[arg-type]
    assert extractor.calls == 2 and other != digest
    extractor.identity = "means 2"
    reference_features(extractor, data, 6, context)  # type: ignore[arg-type]
    assert extractor.calls == 3


def test_real_images_are_judged_once_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    labels = Segmenter.labels

    def counting(self: Segmenter, images: ImageBatch) -> torch.Tensor:
        seen.append(len(images))
        return labels(self, images)

    monkeypatch.setattr(Segmenter, "labels", counting)
    cfg = protocol("semantic", segmenter__iterations=2)
    splits = split_source(lambda split: faces(6, split=split))
    found = [
        evaluate(generator, faces(6), cfg, device=CPU, cache=cache, splits=splits)
        for generator, cache in ((Echo(0.5), tmp_path), (Echo(0.5), tmp_path), (painter(), tmp_path), (painter(), None))
    ]
    assert seen == [6, 6, 6, 6, 6, 6], "outputs each time; real images at first and without a cache"
    assert found[0].rows == found[1].rows and found[2].rows == found[3].rows
    fewer = evaluate(Echo(0.5), faces(4), cfg, device=CPU, cache=tmp_path, splits=splits)
    assert seen[6:] == [4, 4], "other images, other answers"
    assert {row.n for row in fewer.rows if row.status == "ok"} == {4}


def test_the_digest_of_drawn_faces_is_remembered_and_right(tmp_path: Path) -> None:
    data = faces(5)
    plain = content_digest(data, 5)
    assert content_digest(data, 5, tmp_path) == content_digest(data, 5, tmp_path) == plain
    assert len(list((tmp_path / "content").iterdir())) == 1
    others = {content_digest(faces(5, split="val"), 5, tmp_path), content_digest(data, 4, tmp_path),
              content_digest(faces(5, 48), 5, tmp_path)}  # fmt: skip
    assert len(others | {plain}) == 4
