"""Several models on the same task and data, over several seeds: trained, tried, tabulated and drawn."""

from rate.comparison.plan import Plan, places
from rate.comparison.runs import Interrupted, RunResult, perform
from rate.comparison.summary import Cell, summarise

__all__ = ["Cell", "Interrupted", "Plan", "RunResult", "perform", "places", "summarise"]
