"""Two source trees on one machine, in alternation.

Each pair of processes runs one version each; in every round both time the same case, one right after the other, in
changing order. What the machine does meanwhile meets both. Several pairs are started one after another, since a
process keeps for life what its start gave it. On a CPU it is the processor's time that counts, not the wall clock: so
a slowdown by waiting for something else than the processor is not seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.compare.cases import CASES
from bench.compare.trees import ROOT
from bench.compare.verdict import Verdict, judge


@dataclass
class Plan:
    """How two trees are compared.

    Args:
        cases: substrings of the names of the cases to measure; empty for all.
        device: where.
        scale: ``"tiny"`` or ``"cpu"``.
        pairs: pairs of processes.
        rounds: per case and pair.
        threads: of PyTorch, per process.
        min_effect: smallest relative difference that counts.
    """

    cases: tuple[str, ...] = ()
    device: str = "cpu"
    scale: str = "cpu"
    pairs: int = 5
    rounds: int = 9
    threads: int = 1
    min_effect: float = 0.08
    notes: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """The chosen cases.

        Raises:
            ValueError: if a substring matches none.
        """
        for part in self.cases:
            if not any(part in name for name in CASES):
                raise ValueError(f"--case must be part of one of {'; '.join(CASES)}; got {part!r}")
        return [name for name in CASES if not self.cases or any(part in name for part in self.cases)]


class _Worker:
    def __init__(self, tree: Path, path: Path, plan: Plan) -> None:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(path), str(tree)]),
            "OMP_NUM_THREADS": str(plan.threads),
        }
        arguments = [str(tree), plan.device, plan.scale, str(plan.threads)]
        self._process = subprocess.Popen(
            [sys.executable, str(path / "bench/compare/worker.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tree,
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ValueError("a process that measures ended early: see its message above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def compare(old: Path, new: Path, plan: Plan) -> list[Verdict]:
    """Verdicts on all cases of the plan. A case that one version cannot run is left out with a note."""
    names = plan.names()
    ratios: dict[str, list[list[float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench").symlink_to(ROOT / "bench")  # this bench with either version's packages
        for pair in range(plan.pairs):
            order = (old, new) if pair % 2 == 0 else (new, old)
            workers = {tree: _Worker(tree, Path(folder), plan) for tree in dict.fromkeys(order)}
            if old == new:
                first = next(iter(workers.values()))
                sides = (first, _Worker(new, Path(folder), plan))
            else:
                sides = (workers[old], workers[new])
            try:
                for name in names:
                    found = _rounds(name, *sides, plan)
                    if found:
                        ratios[name].append(found)
            finally:
                for worker in sides:
                    worker.close()
    return [judge(name, rows, plan.min_effect) for name, rows in ratios.items() if rows]


def _rounds(name: str, old: _Worker, new: _Worker, plan: Plan) -> list[float]:
    built = [side.ask(do="build", case=name) for side in (old, new)]
    errors = [answer["error"] for answer in built if "error" in answer]
    if errors:
        note = f"{name}: {errors[0]}"
        if note not in plan.notes:
            plan.notes.append(note)
        return []
    calls = built[0]["calls"]  # the same work in a sample of either
    found = []
    for index in range(plan.rounds):
        order = (old, new) if index % 2 == 0 else (new, old)
        seconds = {id(side): side.ask(do="sample", case=name, calls=calls)["seconds"] for side in order}
        found.append(seconds[id(new)] / seconds[id(old)])
    return found
