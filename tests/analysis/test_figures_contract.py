"""What an evaluation writes as samples is what figures read: the pipeline's own writer against the reader here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from analysis.figures.grids import _indices
from analysis.figures.samples import read_samples
from pipeline.records import RunRecord


def test_written_samples_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from pipeline.data.label_spaces import label_space
    from pipeline.evaluation import samples as sample_pictures

    space = label_space("celebamask_hq")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 19, size=(2, 16, 16))
    pixels = generator.integers(0, 256, size=(2, 16, 16, 3), dtype=np.uint8)
    logits = torch.from_numpy(generator.normal(size=(2, 19, 8, 8)))
    picture = SimpleNamespace(uint8=lambda: pixels)
    view = SimpleNamespace(
        batch=SimpleNamespace(keys=("a", "b")),
        first_index=0,
        output=picture,
        target=picture,
        label=torch.from_numpy(labels),
        attention=[logits],
    )
    monkeypatch.setattr(sample_pictures.reconstruction, "psnr", lambda *_: torch.tensor([20.0, 30.0]))
    writer = sample_pictures.SampleWriter(tmp_path / "samples" / "standard", space)
    writer.add(view)  # type: ignore[arg-type]
    writer.finish()

    samples = read_samples(RunRecord(tmp_path), "standard")
    assert list(samples) == ["a", "b"]
    assert samples["b"].scores["psnr"] == 30.0
    assert set(samples["a"].files) == {"style", "mask", "target", "output"}
    assert np.array_equal(_indices(samples["b"].files["mask"]), labels[1])
    assert len(samples["a"].attention) == 1
    assert np.array_equal(_indices(samples["a"].attention[0]), logits[0].argmax(dim=0).numpy())
