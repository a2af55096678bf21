"""Steps that make the cost larger are refused, and damping follows them."""

import math
from itertools import pairwise

import pytest
import torch

from flame_fitting.fit.solvers.block_arrow import BlockArrow, BlockVector
from flame_fitting.fit.solvers.levenberg_marquardt import LEAST, Bounds, Damping, newton_factors, shortened, step


def _alone(hessian: float, gradient: float) -> tuple[BlockArrow, BlockVector]:
    """One shared unknown and no frame's."""
    none = torch.zeros(1, 0, 0, dtype=torch.float64)
    corner = torch.tensor([[hessian]], dtype=torch.float64)
    system = BlockArrow(corner, torch.zeros(1, 0, 1, dtype=torch.float64), none, none[:0])
    return system, BlockVector(torch.tensor([gradient], dtype=torch.float64), torch.zeros(1, 0, dtype=torch.float64))


def newton(system: BlockArrow, gradient: BlockVector, *rest) -> BlockVector:
    """`shortened` where nothing is held."""
    factors = newton_factors(system)
    assert factors is not None
    return shortened(system, factors, BlockVector(-gradient.shared, -gradient.frames), *rest)


def _arctan_cost(x: BlockVector) -> float:
    return 0.5 * math.atan(float(x.shared)) ** 2


def test_a_step_that_overshoots_is_refused_and_the_minimum_found_all_the_same():
    """Half the square of arctan: Gauss-Newton's own steps go astray from |x| > 1.39 on."""
    x = BlockVector(torch.tensor([3.0], dtype=torch.float64), torch.zeros(1, 0, dtype=torch.float64))
    damping, costs = Damping(), [_arctan_cost(x)]
    highest = 0.0
    for _ in range(40):
        value = float(x.shared)
        slope = 1 / (1 + value**2)
        system, gradient = _alone(slope**2, slope * math.atan(value))
        x = step(system, gradient, costs[-1], x, _arctan_cost, damping)
        costs.append(_arctan_cost(x))
        highest = max(highest, damping.value)
    assert all(later <= earlier for earlier, later in pairwise(costs))
    assert abs(float(x.shared)) < 1e-6
    # a plain step from 3 leads to -9.5, where the cost is larger
    assert damping.refused >= 1 and highest > 1e-2
    assert damping.value == LEAST


def test_damping_follows_the_gain():
    damping = Damping(1.0)
    damping.refuse()
    damping.refuse()
    assert damping.value == 8.0 and damping.growth == 8.0 and damping.refused == 2
    damping.accept(0.5)  # half of what was promised: as it was
    assert damping.value == 8.0 and damping.growth == 2.0
    damping.accept(1.0)
    assert damping.value == pytest.approx(8 / 3)
    damping.accept(0.05)
    assert damping.value == pytest.approx(8 / 3 * (1 + 0.9**3))
    for _ in range(40):
        damping.accept(1.0)
    assert damping.value == LEAST


def test_where_no_step_helps_nothing_moves():
    x = BlockVector(torch.tensor([1.0], dtype=torch.float64), torch.zeros(1, 0, dtype=torch.float64))
    system, wrong_slope = _alone(1.0, -1.0)  # the cost rises where the slope says that it falls
    damping = Damping()
    there = step(system, wrong_slope, 0.5, x, lambda at: 0.5 * float(at.shared) ** 2, damping)
    assert float(there.shared) == 1.0 and damping.refused > 5
    assert damping.value == LEAST, "the next system begins anew"


def test_one_step_goes_along_a_valley_to_its_end():
    """Two unknowns whose sum is told a million times as exactly as their difference."""
    across, along = (torch.tensor(axis, dtype=torch.float64) / math.sqrt(2) for axis in ([1.0, 1.0], [1.0, -1.0]))
    hessian = torch.outer(across, across) + 1e-6 * torch.outer(along, along)
    best = torch.tensor([3.0, -2.0], dtype=torch.float64)

    def cost(x: BlockVector) -> float:
        return float(0.5 * (x.shared - best) @ hessian @ (x.shared - best))

    frames, none = torch.zeros(1, 0, dtype=torch.float64), torch.zeros(1, 0, 0, dtype=torch.float64)
    system = BlockArrow(hessian, torch.zeros(1, 0, 2, dtype=torch.float64), none, none[:0])
    x = BlockVector(torch.zeros(2, dtype=torch.float64), frames)
    there = step(system, BlockVector(hessian @ (x.shared - best), frames), cost(x), x, cost, Damping())
    torch.testing.assert_close(there.shared, best, atol=1e-3, rtol=0)


