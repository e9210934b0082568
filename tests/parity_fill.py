"""The weight rule of the parity fixtures: every tensor of a release's state dict from its key and shape alone.

Source: "Weight rule" in the fixtures' own descriptions. Equal for all families; spectral norm has its own two tensors.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SIGMA_ROUNDS = 50  # power iterations behind a fixture's weight_u and weight_v


def draw(key: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """The standard normal draw of a key, float32."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode("ascii"))))
    return generator.standard_normal(tuple(shape)).astype(np.float32)


def fill_tensor(key: str, shape: Sequence[int], dtype: str) -> torch.Tensor:
    """The tensor of one key, before gains and spectral norm."""
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked" or not dtype.startswith("float"):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    z = draw(key, shape)
    if len(shape) > 1:
        value = z * np.float32(1.0 / np.sqrt(float(np.prod(shape[1:]))))
    elif last == "weight":
        value = np.float32(1) + np.float32(0.1) * z
    elif last == "running_var":
        value = np.float32(1) + np.float32(0.1) * np.abs(z)
    else:  # biases, running means, scalars
        value = np.float32(0.02) * z
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))


def spectral_vectors(
    weight: torch.Tensor, u_key: str, rounds: int = SIGMA_ROUNDS
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """u, v (float32) and sigma of the hook-based spectral norm for `weight` (weight_orig, float32)."""
    matrix = weight.reshape(weight.shape[0], -1).double().numpy()
    u = draw(u_key, (matrix.shape[0],)).astype(np.float64)
    u /= np.linalg.norm(u)
    v = np.zeros(matrix.shape[1])
    for _ in range(rounds):
        v = matrix.T @ u
        v /= np.linalg.norm(v)
        u = matrix @ v
        u /= np.linalg.norm(u)
    return torch.from_numpy(u.astype(np.float32)), torch.from_numpy(v.astype(np.float32)), float(u @ matrix @ v)


def fill_state_dict(
    keys: Sequence[Sequence[Any]], gains: Mapping[str, float], sigma: dict[str, float] | None = None
) -> dict[str, torch.Tensor]:
    """The filled state dict.

    Args:
        keys: rows [key, shape, dtype, ...] of a fixture's state_dict.json.
        gains: pattern of a key -> factor, applied last.
        sigma: filled with the sigma of every spectrally normalised weight, by the key of its weight_orig.
    """
    state: dict[str, torch.Tensor] = {}
    for key, shape, dtype, *_ in keys:
        state[key] = fill_tensor(key, shape, dtype)
        for pattern, gain in gains.items():
            if re.search(pattern, key):
                state[key] = state[key] * np.float32(gain).item()
    for key in [key for key in state if key.endswith(".weight_u")]:
        stem = key.removesuffix("_u")
        state[key], state[f"{stem}_v"], value = spectral_vectors(state[f"{stem}_orig"], key)
        if sigma is not None:
            sigma[f"{stem}_orig"] = value
    return state


def check_fill(state: Mapping[str, torch.Tensor], keys: Sequence[Sequence[Any]]) -> list[str]:
    """Keys whose first element or float64 sum differs from the fixture's own listing, spectral vectors aside."""
    wrong: list[str] = []
    for key, shape, dtype, first, total in keys:
        value = state[key]
        if key.endswith(("weight_u", "weight_v")) or not dtype.startswith("float"):
            continue
        same = list(value.shape) == list(shape) and np.isclose(value.flatten()[0].item(), first, rtol=1e-6, atol=1e-9)
        if not (same and np.isclose(value.double().sum().item(), total, rtol=1e-6, atol=1e-4)):
            wrong.append(key)
    return wrong


def case_inputs(
    seed: int, size: tuple[int, int], num_classes: int, cells: tuple[int, int], batch: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (N,3,H,W) uniform in [-1,1] and one-hot mask (N,K,H,W) of a fixture: labels drawn a cell, repeated to full
    size."""
    image = np.random.Generator(np.random.PCG64(seed)).uniform(-1, 1, (batch, 3, *size)).astype(np.float32)
    labels = np.random.Generator(np.random.PCG64(seed + 1)).integers(0, num_classes, (batch, *cells))
    labels = labels.repeat(size[0] // cells[0], axis=1).repeat(size[1] // cells[1], axis=2)
    mask = torch.nn.functional.one_hot(torch.from_numpy(labels), num_classes).permute(0, 3, 1, 2).float().contiguous()
    return torch.from_numpy(image), mask
