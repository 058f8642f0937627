"""Action-Associative-Retrieval: one environment, many of them at once, and an expert."""

from rate.envs.associative_retrieval.env import AssociativeRetrieval
from rate.envs.associative_retrieval.vector import AssociativeRetrievalVector

__all__ = ["AssociativeRetrieval", "AssociativeRetrievalVector"]
