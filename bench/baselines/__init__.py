"""What the package is measured against: the published formulation of RATE, in our own writing.

It is deliberately slow wherever the published formulation is: that cost is what a speed ratio is about.
Do not optimise it. `host_copies=False` gives the same formulation without its traffic to the host.
"""

from bench.baselines.published_acting import PublishedActor, rollout
from bench.baselines.published_attention import PublishedAttention, published_mask
from bench.baselines.published_layers import PublishedMemoryGate
from bench.baselines.published_model import PublishedRATE
from bench.baselines.training_step import PublishedTrainingStep, published_training_step

__all__ = [
    "PublishedActor",
    "PublishedAttention",
    "PublishedMemoryGate",
    "PublishedRATE",
    "PublishedTrainingStep",
    "published_mask",
    "published_training_step",
    "rollout",
]
