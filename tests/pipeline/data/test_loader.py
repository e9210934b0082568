"""Feeding: order and augmentation are pure functions of (seed, epoch); resuming in mid-epoch is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import Dataset, build_dataset
from pipeline.data.batch import Batch, image_array, image_tensor, one_hot
from pipeline.data.loader import batches, batches_per_epoch, epoch_order
from pipeline.data.speed import feeding_speed
from pipeline.errors import UserError
from pipeline.schema.data import Augment, LabelNoise
from tests.pipeline.data.samples import data_config, face, write_folder

MIRROR = Augment(mirror=True, load_scale=1.0)
CROP = Augment(mirror=True, load_scale=1.25)


@pytest.fixture(scope="module")
def faces() -> Dataset:
    return build_dataset(data_config(train_images=10, load_scale=1.25, instances=True), "train")


def epoch(dataset: Dataset, number: int = 0, **options: object) -> list[Batch]:
    settings = {"batch_size": 3, "seed": 4, "epoch": number, "augment": CROP} | options
    return list(batches(dataset, **settings))  # type: ignore[arg-type]


def equal(a: Batch, b: Batch) -> bool:
    assert a.instance is not None and b.instance is not None
    return (
        a.keys == b.keys
        and torch.equal(a.image, b.image)
        and torch.equal(a.mask, b.mask)
        and torch.equal(a.instance, b.instance)
    )


@given(n=st.integers(1, 40), batch_size=st.integers(1, 16), seed=st.integers(0, 2**31), number=st.integers(0, 99))
def test_order_visits_all_alike(n: int, batch_size: int, seed: int, number: int) -> None:
    order = epoch_order(n, batch_size=batch_size, seed=seed, epoch=number)
    assert len(order) == batches_per_epoch(n, batch_size) * batch_size
    visits = np.bincount(order, minlength=n)
    assert visits.max() - visits.min() <= 1
    assert np.array_equal(order, epoch_order(n, batch_size=batch_size, seed=seed, epoch=number))


def test_order_changes_with_seed_and_epoch() -> None:
    orders = {tuple(epoch_order(50, batch_size=5, seed=s, epoch=e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


def test_resume_in_mid_epoch_is_exact(faces: Dataset) -> None:
    whole = epoch(faces, 2)
    assert len(whole) == 3
    for start in range(3):
        rest = epoch(faces, 2, start=start)
        assert len(rest) == 3 - start
        assert all(equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(faces: Dataset, workers: int) -> None:
    assert all(equal(a, b) for a, b in zip(epoch(faces), epoch(faces, workers=workers), strict=True))


def test_stopping_early_ends_the_workers(faces: Dataset) -> None:
    import threading

    stream = batches(faces, batch_size=2, seed=0, epoch=0, augment=None, workers=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_augmentation_differs_between_epochs_and_keeps_labels_true(faces: Dataset) -> None:
    """A mirrored sample equals the mirror of the plain one, sides exchanged; over epochs both occur."""
    dataset = build_dataset(data_config(train_images=1), "train")
    plain = dataset[0]
    mirrored = dataset.label_space.mirror(plain.label)
    kinds = set()
    for number in range(12):
        batch = next(batches(dataset, batch_size=1, seed=0, epoch=number, augment=MIRROR))
        label, image = batch.label[0].numpy(), image_array(batch.image)[0]
        flipped = np.array_equal(label, mirrored)
        assert flipped or np.array_equal(label, plain.label)
        assert np.array_equal(image, plain.image[:, ::-1] if flipped else plain.image)
        kinds.add(flipped)
    assert kinds == {True, False}
    crops = {epoch(faces, n, batch_size=1)[0].image.sum().item() for n in range(4)}
    assert len(crops) == 4


def test_label_noise_damages_a_share_of_the_maps_and_no_photo() -> None:
    dataset = build_dataset(data_config(train_images=40), "train")
    clean = Augment(mirror=True, load_scale=1.0)
    shares = []
    for probability in (0.0, 0.5, 1.0):
        noise = LabelNoise(probability=probability, kinds=("jitter", "dilation", "random"), level=1.0)
        noisy = clean.model_copy(update={"label_noise": noise})
        before, after = (
            next(batches(dataset, batch_size=40, seed=1, epoch=0, augment=augment)) for augment in (clean, noisy)
        )
        assert torch.equal(before.image, after.image) and before.keys == after.keys
        assert torch.equal(after.mask.argmax(1), after.label) and bool((after.mask.sum(1) == 1).all())
        shares.append(float((before.label != after.label).flatten(1).any(1).float().mean()))
        again = next(batches(dataset, batch_size=40, seed=1, epoch=0, augment=noisy, workers=3))
        assert torch.equal(again.label, after.label), "a function of seed, epoch and place in the order"
    assert shares[0] == 0 and 0.25 < shares[1] < 0.75 and shares[2] > 0.9


def test_label_noise_is_no_stronger_than_asked_for() -> None:
    """The level is drawn up to `level`: half of it, half of the lost labels at most."""
    dataset = build_dataset(data_config(train_images=20), "train")
    lost = []
    for level in (1.0, 0.2):
        noise = LabelNoise(probability=1.0, kinds=("random",), level=level)
        augment = Augment(mirror=False, load_scale=1.0, label_noise=noise)
        batch = next(batches(dataset, batch_size=20, seed=0, epoch=0, augment=augment))
        plain = next(batches(dataset, batch_size=20, seed=0, epoch=0, augment=Augment(mirror=False, load_scale=1.0)))
        share = (batch.label != plain.label).flatten(1).float().mean(1)
        assert share.max() < 0.15 * level
        lost.append(share.mean())
    assert lost[0] > 3 * lost[1] > 0


def test_no_augmentation_gives_the_samples(faces: Dataset) -> None:
    batch = next(batches(faces, batch_size=2, seed=0, epoch=0, augment=None))
    sample = faces[faces.keys.index(batch.keys[1])]
    assert np.array_equal(image_array(batch.image)[1], sample.image)
    assert np.array_equal(batch.label[1].numpy(), sample.label)


def test_a_set_smaller_than_a_batch_fills_it() -> None:
    dataset = build_dataset(data_config(train_images=3), "train")
    (batch,) = batches(dataset, batch_size=8, seed=0, epoch=0, augment=MIRROR)
    assert batch.image.shape == (8, 3, 32, 32)
    assert {batch.keys.count(key) for key in dataset.keys} == {2, 3}


@pytest.mark.parametrize("cache", ["memory", "mapped"])
@pytest.mark.parametrize("load_scale", [1.0, 1.25])
def test_caches_change_nothing(tmp_path: Path, cache: str, load_scale: float) -> None:
    options = {"train_images": 5, "instances": True, "load_scale": load_scale, "cache_root": str(tmp_path)}
    plain, cached = (build_dataset(data_config(cache=c, **options), "train") for c in ("none", cache))
    again = build_dataset(data_config(cache=cache, **options), "train")
    for dataset in (cached, again):
        for index in (4, 0, 4):
            for a, b in ((plain[index], dataset[index]), (plain.for_training(index), dataset.for_training(index))):
                assert a.key == b.key
                assert np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label)
                assert np.array_equal(a.instance, b.instance)  # type: ignore[arg-type]


def test_memory_has_a_budget() -> None:
    from pipeline.data.memory import InMemory

    source = build_dataset(data_config(train_images=4), "train")
    cached = InMemory(source, budget_bytes=2 * 32 * 32 * 4)
    first = [cached[index] for index in range(4)]
    again = [cached[index] for index in range(4)]
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True, False, False]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))


def test_values_and_masks() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    tensor = image_tensor(levels)
    assert tensor.dtype == torch.float32 and tensor.min() == -1 and tensor.max() == 1
    assert np.array_equal(image_array(tensor), levels)
    mask = one_hot(torch.tensor([[[0, 2], [1, 2]]]), 3)
    assert mask.argmax(1).tolist() == [[[0, 2], [1, 2]]] and torch.equal(mask.sum(1), torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match=r"0\.\.3 outside 0\.\.2"):
        one_hot(torch.tensor([[[0, 3]]]), 3)


def test_two_writers_of_one_mapped_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One builds, the other waits for it; what a killed writer left behind is removed."""
    from concurrent.futures import ThreadPoolExecutor

    from pipeline.data import mapped

    built: list[int] = []
    write = mapped._write
    monkeypatch.setattr(mapped, "_write", lambda *given: (built.append(1), write(*given))[1])
    cfg = data_config(train_images=6, cache="mapped", cache_root=str(tmp_path / "maps"))
    folder = mapped.cache_folder(cfg, "train")
    (folder.with_suffix(".building") / "image.u8").mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: [build_dataset(cfg, "train")[i].image for i in range(6)], range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert built == [1]
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_mapped_cache_is_never_stale(tmp_path: Path) -> None:
    """Another photo under the same name is another cache."""
    from PIL import Image

    root = write_folder(tmp_path / "set", 5)
    cfg = data_config("folder", root=str(root), cache="mapped", cache_root=str(tmp_path / "maps"), split="share")
    before = build_dataset(cfg, "train")[0].image
    Image.fromarray(face(30, 48)[0]).save(root / "images" / "face0.png")
    after = build_dataset(cfg, "train")[0].image
    assert not np.array_equal(before, after)
    assert np.array_equal(after, build_dataset(cfg.model_copy(update={"cache": "none"}), "train")[0].image)


def test_mapped_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cfg = data_config(train_images=2, cache="mapped", cache_root=str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write .*file/mapped"):
        build_dataset(cfg, "train")[0]


def test_feeding_speed_counts_what_it_measured() -> None:
    speed = feeding_speed(data_config(train_images=4, cache="memory"), "train", batch_size=2, seconds=0.0)
    assert (speed.images, speed.height, speed.cache) == (4, 32, "memory")
    assert speed.images_per_s > 0 and speed.first_epoch_s > 0


def test_instance_ids_are_numbered_from_zero_within_each_sample() -> None:
    from pipeline.data.batch import numbered

    raw = np.array([[26001, 7], [7, 26002]], dtype=np.int32)
    assert numbered(raw).tolist() == [[1, 0], [0, 2]]
