"""Training: budget, optimisers, exponential moving average, precision, and how often things are written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.schema.base import Section, later

Positive = Annotated[int, Field(ge=1)]


class TrainConfig(Section):
    """How one run is trained. Every default is in `conf/train/*.yaml` and the recipes."""

    stage: Literal["gan", "mapping"]  # mapping: train the noise-to-style network of a finished run
    iterations: Annotated[int, Field(ge=0)] | None  # generator updates; give this or epochs
    epochs: Positive | None  # passes over the training split
    batch_size: Positive  # images an update sees, all processes and accumulation steps together
    accumulate: Positive  # micro-batches an update is split into
    lr: Annotated[float, Field(gt=0)]  # base rate an update, before the two-time-scale rule
    ttur: bool  # two-time-scale rule: generator lr / 2, discriminator lr * 2
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]  # Adam
    weight_decay: Annotated[float, Field(ge=0)] = later(0.0)  # AdamW's, apart from the gradient; 0 is Adam
    decay_fraction: Annotated[float, Field(ge=0, le=1)]  # last part of the budget over which lr falls linearly to 0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None  # null: evaluate the raw weights
    ema_half_life_images: Annotated[int, Field(ge=1)] | None = later(
        None
    )  # in place of ema_decay: images seen until half is forgotten
    ema_every: Positive  # updates between two EMA steps
    precision: Literal["float32", "bf16"]  # bf16: autocast of the forward passes
    compile: bool | Literal["cuda_graphs"]  # torch.compile of both networks, or that and replayed as CUDA graphs
    channels_last: bool  # memory format of convolutions
    deterministic: Literal["strict", "warn", "off"]  # torch.use_deterministic_algorithms
    log_every: Positive  # updates between two history rows
    validate_every: Positive  # updates between two validations
    validate_images: Positive  # images of the validation split used for the learning curve
    checkpoint_every: Positive  # updates between two checkpoints
    keep_checkpoints: Annotated[int, Field(ge=2)]  # newest ones kept: the last may be damaged

    @model_validator(mode="after")
    def _one_budget(self) -> TrainConfig:
        if (self.iterations is None) == (self.epochs is None):
            raise ValueError("give exactly one of iterations and epochs; set the other to null")
        if self.ema_decay is not None and self.ema_half_life_images is not None:
            raise ValueError("give one of ema_decay and ema_half_life_images; set the other to null")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulate {self.accumulate}")
        if self.compile == "cuda_graphs" and self.accumulate > 1:  # a replay overwrites what the one before it gave out
            raise ValueError(f"compile cuda_graphs holds one micro-batch at a time; accumulate is {self.accumulate}")
        return self

    @property
    def ema_step_decay(self) -> float | None:
        """Decay of one EMA step; None where EMA is off."""
        if self.ema_half_life_images is None:
            return self.ema_decay
        return float(0.5 ** (self.batch_size * self.ema_every / self.ema_half_life_images))

    def total_iterations(self, train_images: int) -> int:
        """Number of updates for a training split of `train_images` (an epoch drops the incomplete last batch)."""
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None, "validated: one of iterations and epochs"
        return self.epochs * max(1, train_images // self.batch_size)


class TrackingConfig(Section):
    """The Weights & Biases mirror: never a condition of a run, never what tables read."""

    mode: Literal["disabled", "offline", "online"]
    project: str
    entity: str | None
    init_timeout_s: Annotated[float, Field(gt=0)]  # then training goes on without the mirror
