"""An evaluation killed, disturbed or started twice: nothing is lost, mixed or measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pipeline.evaluation.evaluator import evaluate
from pipeline.evaluation.resume import Resume, resume_folder
from pipeline.models.contract import Synthesis
from tests.pipeline.metrics.doubles import (
    CPU,
    SPLITS,
    Echo,
    faces,
    numbers,
    protocol,
    small_ca2sis,
)


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


class Mortal(Echo):
    """Dies at a given call."""

    def __init__(self, death: int) -> None:
        super().__init__(0.3)
        self.death = death

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        if self.calls == self.death:
            raise Killed
        return super().synthesize(mask, style, attention=attention)


def test_a_killed_evaluation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config = protocol("reconstruction", "robustness", robustness__images=6).model_copy(update={"batch_size": 3})
    whole = Mortal(-1)
    expected = evaluate(whole, faces(), config, device=CPU)
    first = Mortal(6)  # 4 batches of the stream, then within the second batch of robustness or before
    with pytest.raises(Killed):
        evaluate(first, faces(), config, device=CPU, cache=tmp_path)
    second = Mortal(-1)
    found = evaluate(second, faces(), config, device=CPU, cache=tmp_path)
    assert numbers(found) == numbers(expected)
    pd.testing.assert_frame_equal(found.per_image, expected.per_image)
    assert second.calls < whole.calls and second.calls <= whole.calls - 4
    assert not any((tmp_path / "evaluating").iterdir()), "the state of a finished evaluation is removed"


def test_pictures_of_a_killed_evaluation_are_made_again(tmp_path: Path) -> None:
    """A batch whose numbers are there is measured anew where it has pictures, and no other."""
    config = protocol("reconstruction").model_copy(update={"batch_size": 4})
    evaluate(Echo(0.3), faces(16), config, device=CPU, samples=tmp_path / "whole")
    with pytest.raises(Killed):
        evaluate(Mortal(3), faces(16), config, device=CPU, cache=tmp_path, samples=tmp_path / "killed")
    again = Mortal(-1)
    evaluate(again, faces(16), config, device=CPU, cache=tmp_path, samples=tmp_path / "killed")
    assert again.calls == 2 + 1, "eight pictures in two batches, and the batch that was not there"
    whole, killed = (
        {path.name: path.read_bytes() for path in (tmp_path / which).iterdir()} for which in ("whole", "killed")
    )
    assert killed == whole and len(whole) > 8


@pytest.mark.parametrize("broken", [b"", b"cut off"])
def test_kept_files_of_real_images_that_are_cut_off_are_made_again(tmp_path: Path, broken: bytes) -> None:
    config = protocol("semantic", "distribution", segmenter__iterations=2)
    first = evaluate(Echo(0.3), faces(), config, device=CPU, cache=tmp_path, splits=SPLITS)
    kept = sorted((tmp_path / "reference").iterdir())
    whole = [path.read_bytes() for path in kept]
    assert len(kept) == 2, "features and confusion of the real images"
    for path in kept:
        path.write_bytes(broken)
    again = evaluate(Echo(0.3), faces(), config, device=CPU, cache=tmp_path, splits=SPLITS)
    assert numbers(again) == numbers(first) and [path.read_bytes() for path in kept] == whole


def test_equal_networks_of_two_runs_are_measured_side_by_side(tmp_path: Path) -> None:
    """Arms of one seed start from equal weights: while one is measured, another begins and ends."""
    config = protocol("reconstruction").model_copy(update={"batch_size": 3})

    class Interrupted(Echo):
        def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
            if self.calls == 2:
                evaluate(Echo(0.2), faces(), config, device=CPU, cache=tmp_path, owner="other")
            return super().synthesize(mask, style, attention=attention)

    Interrupted.__qualname__ = Echo.__qualname__  # the same network to the evaluator
    found = evaluate(Interrupted(0.2), faces(), config, device=CPU, cache=tmp_path, owner="one")
    assert numbers(found) == numbers(evaluate(Echo(0.2), faces(), config, device=CPU))
    assert not any((tmp_path / "evaluating").iterdir())


def test_a_contribution_cut_off_counts_as_absent(tmp_path: Path) -> None:
    resume = Resume(tmp_path)
    resume.put("stream", 0, {"each/psnr": np.arange(3.0)})
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    assert resume.get("stream", 0) is not None and resume.get("stream", 1) is None
    for size in (0, 10, len(whole) - 5):
        path.write_bytes(whole[:size])
        assert resume.get("stream", 0) is None
    (tmp_path / ".stream_000001.npz.0a1b.part").write_bytes(whole[:10])  # as a kill leaves it
    resume.clear()
    assert not tmp_path.exists()


def test_a_metric_that_has_become_available_does_not_go_on_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    config = protocol("reconstruction")

    def folder() -> Path | None:
        return resume_folder(tmp_path, Echo(0.2), faces(), config, ("reconstruction",), 8, "one")

    before = folder()
    assert before == folder()
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth").write_bytes(b"weights")
    assert before != folder()


def test_other_code_or_another_external_segmenter_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = tmp_path / "judge.pt"
    judge.write_bytes(b"first")
    config = protocol("semantic", segmenter__external=str(judge))

    def folder() -> Path | None:
        return resume_folder(tmp_path, Echo(0.2), faces(), config, ("semantic",), 8, "one")

    first = folder()
    assert first == folder()
    judge.write_bytes(b"other")
    second = folder()
    monkeypatch.setattr("pipeline.evaluation.resume.code_version", lambda: {"code_digest": "of tomorrow"})
    assert len({first, second, folder()}) == 3


def test_other_weights_do_not_resume_each_other(tmp_path: Path) -> None:
    generator = small_ca2sis()
    config = protocol("reconstruction").model_copy(update={"batch_size": 3})
    original = generator.synthesize
    calls = 0

    def dying(*args: Any, **kwargs: Any) -> Synthesis:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Killed
        return original(*args, **kwargs)

    generator.synthesize = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        evaluate(generator, faces(), config, device=CPU, cache=tmp_path)
    generator.synthesize = original  # type: ignore[method-assign]
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.01)
    fresh = evaluate(generator, faces(), config, device=CPU)
    assert numbers(evaluate(generator, faces(), config, device=CPU, cache=tmp_path)) == numbers(fresh)


def test_the_random_state_and_the_mode_are_left_as_they_were() -> None:
    generator = Echo(0.2).train()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    config = protocol(
        "reconstruction", "editing", "robustness", editing__tasks=("global_style_transfer",), editing__pairs=2
    )
    evaluate(generator, faces(4), config, device=CPU)
    assert torch.equal(torch.rand(4), expected) and generator.training
