"""Spectral normalisation of conv weights (Miyato et al., ICLR 2018), with the releases' semantics and state."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.models.precision import full_precision

_EPS = 1e-12  # of normalised vectors; torch's default
_START_ROUNDS = 15  # power iterations at construction, so that sigma is right before any training; torch's default


class SpectralNorm(nn.Module):
    """weight -> weight / sigma with sigma = u^T W v; each training pass takes one power iteration first.

    As torch's own parametrisation, but sigma stays float32 under autocast (in bfloat16 it keeps three digits), and a weight
    on the meta device costs nothing, so that released weights are read into a network built without memory.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)  # (out, in * taps)
        self.register_buffer("u", matrix.new_empty(matrix.shape[0]).normal_())
        self.register_buffer("v", matrix.new_empty(matrix.shape[1]).normal_())
        if not weight.is_meta:
            self.u.copy_(F.normalize(self.u, dim=0, eps=_EPS))
            for _ in range(_START_ROUNDS):
                self._iterate(matrix)

    def forward(self, weight: Tensor) -> Tensor:
        """weight (out,in,kh,kw) -> the same shape, largest singular value about 1."""
        with full_precision(weight):
            matrix = weight.flatten(1)  # (out, in * taps)
            if self.training:
                self._iterate(matrix.detach())
            # Copies, because the next pass overwrites the buffers before this pass's gradient is taken.
            u, v = self.u.clone(), self.v.clone()
            return weight * torch.dot(u, torch.mv(matrix, v)).reciprocal()  # cheaper to differentiate than a division

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        _normalise(torch.mv(matrix.t(), self.u, out=self.v))
        _normalise(torch.mv(matrix, self.v, out=self.u))


def _normalise(vector: Tensor) -> None:
    """To length 1, in place."""
    vector.div_(torch.linalg.vector_norm(vector).clamp_(min=_EPS))


def settle_spectral_norm(network: nn.Module) -> None:
    """Give every normalised conv the weight that it has in eval mode, once for all passes; the pictures are the same bits."""
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")


def apply_spectral_norm(convs: Iterable[nn.Module]) -> None:
    """Put `SpectralNorm` on the weight of each conv; state keys become parametrizations.weight.{original, 0.u, 0.v}."""
    for conv in convs:
        weight = conv.get_parameter("weight")
        parametrize.register_parametrization(conv, "weight", SpectralNorm(weight), unsafe=weight.is_meta)
