"""The Mask Embedder of (CA)²-SIS: every class mask -> one small map, shared weights for all classes.

As released one linear layer takes the shrunk mask (256 -> 128) to a 16x16 map, read row by row. Stand-ins for the
ablation: strided convolutions, or no embedding (the masks resized). Embeddings of two layouts can be interpolated.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.models.conditioning import resize_nearest
from pipeline.schema.model_ca2sis import MaskEmbedderSection


class MaskEmbedder(nn.Module):
    """Masks (N,K',H,W) -> embeddings (N,K',h*w); (h,w) is the size of the decoder's first stage.

    An absent class embeds to a constant of the weights (linear: the bias), never to NaN.
    """

    def __init__(self, section: MaskEmbedderSection, size: tuple[int, int], stride: int) -> None:
        """`size`: image (H,W), divisible by `stride`; (h,w) = size / stride."""
        super().__init__()
        self.kind = section.kind
        self.side = (size[0] // stride, size[1] // stride)
        self.shrunk = (size[0] // section.reduction, size[1] // section.reduction)
        self.embed: nn.Module = nn.Identity()
        if section.kind == "linear":
            self.embed = nn.Linear(self.shrunk[0] * self.shrunk[1], self.side[0] * self.side[1])
        elif section.kind == "conv":
            self.embed = self._strided(section.hidden, halvings=(stride // section.reduction).bit_length() - 1)

    @staticmethod
    def _strided(hidden: int, halvings: int) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Conv2d(1, hidden, 3, padding=1), nn.SiLU()]
        for _ in range(halvings):
            layers += [nn.Conv2d(hidden, hidden, 3, stride=2, padding=1), nn.SiLU()]
        return nn.Sequential(*layers, nn.Conv2d(hidden, 1, 1))

    def forward(self, mask: Tensor) -> Tensor:
        """(N,K',H,W) one-hot float32 -> (N,K',h*w)."""
        if self.kind == "none":
            return resize_nearest(mask, self.side).flatten(2)
        shrunk = resize_nearest(mask, self.shrunk)
        embedding: Tensor
        if self.kind == "linear":
            embedding = self.embed(shrunk.flatten(2))
        else:
            embedding = self.embed(shrunk.flatten(0, 1).unsqueeze(1)).view(*mask.shape[:2], -1)
        return embedding
