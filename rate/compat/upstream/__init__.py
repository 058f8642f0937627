"""The published RATE code (github.com/CognitiveAISystems/RATE): its model class, and its checkpoints both ways.

Only parameter names, constructor arguments and calls are shared with it. What the published model does that new models
do not is a setting of :class:`rate.RateConfig`: the published block, ``shift="transformer_xl"``,
``write_last_action=False`` and, with images, ``return_tanh``.
"""

from rate.compat.upstream.checkpoints import load, to_upstream
from rate.compat.upstream.model import RATE
from rate.compat.upstream.settings import config_from_upstream, config_to_upstream

__all__ = ["RATE", "config_from_upstream", "config_to_upstream", "load", "to_upstream"]
