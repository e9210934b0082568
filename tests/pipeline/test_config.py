"""Config: every mistake is one clear line that names the key and what is allowed; presets compose for every family."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.config import choices, compose
from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.base_widht=3", ["unknown key model.base_widht", "model.base_width"]),
        ("trian.lr=1", ["unknown key trian.lr", "train.lr"]),
        ("model=spad", ["unknown model 'spad'", "spade", "ca2sis"]),
        ("data=celeba", ["unknown data 'celeba'", "celebamask_hq"]),
        ("preset=huge", ["unknown preset 'huge'", "medium"]),
        ("seed=-1", ["seed = -1", "must be at least 0"]),
        ("seed=1.5", ["seed = 1.5", "whole number"]),
        ("seed=true", ["seed = true", "whole number"]),
        ("train.lr=fast", ["train.lr", "fast", "number"]),
        ("train.iterations=null", ["train", "exactly one of iterations and epochs"]),
        ("train.batch_size=0", ["train.batch_size = 0", "must be at least 1"]),
        ("train.precision=fp8", ["train.precision", "float32"]),
        ("model.encoder.grouping=klass", ["model.encoder.grouping", "klass", "shared_matched"]),
        ("just words", ["is not an override"]),
        ("notes", ["is not an override"]),
    ],
)
def test_mistakes_are_named(override: str, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        compose([override])
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message


@pytest.mark.parametrize("preset", ["tiny", "small", "medium", "paper"])
@pytest.mark.parametrize("model", choices("model"))
def test_every_family_has_a_row_at_every_preset(model: str, preset: str) -> None:
    config = compose([f"model={model}", f"preset={preset}"])
    assert config.preset == preset
    assert config.size == {"tiny": 32, "small": 64, "medium": 128, "paper": 256}[preset]
    assert config.data.size == config.size


def test_paper_rows_hold_the_published_recipe() -> None:
    ca2sis, spade, sean = (compose([f"model={name}", "preset=paper"]) for name in ("ca2sis", "spade", "sean"))
    for config in (ca2sis, spade, sean):
        assert config.train.betas == (0.0, 0.9)
        assert config.train.ttur and config.train.lr == 2e-4
        assert config.loss.feature_matching.weight == config.loss.perceptual.weight == 10.0
        assert (config.discriminator.scales, config.discriminator.layers) == (2, 4)
    assert (ca2sis.train.epochs, ca2sis.train.batch_size, ca2sis.train.decay_fraction) == (100, 2, 0.5)
    assert ca2sis.loss.attention.weight == 1.0 and ca2sis.loss.attention.kind == "bce"
    assert spade.loss.kl.weight == 0.05
    assert sean.train.batch_size == 32


def test_config_never_imports_torch() -> None:
    code = "import sys; from pipeline.config import resolve; resolve([]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
