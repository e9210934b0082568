"""Released state dicts made by the fixtures' weight rule: quickly with recorded sigmas, and shrunk for tests of keys."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.models.kernels import naive_kernels
from tests.parity_fill import draw, fill_tensor

ROOT = Path(__file__).parents[3]
COMPACT = ROOT / "tests" / "fixtures" / "parity"
FULL = ROOT.parent / "shared" / "parity"
IMAGE = {"rtol": 1e-3, "atol": 2e-4}  # what the fixtures' descriptions suggest for images, scores and layer statistics
SHRINK = 16  # every width of a release divided by it

Arrays = dict[str, NDArray[Any]]
Keys = Sequence[Sequence[Any]]


def load_arrays(family: str, *, full: bool) -> Arrays:
    """The recorded arrays of `family`: the full set, or the compact one."""
    with np.load(FULL / family / "fixture.npz" if full else COMPACT / f"{family}.npz") as archive:
        return dict(archive)


def load_meta(family: str) -> dict[str, Any]:
    """Key lists, gains, sigmas and names of `family`, from the compact set."""
    return dict(json.loads(load_arrays(family, full=False)["meta_json"].tobytes()))


def recorded_image(arrays: Arrays, name: str) -> tuple[NDArray[np.float32], int]:
    """The recorded image `name`, and of how many pixels it holds one (in both directions): 1, or N of `name`_subN."""
    for key, value in arrays.items():
        stem, _, step = key.partition("_sub")
        if stem == name:
            return value, int(step or 1)
    raise KeyError(name)


def fill_with_sigma(keys: Keys, gains: Mapping[str, float], sigma: Mapping[str, float]) -> dict[str, Tensor]:
    """The filled state dict, with some u and v for which u^T W v is the recorded sigma, instead of 50 power iterations."""
    state: dict[str, Tensor] = {}
    for key, shape, dtype, *_ in keys:
        if key.endswith(("weight_u", "weight_v")):
            continue
        state[key] = fill_tensor(key, shape, dtype)
        for pattern, gain in gains.items():
            if re.search(pattern, key):
                state[key] = state[key] * np.float32(gain).item()
    for key in [key for key in state if key.endswith(".weight_orig")]:
        stem = key.removesuffix("_orig")
        matrix = state[key].flatten(1)
        v = torch.from_numpy(draw(f"{stem}_v", (matrix.shape[1],)))
        v = v / v.norm()
        image = matrix @ v
        state[f"{stem}_v"] = v
        state[f"{stem}_u"] = image * (sigma.get(stem, 1.0) / image.dot(image))
    return state


def shrunk(keys: Keys) -> dict[str, Tensor]:
    """A state dict of the same keys with every width divided by 16, so that importing it takes no time."""
    small: list[list[Any]] = []
    for key, shape, dtype, *_ in keys:
        is_map_width = (
            key in ("fc.weight", "fc.bias") and shape[0] == 65536
        )  # 1024 channels of 8x8: only channels shrink
        small.append([key, [size // SHRINK if size >= 32 or is_map_width else size for size in shape], dtype])
    return fill_with_sigma(small, {}, {})


def statistics(value: Tensor) -> NDArray[np.float64]:
    """Mean, population standard deviation and the first eight entries, as the fixtures record a layer's output."""
    value = value.detach().double()
    return np.array([value.mean().item(), value.std(correction=0).item(), *value.flatten()[:8].tolist()])


def record_outputs(network: torch.nn.Module, names: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """A dict that the next forward pass fills with the statistics of each submodule of `names` (our path by their name)."""
    seen: dict[str, NDArray[np.float64]] = {}
    for theirs, ours in names.items():

        def hook(_module: Any, _inputs: Any, output: Tensor, name: str = theirs) -> None:
            seen[name] = statistics(output)

        network.get_submodule(ours).register_forward_hook(hook)
    return seen


def trunk_path(name: str) -> str:
    """Our module behind a recorded block of the release's generators."""
    block, _, norm = name.partition(".")
    known = {"fc": "start", "conv_img": "trunk.to_image", "head_0": "trunk.head"}
    known |= {"G_middle_0": "trunk.middle_0", "G_middle_1": "trunk.middle_1"}
    path = known.get(block) or f"trunk.up.{block.removeprefix('up_')}"
    return f"{path}.{norm.replace('ace', 'norm')}" if norm else path


def bright_inputs(num_classes: int = 19, size: int = 256) -> tuple[Tensor, Tensor]:
    """A second input of every release: one image of 0.9 plus noise 0.05, mask of two classes, a disc in a background.

    Activations then have means far from zero, as those of a drawn image and sixteen random classes never have.
    """
    generator = torch.Generator().manual_seed(11)
    image = 0.9 + 0.05 * torch.randn(1, 3, size, size, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disc = (rows - size // 2) ** 2 + (columns - size // 2) ** 2 < (size // 3) ** 2
    label = disc.long().unsqueeze(0)  # classes 0 and 1
    return image, torch.nn.functional.one_hot(label, num_classes).permute(0, 3, 1, 2).float().contiguous()


@torch.no_grad()
def hold_to_float64(network: torch.nn.Module, draw: Callable[[torch.nn.Module, Tensor, Tensor], list[Tensor]]) -> None:
    """`draw(network, image, mask)` on the bright input: within the release's tolerance of the naive form in float64, and
    no further than four times the naive form in float32, or 2e-6 of the largest value.
    """
    image, mask = bright_inputs()
    with naive_kernels():
        naive = draw(network, image, mask)
        wide = copy.deepcopy(network).double()
        exact = draw(wide, image.double(), mask.double())
    del wide
    for ours, other, right in zip(draw(network, image, mask), naive, exact, strict=True):
        assert right.dtype == torch.float64
        np.testing.assert_allclose(ours, right, **IMAGE)
        error, allowed = ((form.double() - right).abs().max().item() for form in (ours, other))
        assert error <= 4 * max(allowed, 2e-6 * right.abs().max().item())
