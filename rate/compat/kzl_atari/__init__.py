"""``mingpt.model_atari`` and ``mingpt.utils.sample`` of github.com/kzl/decision-transformer, with memory on request.

::

    - from mingpt.model_atari import GPT, GPTConfig
    - from mingpt.utils import sample
    + from rate.compat.kzl_atari import GPT, GPTConfig, sample

With ``memory_tokens=0`` the model is the original, and loads its ``state_dict``. With memory a window is read as
segments; acting carries the memory from step to step by itself.
"""

from rate.compat.kzl_atari.config import GPTConfig
from rate.compat.kzl_atari.model import GPT
from rate.compat.kzl_atari.sampling import sample

__all__ = ["GPT", "GPTConfig", "sample"]