@pytest.mark.parametrize("most", [math.inf, 0.3])
def test_a_bound_holds_and_the_rest_finds_its_minimum_beside_it(most: float):
    """0.5 x' H x + g' x with x_0 >= 0, x_1 <= most: by Karush, Kuhn and Tucker x = (0, min(-g_1 / H_11, most))."""
    hessian = torch.tensor([[2.0, 1.5], [1.5, 2.0]], dtype=torch.float64)
    linear = torch.tensor([3.0, -1.0], dtype=torch.float64)

    def cost(x: BlockVector) -> float:
        return float(0.5 * x.frames[0] @ hessian @ x.frames[0] + linear @ x.frames[0])

    empty = torch.zeros(0, dtype=torch.float64)
    system = BlockArrow(empty.reshape(0, 0), empty.reshape(1, 2, 0), hessian[None], hessian[None][:0])
    x = BlockVector(empty, torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    damping = Damping()
    bounds = Bounds(
        torch.tensor([0.0, -torch.inf], dtype=torch.float64), torch.tensor([torch.inf, most], dtype=torch.float64)
    )
    for _ in range(30):
        gradient = BlockVector(empty, x.frames @ hessian + linear)
        x = step(system, gradient, cost(x), x, cost, damping, bounds)
    torch.testing.assert_close(x.frames, torch.tensor([[0.0, min(0.5, most)]], dtype=torch.float64), atol=1e-6, rtol=0)


def test_a_newton_step_that_is_too_long_keeps_its_direction():
    """Half the squares of arctan along the diagonal, and of a millionth of what is across it."""
    across, along = (torch.tensor(axis, dtype=torch.float64) / math.sqrt(2) for axis in ([1.0, 1.0], [1.0, -1.0]))
    frames, none = torch.zeros(1, 0, dtype=torch.float64), torch.zeros(1, 0, 0, dtype=torch.float64)

    def cost(x: BlockVector) -> float:
        return 0.5 * math.atan(float(across @ x.shared)) ** 2 + 0.5e-6 * float(along @ x.shared - 1) ** 2

    def near(x: BlockVector, bounds: Bounds) -> BlockVector:
        value = float(across @ x.shared)
        slope = 1 / (1 + value**2)
        hessian = slope**2 * torch.outer(across, across) + 1e-6 * torch.outer(along, along)
        gradient = slope * math.atan(value) * across + 1e-6 * float(along @ x.shared - 1) * along
        system = BlockArrow(hessian, torch.zeros(1, 0, 2, dtype=torch.float64), none, none[:0])
        return newton(system, BlockVector(gradient, frames), cost(x), x, cost, bounds)

    bounds = Bounds(*torch.zeros(2, 0, dtype=torch.float64))
    x = BlockVector(3.0 * across, frames)
    first = near(x, bounds)
    moved = first.shared - x.shared
    # plain, it goes by -12.49 across and 1 along
    share = float(across @ moved) / -12.49
    assert share in (pytest.approx(0.5, rel=1e-3), pytest.approx(0.25, rel=1e-3))
    assert float(along @ moved) == pytest.approx(share, rel=1e-3)
    for _ in range(8):
        first = near(first, bounds)
    torch.testing.assert_close(first.shared, along, atol=1e-3, rtol=0)


def test_a_step_that_keeps_nothing_of_its_promise_is_not_taken():
    x = BlockVector(torch.tensor([1.0], dtype=torch.float64), torch.zeros(1, 0, dtype=torch.float64))
    system, wrong_slope = _alone(1.0, -1.0)
    bounds = Bounds(*torch.zeros(2, 0, dtype=torch.float64))
    there = newton(system, wrong_slope, 0.5, x, lambda at: 0.5 * float(at.shared) ** 2, bounds)
    assert torch.equal(there.shared, x.shared)
