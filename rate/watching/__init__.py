"""What is remembered: an episode played, where the write tokens looked in each of its segments, and a film of both."""

from rate.watching.film import draw
from rate.watching.looks import Look, written_from
from rate.watching.watch import Watched, watch

__all__ = ["Look", "Watched", "draw", "watch", "written_from"]
