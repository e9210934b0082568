"""Batches that memory does not hold: halved until it does, in every stage, with the numbers of larger ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import RunFailed
from pipeline.evaluation.evaluator import evaluate
from pipeline.evaluation.stages import attention_heads
from pipeline.metrics.segmenter import Segmenter
from pipeline.models.contract import Synthesis
from pipeline.progress import Quiet
from tests.pipeline.metrics.doubles import (
    CLASSES,
    CPU,
    SPLITS,
    Echo,
    faces,
    numbers,
    protocol,
    small_ca2sis,
)
from tests.pipeline.models.small_models import small_generator


class Said(Quiet):
    """Keeps the lines that stay."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Heavy(Echo):
    """Memory holds so many images of it at once."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__(0.3)
        self.most, self.error, self.tried = most, error, list[int]()

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        self.tried.append(mask.shape[0])
        if mask.shape[0] > self.most:
            raise self.error
        return super().synthesize(mask, style, attention=attention)


SAMPLING = protocol(
    "diversity", "distribution", segmenter__iterations=2, diversity__images=2, distribution__bootstrap=0
)
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("could not create a primitive"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["gpu", "cpu", "onednn", "python"])
@pytest.mark.parametrize("batch_size", [12, 500])
def test_batches_shrink_until_memory_holds_them(error: Exception, batch_size: int, tmp_path: Path) -> None:
    config = protocol("reconstruction").model_copy(update={"batch_size": batch_size})
    heavy, said = Heavy(4, error), Said()
    found = evaluate(heavy, faces(), config, device=CPU, cache=tmp_path, progress=said)
    assert heavy.tried == [12, 6, 3, 3, 3, 3]
    assert numbers(found) == numbers(evaluate(Echo(0.3), faces(), config, device=CPU))
    assert said.lines == [
        "evaluate: memory does not hold batches of 12 images, going on with 6",
        "evaluate: memory does not hold batches of 6 images, going on with 3",
    ]
    assert not list((tmp_path / "evaluating").glob("*")), "nothing of the attempts is left"


def test_an_image_that_memory_does_not_hold_is_a_failed_run() -> None:
    with pytest.raises(RunFailed, match=r"a single image \(CUDA out of memory"):
        evaluate(Heavy(0, OUT_OF_MEMORY[0]), faces(), protocol("reconstruction"), device=CPU)
    with pytest.raises(RuntimeError, match="shapes differ"):
        evaluate(Heavy(0, RuntimeError("shapes differ")), faces(), protocol("reconstruction"), device=CPU)


def test_stages_with_batches_of_their_own_shrink_with_the_protocols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single heads are measured four images at a time, samples of one layout and reference images all at once."""
    at_once: list[tuple[str, int]] = []

    def limited(name: str, call: Callable[..., Any], images: Callable[..., int]) -> Callable[..., Any]:
        def within(*args: Any, **kwargs: Any) -> Any:
            at_once.append((name, images(*args)))
            if images(*args) > 2:
                raise OUT_OF_MEMORY[0]
            return call(*args, **kwargs)

        return within

    generator, sampler = small_ca2sis(), small_generator("inade", CLASSES, (32, 32)).eval()
    expected = [
        numbers(evaluate(generator, faces(5), protocol("attention"), device=CPU)),
        numbers(evaluate(sampler, faces(4), SAMPLING, device=CPU, splits=SPLITS, cache=tmp_path)),
    ]
    heads = limited("heads", attention_heads.head_logits, lambda _, mask, style: mask.shape[0])
    monkeypatch.setattr(attention_heads, "head_logits", heads)
    drawn = limited("samples", sampler.synthesize, lambda mask, style: mask.shape[0])
    monkeypatch.setattr(sampler, "synthesize", drawn)
    features = limited("features", Segmenter.features, lambda _, images: len(images))
    monkeypatch.setattr(Segmenter, "features", features)
    found = [
        numbers(evaluate(generator, faces(5), protocol("attention").model_copy(update={"batch_size": 2}), device=CPU)),
        numbers(evaluate(sampler, faces(4), SAMPLING.model_copy(update={"batch_size": 2}), device=CPU, splits=SPLITS)),
    ]
    for large, small in zip(expected, found, strict=True):
        assert large.keys() == small.keys()
        for name, (value, fingerprint) in large.items():
            wanted = None if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)
            assert small[name] == (wanted, fingerprint), name
    assert {name for name, _ in at_once} == {"heads", "samples", "features"}
