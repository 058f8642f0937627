"""RATE, the Recurrent Action Transformer with Memory: the model, its training and its acting.

Importing this package needs torch, numpy and safetensors; gymnasium and minari are loaded when first used.
"""

from rate.acting import Actor
from rate.config import RateConfig
from rate.model import RATE, RateOutput
from rate.state import SegmentState

__all__ = ["RATE", "Actor", "RateConfig", "RateOutput", "SegmentState"]
