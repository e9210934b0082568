"""The mapping network of (CA)²-SIS (release): one noise vector -> a style code a class, for multimodal generation.

A shared MLP, then one MLP a class. The per-class layers are stored stacked, so that all classes run as one batched
product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.kernels import is_naive


class ClasswiseLinear(nn.Module):
    """One linear layer a class, with stacked weights (K,out,in) and biases (K,out)."""

    def __init__(self, num_classes: int, in_width: int, out_width: int) -> None:
        super().__init__()
        bound = in_width**-0.5  # torch's default for a linear layer
        self.weight = nn.Parameter(torch.empty(num_classes, out_width, in_width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_classes, out_width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(K,N,in) -> (K,N,out)."""
        if is_naive():
            return torch.stack([F.linear(x[k], self.weight[k], self.bias[k]) for k in range(x.shape[0])])
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))


class MappingNetwork(nn.Module):
    """Noise (N,Z) -> style codes (N,K,S), unbounded; the codes of classes without a pixel are zero."""

    def __init__(
        self, num_classes: int, style_dim: int, *, noise_width: int, hidden: int, shared_layers: int, head_layers: int
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.noise_width = noise_width
        self.shared = nn.ModuleList(
            nn.Linear(noise_width if layer == 0 else hidden, hidden) for layer in range(shared_layers)
        )
        self.heads = nn.ModuleList(ClasswiseLinear(num_classes, hidden, hidden) for _ in range(head_layers))
        self.out = ClasswiseLinear(num_classes, hidden, style_dim)

    def forward(self, noise: Tensor, mask: Tensor) -> Tensor:
        """noise (N,Z) standard normal float32, mask (N,K,H,W) one-hot -> (N,K,S)."""
        x = noise
        for layer in self.shared:
            x = F.relu(layer(x))
        x = x.unsqueeze(0).expand(self.num_classes, -1, -1)  # (K,N,hidden)
        for head in self.heads:
            x = F.relu(head(x))
        present = mask.flatten(2).amax(dim=2)  # (N,K) {0,1}
        codes: Tensor = self.out(x).transpose(0, 1)
        return codes * present.unsqueeze(2)
