"""Which views a step looks at: every view as often as every other, none twice in one step."""

from collections import Counter

import pytest
import torch

from flame_fitting.fit.solvers.view_order import ViewOrder


@pytest.mark.parametrize(("total", "count"), [(9, 8), (13, 8), (16, 8), (13, 5), (7, 3), (8, 8), (5, 1)])
def test_no_view_comes_twice_into_a_draw_and_every_round_has_all(total: int, count: int) -> None:
    rounds = set()
    for seed in range(50):
        order = ViewOrder(total, torch.Generator().manual_seed(seed))
        drawn = [order.draw(count) for _ in range(3 * total)]
        assert all(len(set(rows)) == count for rows in drawn)
        row = [number for rows in drawn for number in rows]
        for start in range(0, len(row), total):
            assert sorted(row[start : start + total]) == list(range(total)) or start + total > len(row)
        assert max(Counter(row).values()) - min(Counter(row).values()) <= 1
        rounds.add(tuple(row[:total]))
    assert len(rounds) > min(40, total), "the order is drawn"


def test_more_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="3"):
        ViewOrder(3, torch.Generator()).draw(4)
