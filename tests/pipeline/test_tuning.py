"""Pivotal tuning: what it does to a linear network in closed form, whose weights a picture is drawn with, and what is kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.__main__ import main
from pipeline.config import compose, load_protocol
from pipeline.errors import RunFailed, UserError
from pipeline.evaluation import tuning
from pipeline.evaluation.evaluator import Evaluation, evaluate
from pipeline.evaluation.inversion import Inverted, inverting
from pipeline.evaluation.tuning import Pivots, drawn, tune
from pipeline.identity import canonical_digest
from pipeline.models.contract import Capabilities, ComposingGenerator, Synthesis
from pipeline.schema.evaluation import UNTUNED, InversionConfig, ProtocolConfig
from tests.pipeline.models.small_models import random_inputs
from tests.pipeline.test_inversion import CPU, FREE, faces, family, no_distance
from tests.pipeline.test_inversion import protocol as untuned_protocol

# Digests of section `inversion` from before tuning was there.
RECORDED = {
    "quick": "676133698a35a365e00dc57b8b79b860907fe8b3bfb4f621166fd4c9d831afc1",
    "standard": "9a311c8355df441533c99439704af0bf02fd7dd485c74c5bb93424982d9f4d0b",
    "standard_64": "9a311c8355df441533c99439704af0bf02fd7dd485c74c5bb93424982d9f4d0b",
    "paper": "be4e14b2ae29f845e81fe561385549a6ba890455b932303b6303363dc2ef2b33",
    "sean_compat": "be4e14b2ae29f845e81fe561385549a6ba890455b932303b6303363dc2ef2b33",
}
CLOCKS = {"inversion_s_per_image", "eval_images_per_s", "latency_ms", "peak_mem_gib"}


class Linear(ComposingGenerator):
    """Pictures of 4 pixels that are linear in one code of width 2, with a weight that no picture uses."""

    layout_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(12, 2))
        self.unused = nn.Parameter(torch.ones(3))
        self.capabilities = Capabilities(style="codes", sampling=True, noise_width=2, layout="own")

    def merged(self, mask: Tensor) -> Tensor:
        return mask

    def render(self, style: Tensor) -> Synthesis:
        return Synthesis((style[:, 0] @ self.matrix.T).view(-1, 3, 2, 2), layout=torch.zeros(len(style), 3, 2, 2))

    def sample_style(self, mask: Tensor, noise: Tensor) -> Tensor:
        return noise.unsqueeze(1)


def budget(**changes: Any) -> InversionConfig:
    return FREE.model_copy(update={"tuning": UNTUNED.model_copy(update={"steps": 200, "lr": 0.02, **changes})})


def protocol(**changes: Any) -> ProtocolConfig:
    """Four faces; no step on the codes unless told, so that all progress is the weights'."""
    plain = untuned_protocol(steps=0)
    assert plain.inversion is not None
    wanted = UNTUNED.model_copy(update={"steps": 5, "lr": 0.01, **changes})
    return plain.model_copy(update={"inversion": plain.inversion.model_copy(update={"tuning": wanted})})


def toy() -> tuple[Linear, Tensor, Tensor, Tensor]:
    """Network, photo, mask, codes."""
    torch.manual_seed(0)
    return Linear(), torch.rand(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), torch.randn(1, 1, 2)


def tuned_weights(network: ComposingGenerator, changed: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value + changed[name] for name, value in network.named_parameters() if name in changed}


def distance(network: ComposingGenerator, codes: Tensor, target: Tensor, changed: dict[str, Tensor]) -> float:
    made = drawn(network, tuned_weights(network, changed), lambda one: one.render(codes))
    return (made.image - target).square().mean().item()


def test_a_linear_network_reaches_the_photo_and_its_own_weights_stay() -> None:
    network, photo, mask, codes = toy()
    before = network.matrix.detach().clone()
    changed = tune(network, photo, mask, codes, budget(), no_distance, 0)
    assert set(changed) == {"matrix"}, "what no picture uses is not kept"
    assert distance(network, codes, photo, changed) < 1e-5 < 0.1 < distance(network, codes, photo, {})
    assert torch.equal(network.matrix, before) and network.matrix.grad is None
    ratio = changed["matrix"].float() / codes[0]  # steps of a linear network run along the code
    assert (torch.sign(ratio[:, 0]) == torch.sign(ratio[:, 1])).all()


def test_the_first_step_is_the_rate_against_the_sign_of_the_gradient() -> None:
    network, photo, mask, codes = toy()
    changed = tune(network, photo, mask, codes, budget(steps=1), no_distance, 0)["matrix"].float()
    missing = (network.render(codes).image - photo).view(12, 1) * codes[0]  # times a positive constant: the gradient
    torch.testing.assert_close(changed, -0.02 * missing.sign(), rtol=1e-3, atol=1e-6)


