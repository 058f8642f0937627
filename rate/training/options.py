"""What a training run is made of: model, optimisation, and how often it saves and looks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from rate.config import Family, RateConfig
from rate.data import SpaceSpec


@dataclass(frozen=True)
class ModelOptions:
    """The model's settings that do not follow from the data; see :class:`rate.RateConfig`."""

    family: Annotated[Family, tyro.conf.arg(aliases=["--model"])] = "rate"
    """rate, rmt (no gate, no cache), trxl and gtrxl (cache only), dt (each segment alone), dt-long (all segments as
    one), or bc-lstm (an LSTM over observations and previous actions)."""
    segment_length: int = 20
    """K, environment steps per segment."""
    segments: int = 3
    """N, segments of a training window."""
    num_memory: int = 5
    """Memory tokens m."""
    cache_len: int = 0
    """Cached hidden states of earlier segments, in tokens per layer."""
    gate_heads: int = 1
    """Heads of the memory retention gate; 0 hands memory over as written."""
    gate_activation: Literal["relu", "leaky_relu", "tanh", "none"] = "relu"
    """Activation on what was written, before the gate."""
    d_model: int = 64
    """Width of the residual stream."""
    num_layers: int = 3
    """Transformer layers."""
    num_heads: int = 4
    """Attention heads."""
    d_head: int = 0
    """Width of a head; 0 for d_model / num_heads."""
    d_inner: int = 256
    """Hidden width of the feed-forward part; 0 leaves it out."""
    block: Literal["pre_norm", "published"] = "pre_norm"
    """Pre-norm layers, or the published ones (residual added twice, norm after)."""
    gating: bool = False
    """GTrXL's gated recurrent units in place of residual sums."""
    shift: Literal["signed", "transformer_xl"] = "signed"
    """Distances of memory tokens to tokens ahead: true ones, or what the published shift leaves there."""
    dropout: float = 0.1
    """Dropout on embeddings, attention outputs, feed-forward and last output."""
    attention_dropout: float = 0.0
    """Dropout on attention weights."""
    image_padding: int = 0
    """Padding of the image encoder's convolutions."""
    return_scale: float = 1.0
    """Returns-to-go are divided by this."""
    normalize_observations: bool = False
    """Standardise vector observations by the data's mean and deviation, kept with the model."""

    def window(self) -> tuple[int, int]:
        """Steps of the model's segments, and how many of them a training window has."""
        if self.family == "dt-long":
            return self.segment_length * self.segments, 1
        return self.segment_length, 1 if self.family == "dt" else self.segments

    def config(self, observations: SpaceSpec, actions: SpaceSpec, action_scale: float = 1.0) -> RateConfig:
        """The configuration for data with these spaces."""
        settings = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("family", "segments")
        }
        settings["normalize_observations"] = self.normalize_observations and observations.kind == "vector"
        return RateConfig.family(
            self.family,
            self.segments,
            observation=observations.kind,
            observation_shape=observations.shape,
            num_observations=observations.n or 0,
            action=actions.kind,
            action_size=actions.n if actions.kind == "discrete" else actions.shape[0],
            action_scale=action_scale,
            **settings,
        )


@dataclass(frozen=True)
class TrainingOptions:
    """Optimisation, checkpoints and evaluation."""

    updates: int = 1000
    """Batches to train on; without effect where epochs is set."""
    epochs: int = 0
    """Passes over the data; 0 trains for the given updates."""
    batch_size: int = 64
    """Windows per batch."""
    lr: float = 3e-4
    """Peak learning rate of AdamW."""
    warmup: int = 50
    """Updates of linear warm-up."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up; cosine ends at a tenth of the peak."""
    weight_decay: float = 1e-3
    """Decoupled weight decay, on matrices only."""
    beta2: float = 0.999
    """AdamW's second decay rate."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 leaves it as it is."""
    regime: Literal["full", "published"] = "full"
    """full: one step per batch through the loss of all segments. published: a step per segment, memory detached."""
    gradient_span: int = 0
    """Segments that a loss reaches back through the memory, itself included; 0 for all of them."""
    replay: bool = True
    """Keep the activations of one segment at a time and compute them again in the backward pass."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the matrix products under autocast."""
    compile: bool = False
    """Run the model through torch.compile."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    threads: int = 0
    """CPU threads of PyTorch; 0 leaves its choice."""
    workers: int = 0
    """Processes that read data and make batches ahead; 0 makes them in the process that trains."""
    seed: int = 0
    """Of the parameters, the batches, dropout and evaluation."""
    checkpoint_every: int = 100
    """Updates between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    eval_every: int = 100
    """Updates between evaluations; 0 for none."""
    eval_episodes: int = 100
    """Episodes per evaluation."""

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "checkpoint_every", "keep_checkpoints", "eval_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in (
            "warmup",
            "weight_decay",
            "clip",
            "epochs",
            "gradient_span",
            "threads",
            "workers",
            "eval_every",
            "seed",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")


@dataclass(frozen=True)
class RunOptions:
    """Everything that defines a run; kept in its folder as ``run.json``."""

    task: str | None = None
    """Any task of rate.envs: what is evaluated, and, without a data set, whose expert is recorded."""
    options: tuple[str, ...] = ()
    """Of the task, each NAME=VALUE."""
    dataset: Annotated[str | None, tyro.conf.arg(aliases=["--data"])] = None
    """A data set: a Minari id, or a file or folder of any layout that rate data info knows."""
    data_limit: int = 0
    """Read the first episodes of the data set only, of at most this many steps; 0 for all (DQN replay: 500,000)."""
    num_actions: int = 0
    """Discrete actions of the data set's environment, where its files do not say; 0 asks the task, then the files."""
    episodes: int = 2000
    """Episodes of the task's own data, where no data set is named."""
    corridor: tuple[int, ...] = ()
    """T-Maze: corridor lengths of the task's own data."""
    eval_corridor: tuple[int, ...] = ()
    """T-Maze: corridor lengths of the evaluations while training."""
    target_return: float | None = None
    """The return asked for when acting; the task's own by default, 1 where no task is known."""
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
