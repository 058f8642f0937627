"""Acting one environment step at a time, in many environments at once."""

from rate.acting.actor import Actor

__all__ = ["Actor"]