def test_locality_holds_what_the_network_draws_away_from_the_photo_s_codes() -> None:
    network, photo, mask, codes = toy()
    away = [tuning._nearby(network, mask, codes, 3.0, torch.Generator().manual_seed(seed)) for seed in range(1, 21)]
    for near in away:
        assert (near - codes).norm().item() == pytest.approx(3.0, rel=1e-5)

    def moved(weight: float) -> float:
        changed = tune(network, photo, mask, codes, budget(locality=weight, locality_distance=3.0), no_distance, 50)
        assert distance(network, codes, photo, changed) < 0.1 * distance(network, codes, photo, {})
        targets = [network.render(near).image for near in away]
        return sum(distance(network, near, target, changed) for near, target in zip(away, targets, strict=True))

    assert moved(0.3) < 0.7 * moved(0.0)


def test_sampled_codes_of_locality_follow_from_the_seed_alone() -> None:
    network, photo, mask, codes = toy()
    local = budget(locality=1.0, steps=5)
    first, again, other = (tune(network, photo, mask, codes, local, no_distance, seed)["matrix"] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_rate_that_is_too_large_is_named() -> None:
    network, photo, mask, codes = toy()
    with pytest.raises(
        RunFailed, match=r"not finite after 1 steps; a smaller protocol\.inversion\.tuning\.lr may help"
    ):
        tune(network, photo, mask, codes, budget(lr=1e30), no_distance, 0)


def test_off_is_what_it_was() -> None:
    for name, recorded in RECORDED.items():
        inversion = load_protocol(name).inversion
        assert inversion is not None and inversion.tuning == UNTUNED
        assert canonical_digest(inversion.identity_values()) == recorded, name
    off = inverting(family(num_classes=19), untuned_protocol(), CPU)
    assert isinstance(off, Inverted) and off.pivots is None and "tuning" not in off.note
    assert off.encode_style(*random_inputs(19)).shape == off.family.mean_codes(2).shape
    without, tuned = (one.digest_for(inverts=True) for one in (untuned_protocol(steps=0), protocol()))
    assert without != tuned and untuned_protocol(steps=0).digest == protocol().digest


def measured(network: ComposingGenerator, cache: Path | None = None, **changes: Any) -> Evaluation:
    wanted = protocol(**changes).model_copy(update={"groups": ("reconstruction", "cost", "editing")})
    return evaluate(network, faces(), wanted, device=CPU, cache=cache)


def each_value(evaluation: Evaluation, name: str) -> np.ndarray:
    return evaluation.per_image.loc[evaluation.per_image["metric"] == name, "value"].to_numpy()


def numbers(evaluation: Evaluation) -> dict[str, float | None]:
    return {row.name: row.value for row in evaluation.rows if row.name not in CLOCKS}


def test_every_photo_comes_nearer_and_the_rows_say_how(tmp_path: Path) -> None:
    network = family(num_classes=19)
    before, after = measured(network, steps=0), measured(network, tmp_path, steps=20)
    for name, sign in (("rmse", -1), ("psnr", 1)):
        one, two = (each_value(found, name) for found in (before, after))
        assert len(one) == 4 and (sign * (two - one) > 0).all()
    rows = {row.name: row for row in after.rows}
    assert rows["psnr"].reason.endswith("photo alone, then weights by pivotal tuning: 20 steps a photo")
    assert rows["psnr"].fingerprint == next(row.fingerprint for row in before.rows if row.name == "psnr")
    cost = [next(row for row in one.rows if row.name == "inversion_s_per_image") for one in (before, after)]
    assert cost[0].fingerprint != cost[1].fingerprint and (cost[1].value or 0) > (cost[0].value or 0)
    assert not list((tmp_path / "evaluating").iterdir()), "nothing of a finished evaluation is kept"


def test_seconds_of_tuning_count_as_inversion(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Pivots.tuned
    monkeypatch.setattr(Pivots, "tuned", lambda self, number: (real(self, number)[0], 50.0))
    row = next(row for row in measured(family(num_classes=19)).rows if row.name == "inversion_s_per_image")
    assert row.value is not None and 50 < row.value < 60


def drawing(photos: int = 2, **changes: Any) -> tuple[Inverted, Tensor, Tensor]:
    """A network whose photos are tuned, some photos, their masks."""
    made = inverting(family(num_classes=19), protocol(**changes), CPU)
    assert isinstance(made, Inverted)
    return made, *random_inputs(19, batch=photos)


def test_pictures_of_a_photo_are_drawn_with_its_own_weights_also_after_edits() -> None:
    network, image, mask = drawing()
    style = network.encode_style(image, mask)
    codes = network.codes(image, mask)
    assert network.pivots is not None and torch.equal(style[:, :-1], codes)
    weights = [tuned_weights(network.family, network.pivots.tuned(number)[0]) for number in range(2)]

    def by_hand(edited: Tensor, owner: int, row: int) -> Tensor:
        made = drawn(network.family, weights[owner], lambda one: one.synthesize(mask[row : row + 1], edited))
        return made.image

    plain = network.synthesize(mask, style)
    assert plain.layout is not None and plain.layout.shape[0] == 2
    for row in range(2):
        assert torch.equal(plain.image[row : row + 1], by_hand(codes[row : row + 1], row, row))
        assert not torch.equal(plain.image[row : row + 1], by_hand(codes[row : row + 1], 1 - row, row))
    aims: Sequence[tuple[Any, bool, bool]] = [([[1], [2]], False, True), ([[1], [2]], True, False), (None, False, True)]
    for classes, shape, texture in aims:
        aim = network.exchanged(style, style.flip(0), classes, shape=shape, texture=texture)
        bare = network.family.exchanged(codes, codes.flip(0), classes, shape=shape, texture=texture)
        for step in (0.0, 0.3, 0.75, 1.0):
            image_of = network.synthesize(mask, torch.lerp(style, aim, step)).image
            way = torch.lerp(codes, bare, step)
            for row in range(2):
                assert torch.equal(image_of[row : row + 1], by_hand(way[row : row + 1], row, row))


def test_samples_are_drawn_with_the_weights_as_they_were_trained() -> None:
    network, image, mask = drawing()
    network.encode_style(image, mask)
    noise = torch.randn(2, network.capabilities.noise_width)
    sampled = network.synthesize(mask, network.sample_style(mask, noise)).image
    expected = network.family.synthesize(mask, network.family.sample_style(mask, noise)).image
    torch.testing.assert_close(sampled, expected, rtol=1e-4, atol=1e-5)


def test_references_of_edits_are_not_tuned_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = tuning.tune
    monkeypatch.setattr(tuning, "tune", lambda *given: calls.append(1) or real(*given))
    network, image, mask = drawing()
    style, other = network.encode_style(image[:1], mask[:1]), network.encode_style(image[1:], mask[1:])
    for _ in range(2):
        network.synthesize(mask[:1], network.exchanged(style, other, None, shape=True, texture=True))
    assert calls == [1]


def test_a_killed_tuning_keeps_what_it_has_and_ends_at_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = family(num_classes=19)
    undisturbed = measured(network, tmp_path / "whole")
    real, calls = tuning.tune, 0

    def stopping(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(tuning, "tune", stopping)
    cache = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        measured(network, cache)
    kept = sorted(cache.glob("evaluating/*/tuned_*.npz"))
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # cut off: made anew when it is needed
    (next(cache.glob("evaluating/*/tuning_000001.npz"))).unlink()  # killed between a photo's weights and its seconds
    resumed = measured(network, cache)
    assert calls == 6, "two photos, the one stopped at, the other two, and the one cut off"
    assert numbers(resumed) == numbers(undisturbed)
    assert resumed.per_image.equals(undisturbed.per_image)


def test_robustness_keeps_no_weights_of_damaged_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    real = Pivots.tuned

    def watched(self: Pivots, number: int) -> Any:
        nonlocal most
        found = real(self, number)
        most = max(most, len(list(self._path("").parent.glob("*.npz"))))
        return found

    monkeypatch.setattr(Pivots, "tuned", watched)
    wanted = protocol(steps=1)
    robustness = wanted.robustness.model_copy(update={"kinds": ("jitter",), "levels": (0.5, 1.0), "images": 4})
    wanted = wanted.model_copy(update={"groups": ("robustness",), "robustness": robustness})
    rows = evaluate(family(num_classes=19), faces(), wanted, device=CPU).rows
    assert any(row.name == "robust_psnr_area" and row.status == "ok" for row in rows)
    assert most == 4, "those of the four photos, and never more than a batch of two of the damaged"


def test_a_disk_that_is_too_small_is_refused_before_anything_is_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(
        UserError, match=r"tuned weights of 4 photos take .* GB in .*evaluating.* where 0\.0 GB are free"
    ):
        measured(family(num_classes=19), tmp_path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps=-1", "protocol.inversion.tuning.steps"),
        ("lr=0.0", "protocol.inversion.tuning.lr"),
        ("locality=-0.1", "protocol.inversion.tuning.locality"),
        ("locality_distance=0.0", "protocol.inversion.tuning.locality_distance"),
        ("step=3", "protocol.inversion.tuning.step"),
    ],
)
def test_bad_values_are_refused_by_name(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        compose([f"protocol.inversion.tuning.{override}"])


@pytest.mark.parametrize("command", [["evaluate", "RUN"], ["edit", "RUN"]])
def test_commands_take_a_number_of_steps(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*command, "--tuning-steps", "-1", "--out", str(tmp_path)]) == 2
    assert "--tuning-steps must be at least 0, not -1" in capsys.readouterr().err
    wanted = load_protocol("standard", tuning_steps=7).inversion
    assert wanted is not None and wanted.tuning.steps == 7
