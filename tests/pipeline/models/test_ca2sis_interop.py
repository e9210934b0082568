"""Import of released (CA)²-SIS state dicts: a round trip at small sizes, and every missing, extra or misshapen key by
name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.ca2sis import Ca2sisGenerator
from pipeline.models.interop.ca2sis import import_state, read_config, release_keys
from tests.pipeline.models.ca2sis_cases import inputs, make

K, SIZE = 3, (16, 16)


@pytest.fixture(scope="module")
def ours() -> Ca2sisGenerator:
    return make(
        K,
        SIZE,
        depth=2,
        mapping={"enabled": True, "shared_layers": 2, "head_layers": 1},
        attention={"heads": 1, "head_width": 64, "last_heads": 1, "last_head_width": 32, "self_attention": [0, 2]},
    )


@pytest.fixture(scope="module")
def released(ours: Ca2sisGenerator) -> dict[str, Tensor]:
    """The generator's weights as the release would store them."""
    state: dict[str, Tensor] = {}
    for name, keys in release_keys(ours).items():
        value = ours.get_parameter(name).detach()
        parts = list(value) if len(keys) > 1 else [value]
        for key, part in zip(keys, parts, strict=True):
            if name.startswith("encoder.codes."):
                part = part.flatten(0, 1).unsqueeze(-1) if part.ndim == 3 else part.flatten()
            state[key] = part.clone()
    return state


def test_round_trip(ours: Ca2sisGenerator, released: dict[str, Tensor]) -> None:
    imported = import_state(released)
    config, classes, size = read_config(released)
    assert (classes, size) == (K, SIZE)
    assert config.model_dump(exclude={"modulation", "mask_embedder"}) == ours.config.model_dump(
        exclude={"modulation", "mask_embedder"}
    )
    assert not imported.training and imported.capabilities.sampling
    assert {name: p.shape for name, p in imported.named_parameters()} == {
        n: p.shape for n, p in ours.named_parameters()
    }
    assert all(torch.equal(p, ours.get_parameter(name)) for name, p in imported.named_parameters())
    image, mask = inputs(K, SIZE)
    with torch.no_grad():
        one, other = ours(image, mask, attention=True), imported(image, mask, attention=True)
    assert torch.equal(one.synthesis.image, other.synthesis.image)


def test_background_option_is_read_off(released: dict[str, Tensor]) -> None:
    mixed = released["reshape_conv.weight"].shape[0]
    wider = {**released, "reshape_conv.weight": torch.randn(mixed, K, 1, 1)}
    assert read_config(released)[0].exclude_background and not read_config(wider)[0].exclude_background
    assert import_state(wider).embed_shape(inputs(K, SIZE)[1]).shape[1] == K


def test_imported_weights_are_copies(released: dict[str, Tensor]) -> None:
    imported = import_state(released)
    with torch.no_grad():
        imported.to_rgb.weight.add_(1.0)
    assert not torch.equal(imported.to_rgb.weight, released["out_conv.weight"])


every_third_or_all = pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])


@every_third_or_all
def test_missing_keys_are_named(released: dict[str, Tensor], step: int) -> None:
    for key in list(released)[::step]:
        with pytest.raises(UserError) as caught:
            import_state({name: value for name, value in released.items() if name != key})
        assert repr(key) in str(caught.value)


@every_third_or_all
def test_misshapen_keys_are_named(released: dict[str, Tensor], step: int) -> None:
    for index, (key, value) in enumerate(list(released.items())[1::step]):
        wrong = torch.cat([value, value[:1]]) if index % 5 else value.unsqueeze(0)  # one row, or one dimension too many
        with pytest.raises(UserError) as caught:
            import_state({**released, key: wrong})
        assert repr(key) in str(caught.value)


@pytest.mark.parametrize("key", ["extra.weight", "res4.in_layers.9.weight", "noise_encoder.mean"])
def test_extra_keys_are_named(released: dict[str, Tensor], key: str) -> None:
    with pytest.raises(UserError, match="no known part") as caught:
        import_state({**released, key: torch.zeros(3)})
    assert repr(key) in str(caught.value)


def test_foreign_states_are_refused(released: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match="no released"):
        import_state({"head_0.conv_0.weight": torch.zeros(3, 3)})
    with pytest.raises(UserError, match="'out_conv.bias' is no floating-point tensor"):
        import_state({**released, "out_conv.bias": torch.zeros(3, dtype=torch.int64)})
