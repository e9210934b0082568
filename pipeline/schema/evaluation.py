"""Config section `protocol`: what an evaluation is. Defaults: `pipeline/conf/protocol/*.yaml`.

A protocol decides which metrics are computed on which images, with which reference and which settings. Everything here that
can change a number enters that number's fingerprint (`pipeline.evaluation.rows`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.identity import canonical_digest
from pipeline.schema.base import Section
from pipeline.schema.files import NamedFiles

MetricGroup = Literal[
    "reconstruction",  # PSNR, SSIM, RMSE
    "perceptual",  # LPIPS, DISTS: need weights
    "attention",  # agreement of attention maps with masks
    "cost",  # parameters, FLOPs, throughput, memory
    "semantic",  # a segmenter's mIoU on generated and on real images
    "distribution",  # FID, KID (need weights), fd_seg, kd_seg (own segmenter)
    "diversity",  # spread between samples
    "editing",  # edit tasks as numbers
    "robustness",  # curves under mask noise
]
EditTask = Literal[
    "reconstruct",
    "style_transfer",
    "global_style_transfer",
    "shape_transfer",
    "style_and_shape_transfer",
    "style_interpolation",
    "shape_interpolation",
    "sampling",
    "absent_style",
]
NoiseKind = Literal["jitter", "erosion", "dilation", "confusion", "dropped", "spurious"]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

# Fields that decide where or how fast, never what is computed: not part of any fingerprint.
NUISANCE_FIELDS: tuple[str, ...] = ("name", "batch_size", "weights_dir")


class DistributionConfig(Section):
    """Distances between the distribution of generated and of real images."""

    features: tuple[Literal["inception", "segmenter"], ...]  # inception: fid, kid; segmenter: fd_seg, kd_seg
    reference_split: Literal["train", "val", "test"]  # real images compared with
    reference_images: Count | None  # first so many of that split; null: all
    kid_subsets: Count
    kid_subset_size: Annotated[int, Field(ge=2)]  # capped at the smaller set, and said so
    bootstrap: Annotated[int, Field(ge=0)]  # resamplings of the generated images for the interval; 0: none
    floor: bool  # also the distance between two halves of the real images
    seed: Seed


class SegmenterConfig(Section):
    """The segmenter whose agreement and features are measured; trained by the project on the train split unless external."""

    architecture: Literal["unet", "deeplabv3_resnet50"]  # unet: own compact one, for small images
    width: Annotated[int, Field(ge=4)]  # channels of the first unet level
    depth: Annotated[int, Field(ge=1, le=6)]  # halvings of the unet
    iterations: Count
    batch_size: Count
    lr: Annotated[float, Field(gt=0)]
    train_images: Count | None  # first so many of the train split; null: all
    seed: Seed
    external: str | None  # TorchScript file: (N,3,H,W) in [-1,1] -> logits (N,K,H,W); null: the own one


class EditingConfig(Section):
    """Edit tasks as numbers."""

    tasks: tuple[EditTask, ...]
    pairs: Count  # (content, reference) image pairs
    regions: tuple[
        str, ...
    ]  # class groups or classes to edit, in turn; where a label space knows none: its most common classes
    absent: str  # class or group taken out of the reference for absent_style
    steps: Annotated[int, Field(ge=2)]  # positions of an interpolation, both ends included
    seed: Seed


class RobustnessConfig(Section):
    """Reconstruction under a damaged mask."""

    kinds: tuple[NoiseKind, ...]
    levels: tuple[Annotated[float, Field(gt=0, le=1)], ...]  # ascending strengths; 0 is always measured as well
    images: Count
    seed: Seed

    @model_validator(mode="after")
    def _ascending(self) -> RobustnessConfig:
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels must ascend without repetition")
        return self


class DiversityConfig(Section):
    """Several samples for one layout."""

    images: Count  # layouts
    samples: Annotated[int, Field(ge=2)]  # samples of each
    seed: Seed


class ProtocolConfig(Section):
    """One named protocol, whole."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="lower-case letters, digits and _")]
    split: Literal["val", "test"]
    images: Count | None  # first so many images of the split; null: all
    batch_size: Count
    groups: tuple[MetricGroup, ...]
    ssim_range2: bool  # also SSIM as if images had data range 2: only to stand beside numbers published that way
    distribution: DistributionConfig
    segmenter: SegmenterConfig
    editing: EditingConfig
    robustness: RobustnessConfig
    diversity: DiversityConfig
    weights_dir: str | None  # folder searched for weight files before the torch hub cache

    @property
    def digest(self) -> str:
        """Digest of everything in the protocol that can change a number (not of its name, batch size or paths)."""
        values = self.identity_values()
        return canonical_digest({key: value for key, value in values.items() if key not in NUISANCE_FIELDS})

    @model_validator(mode="after")
    def _sound(self) -> ProtocolConfig:
        if len(set(self.groups)) != len(self.groups):
            raise ValueError("groups repeats a group")
        if self.ssim_range2 and self.name != "sean_compat":
            raise ValueError("ssim_range2 belongs to the protocol sean_compat alone: it inflates SSIM")
        return self


PROTOCOLS = NamedFiles("protocol", Path(__file__).parents[1] / "conf" / "protocol", ProtocolConfig)
