"""When a first-order stage has arrived: its loss, averaged over a window of steps, hardly falls any more."""

from typing import Any

from torch import Tensor


class Plateau:
    """Sums losses on their device and reads them once a window."""

    def __init__(self, below: float, window: int) -> None:
        """`below` is the share of the loss by which it must fall from a window of steps to the next; 0: any will do."""
        self.below, self._window = below, window
        self._total: Tensor | None = None
        self._count = 0
        self._last: float | None = None

    def reached(self, loss: Tensor) -> bool:
        """After a step: whether the window that it ends is hardly better than the one before."""
        if not self.below:
            return False
        self._total = loss.detach().clone() if self._total is None else self._total + loss.detach()
        self._count += 1
        if self._count < self._window:
            return False
        now, before = float(self._total) / self._count, self._last
        self._total, self._count, self._last = None, 0, now
        return before is not None and before - now < self.below * abs(before)

    def restart(self) -> None:
        """Losses from here on do not compare with those before."""
        self._total, self._count, self._last = None, 0, None

    def as_dict(self) -> dict[str, Any]:
        """Plain values that `take_up` takes; the sum is read."""
        total = None if self._total is None else self._total.double().item()
        return {"total": total, "count": self._count, "last": self._last}

    def take_up(self, saved: dict[str, Any], like: Tensor) -> None:
        """As it was when `as_dict` was called."""
        total = saved["total"]
        self._total = None if total is None else like.new_tensor(total)
        self._count, self._last = int(saved["count"]), saved["last"]
