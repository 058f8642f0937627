"""The settings of the model, as transformers keeps them."""

from typing import Any  # no postponed annotations here: the types of fields are checked at run time

from huggingface_hub.dataclasses import strict
from transformers import DecisionTransformerConfig

_UNSUPPORTED = ("add_cross_attention", "reorder_and_upcast_attn")


@strict
class RateConfig(DecisionTransformerConfig):
    """``DecisionTransformerConfig`` with memory.

    Args:
        memory_tokens: m, memory tokens between segments; 0 is the Decision Transformer.
        segment_length: steps per segment; by default a third of ``max_length``, rounded up.
        gate_heads: heads of the memory retention gate; 0 hands memory over as written.
        max_length: steps of a window: how far acting looks back without memory.

    Its other fields are those of ``DecisionTransformerConfig``.

    Raises:
        ValueError: for a setting that the model does not have.
        StrictDataclassError: for one of another type.
    """

    model_type = "rate_decision_transformer"

    memory_tokens: int = 0
    segment_length: int | None = None
    gate_heads: int = 1
    max_length: int = 20
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name in _UNSUPPORTED:
            if getattr(self, name):
                raise ValueError(f"{name} must be False: RateModel does not have it")
        if self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {self.max_length}")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers'; the settings of another kind of model are an error.

        Raises:
            ValueError: if they are not this model's.
        """
        kind = config_dict.get("model_type", cls.model_type)
        if kind != cls.model_type:
            hint = ": RateModel.from_decision_transformer reads it" if kind == "decision_transformer" else ""
            raise ValueError(f"config.json must be of model_type {cls.model_type!r}, got {kind!r}{hint}")
        return super().from_dict(config_dict, **kwargs)
