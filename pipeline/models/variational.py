"""Gaussian codes: the reparameterised draw and its KL divergence from the standard normal."""

from __future__ import annotations

import torch
from torch import Tensor


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), **summed** over batch and dimensions.

    As released by SPADE: not averaged over the batch, so its pull grows with the batch size at the same weight.
    """
    return -0.5 * torch.sum(1 + log_variance - mean.square() - log_variance.exp())
