"""Config section `protocol`: what an evaluation is. Defaults: `pipeline/conf/protocol/*.yaml`.

A protocol decides which metrics are computed on which images, with which reference and which settings. Everything here that
can change a number enters that number's fingerprint (`pipeline.evaluation.rows`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.identity import canonical_digest
from pipeline.schema.base import Section, later
from pipeline.schema.data import NoiseKind
from pipeline.schema.files import NamedFiles

MetricGroup = Literal[
    "reconstruction",  # PSNR, SSIM, RMSE
    "perceptual",  # HaarPSI; LPIPS, DISTS: need weights
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
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

# Fields that decide where or how fast, never what is computed: not part of any fingerprint.
NUISANCE_FIELDS: tuple[str, ...] = ("name", "batch_size", "weights_dir")
USE_SEGMENTER: frozenset[MetricGroup] = frozenset({"semantic", "distribution"})
# What a digest holds of a segmenter that no group uses: the values of the first version, so that what was measured stays measured.
UNUSED_SEGMENTER: dict[str, Any] = {
    "architecture": "unet", "width": 8, "depth": 2, "iterations": 600, "batch_size": 8, "lr": 1.0e-2, "train_images": 512,
    "seed": 0, "external": None,
}  # fmt: skip
# Metrics whose arithmetic has changed since protocols have digests, with their version in `records.metric_specs`: a protocol that
# measures one has another digest, so that records from before are measured again and two versions never stand in one column.
REVISED: dict[str, int] = {"fd_seg": 2, "kd_seg_x1000": 2}


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


class StoppingConfig(Section):
    """When the segmenter's training ends: by a part of the train split that it does not learn from."""

    held_back: Annotated[float, Field(gt=0, lt=1)]  # share of the training images
    every: Count  # updates between two looks at them
    patience: Count  # looks without a mean IoU better by `gain`, then the best weights so far are taken
    gain: Annotated[float, Field(ge=0, lt=1)]
    average: Annotated[float, Field(ge=0, lt=1)]  # decay of the running mean of the weights that is looked at; 0: none


class AugmentationConfig(Section):
    """What training images of the segmenter go through beside mirroring."""

    scale: Annotated[float, Field(ge=0, le=1)]  # zoom by exp(u), |u| <= scale, then moved as far as that leaves room
    colour: Annotated[float, Field(ge=0, le=1)]  # channels multiplied by exp(u), and all moved by u of half the range


class SegmenterConfig(Section):
    """The segmenter whose agreement and features are measured; trained by the project on the train split unless external."""

    architecture: Literal["unet", "deeplabv3_resnet50"]  # unet: own compact one, for small images
    width: Annotated[int, Field(ge=4)]  # channels of the first unet level
    depth: Annotated[int, Field(ge=1, le=6)]  # halvings of the unet
    iterations: Count  # at most, with `stopping`
    batch_size: Count
    lr: Annotated[float, Field(gt=0)]
    train_images: Count | None  # first so many of the train split; null: all
    seed: Seed
    dice: Annotated[float, Field(ge=0)] = later(0.0)  # weight of soft Dice beside the cross-entropy
    stopping: StoppingConfig | None = later(None)  # null: after `iterations`, with a rate that ends at 0 there
    augmentation: AugmentationConfig | None = later(None)
    external: str | None  # TorchScript file: (N,3,H,W) in [-1,1] -> logits (N,K,H,W); null: the own one


class EditingConfig(Section):
    """Edit tasks as numbers."""

    tasks: tuple[EditTask, ...]
    pairs: Count  # (content, reference) image pairs
    # Class groups or classes to edit, in turn; where a label space knows none: its most common classes.
    regions: tuple[str, ...]
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


class TuningConfig(Section):
    """Pivotal tuning: after its codes are found, the network's weights follow the photo, one photo at a time."""

    steps: Annotated[int, Field(ge=0)]  # of Adam on the weights, a photo; 0: off (as released)
    lr: Annotated[float, Field(gt=0)]
    locality: Annotated[float, Field(ge=0)]  # weight of what changes away from the photo's codes; 0: not looked at
    locality_distance: Annotated[
        float, Field(gt=0)
    ]  # of where that is looked at, from the photo's codes towards sampled ones


UNTUNED = TuningConfig(steps=0, lr=1e-4, locality=0.0, locality_distance=30.0)


class InversionConfig(Section):
    """How the codes of a photo are found, for families that draw their layout themselves: start, budget, weights of the loss."""

    start: Literal["mean", "encoder"]  # the mean code (as released), or what the family's encoder makes of the photo
    steps: Annotated[int, Field(ge=0)]  # of Adam on the codes; 0: the start is the end
    lr: Annotated[float, Field(gt=0)]
    warm_up: Annotated[float, Field(ge=0, lt=1)]  # first share of the steps, over which lr rises from 0
    cool_down: Annotated[float, Field(ge=0, lt=1)]  # last share, over which it falls to 0
    perceptual: Annotated[
        float, Field(ge=0)
    ]  # weight of LPIPS on VGG-16; without its weights, of L1 at `pixel_scales` scales
    pixel_scales: Annotated[int, Field(ge=1, le=6)]
    mse: Annotated[float, Field(ge=0)]  # weight of the squared distance to the photo
    code: Annotated[float, Field(ge=0)]  # weight of the squared distance to the mean code
    mask: Annotated[
        float, Field(ge=0)
    ]  # weight of the cross-entropy of the layout to the given mask (ours); 0: photo alone
    damaged_mask: Annotated[float, Field(ge=0)]  # the same in group robustness, whose masks are damaged
    tuning: TuningConfig = later(UNTUNED)  # what follows, with the codes fixed


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
    inversion: InversionConfig | None = later(None)  # read by families that draw their layout themselves
    weights_dir: str | None  # folder searched for weight files before the torch hub cache

    @property
    def digest(self) -> str:
        """Digest of everything in the protocol that can change a number (not of its name, batch size or paths)."""
        return self.digest_for(inverts=False)

    def digest_for(self, *, inverts: bool) -> str:
        """`digest` as it holds for a family that inverts photos; for any other, section `inversion` changes nothing.

        Section `segmenter` changes nothing either, where no group uses it; a metric whose arithmetic has changed does.
        """
        unread = NUISANCE_FIELDS if inverts else (*NUISANCE_FIELDS, "inversion")
        values = {key: value for key, value in self.identity_values().items() if key not in unread}
        if not USE_SEGMENTER.intersection(self.groups):
            values["segmenter"] = UNUSED_SEGMENTER
        if "distribution" in self.groups and "segmenter" in self.distribution.features:
            values["revised"] = REVISED
        return canonical_digest(values)

    @model_validator(mode="after")
    def _sound(self) -> ProtocolConfig:
        if len(set(self.groups)) != len(self.groups):
            raise ValueError("groups repeats a group")
        if self.ssim_range2 and self.name != "sean_compat":
            raise ValueError("ssim_range2 belongs to the protocol sean_compat alone: it inflates SSIM")
        return self


PROTOCOLS = NamedFiles("protocol", Path(__file__).parents[1] / "conf" / "protocol", ProtocolConfig)
