"""Action-Associative-Retrieval in the registry."""

from rate.envs.registry import Task
from rate.envs.score import Score

TASKS = (
    Task(
        name="associative-retrieval",
        family="associative-retrieval",
        summary="leave by one of two ways, wait, return by the same one: the only trace is the own first action",
        entry_point="rate.envs.associative_retrieval:AssociativeRetrieval",
        vector_entry_point="rate.envs.associative_retrieval:AssociativeRetrievalVector",
        options={"length": 90, "noise": True, "success_reward": 1.0, "failure_reward": -1.0},
        observation="float32 [3]: state (0 or 1), flag at the last step, noise",
        action="3: go by way 0, go by way 1, wait",
        max_steps=90,
        target_returns=(1.0,),
        side_by_side=1000,
        temperature=1.0,  # the likeliest first action is always the same: sampling leaves by both ways
        score=Score("success"),
        axis="length",
        protocol=(
            "10 runs; trained on episodes of 90 steps, tried at 180; the paper gives no success rates, only how the "
            "probabilities of returning by either way go together over training: correlation +0.80 for RATE and "
            "-0.97 for DT at 180 steps (appendix D, figure 12)"
        ),
        expert="rate.envs.associative_retrieval.expert:expert",
    ),
)
