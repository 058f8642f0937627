"""Players of the board games: what is known of the board gives every cell a chance."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np

from rate.envs.popgym.experts.base import TaskPlayer


class BattleshipPlayer(TaskPlayer):
    """Shoots where most placements of ships are still possible, those through known hits counting far more."""

    _HIT = 50.0

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        size = self.size = int(self.task.board_size)
        placements = []
        for length in self.task.ship_sizes:
            for line in range(size):
                for start in range(size - length + 1):
                    lying = [line * size + start + i for i in range(length)]
                    standing = [(start + i) * size + line for i in range(length)]
                    placements += [lying, standing]
        lengths = np.array([len(cells) for cells in placements])
        self._cells = np.concatenate(placements)
        self._starts = np.cumsum(lengths) - lengths
        self._placement = np.repeat(np.arange(len(placements)), lengths)

    def first(self, values: np.ndarray) -> None:
        self._hit, self._missed = np.zeros((2, self.size**2), bool)

    def later(self, values: np.ndarray, action: Any) -> None:
        (self._hit if values else self._missed)[action] = True

    def act(self) -> int:
        misses, hits = (
            np.add.reduceat(known[self._cells].astype(np.int64), self._starts)
            for known in (self._missed, self._hit)
        )
        weight = np.where(misses > 0, 0.0, self._HIT**hits)
        chance = np.bincount(self._cells, weight[self._placement], self.size**2)
        chance[self._hit | self._missed] = -1.0
        return int(chance.argmax())


class MineSweeperPlayer(TaskPlayer):
    """Opens the cell that is least likely a mine, by counting every layout that fits the numbers seen.

    Unopened cells that border the same opened ones are alike: they are counted together, by how many of them are mines.
    Groups that share no number are independent of each other but for the number of mines on the board.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.rows, self.columns = self.task.dims
        self.mines = int(self.task.num_mines)
        self._around = [self._neighbours(cell) for cell in range(self.rows * self.columns)]

    def first(self, values: np.ndarray) -> None:
        self._number: dict[int, int] = {}

    def later(self, values: np.ndarray, action: Any) -> None:
        self._number[int(action)] = int(values)

    def act(self) -> int:
        risk = self._risks()
        risk[list(self._number)] = np.inf
        # Of equal risks the cell with fewest unopened ones around: its number is the easiest to use up.
        closed = np.array([sum(c not in self._number for c in around) for around in self._around])
        return int((risk + 1e-9 * closed).argmin())

    def _neighbours(self, cell: int) -> list[int]:
        row, column = divmod(cell, self.columns)
        return [
            i * self.columns + j
            for i in range(max(0, row - 1), min(self.rows, row + 2))
            for j in range(max(0, column - 1), min(self.columns, column + 2))
            if (i, j) != (row, column)
        ]

    def _risks(self) -> np.ndarray:
        """Chance of a mine, float64 ``[cells]``; what it says of opened cells means nothing."""
        groups = self._groups()
        parts = [_Part(part, self._number, self.mines) for part in _connected(list(groups))]
        away = [c for c in range(self.rows * self.columns) if c not in self._number and not self._clues(c)]
        # Ways to place the mines that are left in the cells that no number speaks of.
        elsewhere = np.array([float(comb(len(away), m)) for m in range(self.mines + 1)])
        risk = np.zeros(self.rows * self.columns)
        total = _joined([part.ways(groups) for part in parts] + [elsewhere], self.mines)
        if away:
            one_fixed = np.array([0.0] + [float(comb(len(away) - 1, m)) for m in range(self.mines)])
            risk[away] = _joined([part.ways(groups) for part in parts] + [one_fixed], self.mines) / total
        for index, part in enumerate(parts):
            others = [other.ways(groups) for i, other in enumerate(parts) if i != index] + [elsewhere]
            for group in part.groups:
                expected = _joined([*others, part.mines_in(group, groups)], self.mines)
                risk[groups[group]] = expected / total / len(groups[group])
        return risk

    def _clues(self, cell: int) -> tuple[int, ...]:
        return tuple(around for around in self._around[cell] if around in self._number)

    def _groups(self) -> dict[tuple[int, ...], list[int]]:
        """Unopened cells by the opened ones they border, where there are any."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for cell in range(self.rows * self.columns):
            if cell not in self._number and self._clues(cell):
                groups.setdefault(self._clues(cell), []).append(cell)
        return groups


class _Part:
    """Groups of cells tied to each other by numbers, and all ways to give them mines."""

    def __init__(self, groups: list[tuple[int, ...]], number: dict[int, int], mines: int) -> None:
        self.groups, self._limit = groups, mines
        self._missing = {clue: number[clue] for group in groups for clue in group}
        self._last = {clue: i for i, group in enumerate(groups) for clue in group}
        self._layouts: list[tuple[int, ...]] | None = None
        self._ways: np.ndarray | None = None

    def layouts(self, cells: dict[tuple[int, ...], list[int]]) -> list[tuple[int, ...]]:
        """Mines per group, every choice that fits the numbers."""
        if self._layouts is None:
            self._layouts = []
            self._place([], self._limit, cells)
        return self._layouts

    def ways(self, cells: dict[tuple[int, ...], list[int]]) -> np.ndarray:
        """Number of layouts of single cells by mines used, float64 ``[mines + 1]``."""
        if self._ways is None:
            self._ways = self._sum(cells, lambda layout: 1)
        return self._ways

    def mines_in(self, group: tuple[int, ...], cells: dict[tuple[int, ...], list[int]]) -> np.ndarray:
        """As :meth:`ways`, each layout counted as often as the group has mines in it."""
        index = self.groups.index(group)
        return self._sum(cells, lambda layout: layout[index])

    def _sum(self, cells: dict[tuple[int, ...], list[int]], times: Any) -> np.ndarray:
        ways = np.zeros(self._limit + 1)
        for layout in self.layouts(cells):
            weight = times(layout)
            for group, mines in zip(self.groups, layout, strict=True):
                weight *= comb(len(cells[group]), mines)
            ways[sum(layout)] += weight
        return ways

    def _place(self, chosen: list[int], left: int, cells: dict[tuple[int, ...], list[int]]) -> None:
        if len(chosen) == len(self.groups):
            assert self._layouts is not None
            self._layouts.append(tuple(chosen))
            return
        index, group = len(chosen), self.groups[len(chosen)]
        most = min(left, len(cells[group]), *(self._missing[clue] for clue in group))
        for mines in range(most + 1):
            for clue in group:
                self._missing[clue] -= mines
            if all(self._missing[clue] == 0 for clue in group if self._last[clue] == index):
                self._place([*chosen, mines], left - mines, cells)
            for clue in group:
                self._missing[clue] += mines


def _connected(groups: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Groups that share a number, directly or through others, together."""
    parts: list[tuple[set[int], list[tuple[int, ...]]]] = []
    for group in groups:
        joined: tuple[set[int], list[tuple[int, ...]]] = (set(group), [group])
        apart = []
        for clues, members in parts:
            if clues & joined[0]:
                joined = (joined[0] | clues, members + joined[1])
            else:
                apart.append((clues, members))
        parts = [*apart, joined]
    return [members for _, members in parts]


def _joined(ways: list[np.ndarray], mines: int) -> float:
    """Ways to place ``mines`` mines when each part may take any number of them."""
    product = np.array([1.0])
    for part in ways:
        product = np.convolve(product, part)[: mines + 1]
    return float(product[mines]) if len(product) > mines else 0.0
