"""RATE in the conventions of Hugging Face transformers, and our attention for its Decision Transformer.

::

    - from transformers import DecisionTransformerConfig, DecisionTransformerModel
    + from rate.compat.huggingface import RateConfig, RateModel

Importing this module registers the model with transformers' Auto classes and our attention, ``"rate"``, with its
attention interface. It needs ``pip install 'rate-kernels[huggingface]'``.
"""

try:
    import transformers
    from transformers import AttentionInterface, AttentionMaskInterface, DecisionTransformerModel  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"rate.compat.huggingface needs transformers 5.4 or newer: pip install 'rate-kernels[huggingface]' ({error})"
    ) from error

from rate.compat.huggingface.attention import disable, enable
from rate.compat.huggingface.config import RateConfig
from rate.compat.huggingface.model import RateModel
from rate.compat.huggingface.output import RateOutput

transformers.AutoConfig.register(RateConfig.model_type, RateConfig, exist_ok=True)
transformers.AutoModel.register(RateConfig, RateModel, exist_ok=True)

__all__ = ["RateConfig", "RateModel", "RateOutput", "disable", "enable"]
