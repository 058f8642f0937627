"""Acting through a CUDA graph: one step, from a numpy observation to a numpy action, recorded once and replayed."""

from __future__ import annotations

import numpy as np
import torch

from bench.runner import Unavailable
from rate import RATE
from rate.acting.export import recurrence_parameters, recurrence_shape
from rate_kernels.recurrence import RecurrenceOutput, SegmentRecurrence, TokenInput


class GraphedActor:
    """Greedy steps of discrete actions in B environments that stand at the same step, return-to-go 1.

    Args:
        weights: dtype in which the engine keeps the parameters.

    Raises:
        Unavailable: without a CUDA device.
    """

    def __init__(self, model: RATE, batch: int, weights: torch.dtype) -> None:
        device = model.content_bias.device
        if device.type != "cuda":
            raise Unavailable("needs a CUDA device")
        shape = recurrence_shape(model.config)
        self.engine = SegmentRecurrence(
            shape, recurrence_parameters(model), batch, backend="native", weights=weights
        )
        self.steps, self.position = model.config.segment_length, 0
        self.count = torch.full((batch,), 2, device=device)
        self.actions = torch.zeros(batch, dtype=torch.int64, device=device)
        self.observations = torch.zeros(batch, shape.observation_size, device=device)
        self.host = torch.zeros(batch, shape.observation_size, pin_memory=True)
        tokens = TokenInput(torch.ones(batch, device=device), self.observations, self.actions)
        output = RecurrenceOutput(
            torch.zeros(batch, shape.d_model, device=device),
            torch.zeros(batch, shape.action_size, device=device),
        )

        def step() -> None:
            self.observations.copy_(self.host, non_blocking=True)
            self.engine.launch_step(self.count, tokens, output)
            self.actions.copy_(output.predictions.argmax(-1))

        self.engine.reset()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            step()
        self.engine.reset()

    def act(self, observation: np.ndarray) -> np.ndarray:
        """``[B, size]`` -> int64 ``[B]``."""
        if self.position == self.steps:
            ones = torch.ones(len(observation), dtype=torch.int64)
            self.engine.end_segment(None, ones, TokenInput(actions=self.actions))
            self.position = 0
        if self.position < 2:
            self.count.fill_(2 + self.position)
        self.host.copy_(torch.from_numpy(observation))
        self.graph.replay()
        self.position += 1
        return self.actions.cpu().numpy()
