"""Players of the card games and of the bandit."""

from __future__ import annotations

from typing import Any

import numpy as np

from rate.envs.popgym.experts.base import TaskPlayer


class RepeatFirstPlayer(TaskPlayer):
    """Says the first suit again and again."""

    def first(self, values: np.ndarray) -> None:
        self._suit = int(values)

    def later(self, values: np.ndarray, action: Any) -> None:
        pass

    def act(self) -> int:
        return self._suit


class RepeatPreviousPlayer(TaskPlayer):
    """Keeps the last k suits and says the oldest of them."""

    def first(self, values: np.ndarray) -> None:
        self._suits = [int(values)]

    def later(self, values: np.ndarray, action: Any) -> None:
        self._suits = [*self._suits, int(values)][-self.task.k :]

    def act(self) -> int:
        return self._suits[0] if len(self._suits) == self.task.k else 0


class AutoencodePlayer(TaskPlayer):
    """A stack of the suits shown; the observation that ends the watching shows the last one."""

    def first(self, values: np.ndarray) -> None:
        self._suits, self._playing = [int(values[1])], False

    def later(self, values: np.ndarray, action: Any) -> None:
        if self._playing:
            self._suits.pop()
        else:
            self._suits.append(int(values[1]))
            self._playing = values[0] == 0

    def act(self) -> int:
        return self._suits[-1] if self._playing else 0


class CountRecallPlayer(TaskPlayer):
    """Counts every card dealt."""

    def first(self, values: np.ndarray) -> None:
        self._counts = np.zeros(self.task.num_distinct_cards, np.int64)
        self.later(values, None)

    def later(self, values: np.ndarray, action: Any) -> None:
        dealt, self._asked = values
        self._counts[dealt] += 1

    def act(self) -> int:
        return int(self._counts[self._asked])


class HigherLowerPlayer(TaskPlayer):
    """Counts the cards that are left and guesses the side that holds more of them.

    A guess does not change what is dealt, so the best guess at every step is the best play.
    """

    def first(self, values: np.ndarray) -> None:
        self._left = np.full(13, 4 * self.task.num_decks)
        self.later(values, None)

    def later(self, values: np.ndarray, action: Any) -> None:
        self._rank = int(values)
        self._left[self._rank] -= 1

    def act(self) -> int:
        lower = self._left[: self._rank].sum() > self._left[self._rank + 1 :].sum()
        return int(lower)


class ConcentrationPlayer(TaskPlayer):
    """Forgets no card: takes a pair it knows, else turns a card it does not, and completes it where it can."""

    def first(self, values: np.ndarray) -> None:
        self._shown: dict[int, int] = {}  # card to value, of those not yet won
        self._hidden = list(range(len(values)))[::-1]
        self._turned: int | None = None  # the first card of the running try

    def later(self, values: np.ndarray, action: Any) -> None:
        card = int(action)
        self._shown[card] = int(values[card])
        if card in self._hidden:
            self._hidden.remove(card)
        if self._turned is None:
            self._turned = card
            return
        if self._shown[card] == self._shown[self._turned] and card != self._turned:
            del self._shown[card], self._shown[self._turned]
        self._turned = None

    def act(self) -> int:
        if self._turned is not None:
            partner = self._same(self._shown[self._turned], self._turned)
            if partner is not None:
                return partner
        else:
            for card, value in self._shown.items():
                if self._same(value, card) is not None:
                    return card
        return self._hidden[-1] if self._hidden else next(iter(self._shown), 0)

    def _same(self, value: int, other_than: int) -> int | None:
        return next((c for c, v in self._shown.items() if v == value and c != other_than), None)


class MultiarmedBanditPlayer(TaskPlayer):
    """Thompson sampling: plays the arm that is best in one draw from what is known of all of them."""

    def first(self, values: np.ndarray) -> None:
        self._paid = np.ones(self.task.num_bandits)
        self._not_paid = np.ones(self.task.num_bandits)

    def later(self, values: np.ndarray, action: Any) -> None:
        (self._paid if values else self._not_paid)[action] += 1

    def act(self) -> int:
        return int(self.rng.beta(self._paid, self._not_paid).argmax())
