"""Second order on landmarks and dense geometry: Levenberg-Marquardt over all timesteps at once.

Minimised is half of
    N_l mean_i w_i rho(|p_i - l_i|^2 / s_i^2)  +  N_d mean_v w_v rho((n_c . (v - c_v))^2 / s_d^2)
        +  priors  +  smoothness over time,
where rho is Geman-McClure, p_i a point of the head moved by its landmark's bias (`biases`), c_v the closest visible
point of the avatar, and N the number of independent measurements that a term counts for (`residuals`).
Correspondences are held while a step is looked for and found anew after it. Timesteps are measured one after the other,
so that only their blocks of the system are kept.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.keeping import Keeper
from flame_fitting.fit.loss_curve import LossCurve
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.solvers.block_arrow import BlockArrow, BlockVector, Factors
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.evidence_terms import points_alone
from flame_fitting.fit.solvers.levenberg_marquardt import Damping, holds, newton_factors, shortened, step
from flame_fitting.fit.solvers.marginal import FrameVolume
from flame_fitting.fit.solvers.posterior import Posterior, posterior_of
from flame_fitting.fit.solvers.problem import GaussNewtonSettings, Point, Problem
from flame_fitting.fit.solvers.residuals import Measurements
from flame_fitting.fit.state import Underway
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.head.model import HeadModel

MARGINAL_STEPS = 6
"""Newton steps toward the marginal mode, at most, that it needs from far away."""
STEADYING_STEPS = 4
"""Steps of the timesteps alone by what a sequence's changes were found to be, at most."""
_SETTLED = 0.1
"""Step, in standard deviations of what it moves, that ends them."""
_CONVERGED = 1e-7
"""Relative change of a cost without correspondences that ends the iterations."""


class Solution(NamedTuple):
    """What a solver found, and how well it knows it."""

    parameters: FitParameters
    posterior: Posterior
    iterations: int
    """Systems that were solved."""
    refused: int
    """Steps that made the cost larger and were not taken."""
    cost: float
    """What is minimised, at the parameters."""
    bias: Float[Tensor, "B 3"]
    """Of the landmarks in the order of `Biases`, m."""


def gauss_newton(
    head: HeadModel,
    parameters: FitParameters,
    targets: Sequence[FrameTarget],
    columns: Columns,
    prior: PriorConfig,
    settings: GaussNewtonSettings,
    surface: SurfaceWeights | None = None,
    report: Callable[[int], None] | None = None,
    keeper: Keeper | None = None,
    left: Underway | None = None,
    before: FitParameters | None = None,
    losses: LossCurve | None = None,
) -> Solution:
    """Moves `columns` of the parameters toward one target per timestep, in the reference frame, in double precision.

    Without `surface` landmarks alone count. A timestep without any target is carried by smoothness and priors.
    `report` is called with the number of each iteration. `keeper` is shown from time to time how far it is; what was
    `left` of an earlier run it takes up. `before` is the timestep before the first one, where it was found already.
    `losses` gets the cost of each iteration.
    """
    if surface is None and (home := parameters.expr.device).type != "cpu":
        # many small systems, one after the other: a graphics card took five times as long
        cpu = torch.device("cpu")
        here = (copy.deepcopy(head).to(cpu), parameters.to(cpu), [target.to(cpu) for target in targets])
        begun = None if before is None else before.to(cpu)
        found = gauss_newton(*here, columns, prior, settings, None, report, keeper, left, begun, losses)
        known = replace(found.posterior, shared=found.posterior.shared.to(home), frames=found.posterior.frames.to(home))
        return found._replace(parameters=found.parameters.to(home), posterior=known, bias=found.bias.to(home))
    problem = Problem(head, targets, columns, prior, settings, surface, parameters, before)
    now = problem.begin(parameters)
    damping, previous, done = Damping(), None, 0
    if left is not None and left.step:
        kept = {name: left.tensors[name].to(value) for name, value in parameters.items().items()}
        now = Point(replace(parameters, **kept), left.tensors["bias"].to(now.bias))
        damping, previous, done = Damping(**left.numbers["damping"]), left.numbers["previous"], left.step
    first = done
    for iteration in range(first, settings.iterations):
        if keeper is not None and iteration > first and keeper.due():
            tensors = now.parameters.items() | {"bias": now.bias}
            keeper.keep(iteration, tensors, {"damping": asdict(damping), "previous": previous})
        if report is not None:
            report(iteration)
        system, gradient, cost, terms = problem.linearised(now, settings.cut(iteration))
        if losses is not None:
            losses.add(iteration, cost)
        if not problem.dense and previous is not None and abs(previous - cost) < _CONVERGED * max(previous, 1e-12):
            break
        previous, done = cost, iteration + 1
        cost_at = partial(problem.cost_at, now, terms)
        there = step(system, gradient, cost, problem.values(now), cost_at, damping, problem.bounds)
        now = problem.moved(now, there)
    if settings.marginal and columns.shared and columns.frame:
        now = _to_marginal_mode(problem, now, report if not settings.iterations else None)
    system, gradient, cost, _ = problem.linearised(now, settings.cut(settings.iterations))
    posterior = posterior_of(columns, system)
    if settings.steadied and problem.find_shares(now, system, gradient):
        now, system, cost = _steadied(problem, now)
        posterior = replace(posterior_of(columns, system), shared=posterior.shared)
    return Solution(now.parameters, posterior, done, damping.refused, cost, now.bias)


def _steadied(problem: Problem, now: Point) -> tuple[Point, BlockArrow, float]:
    """The timesteps at their mode by the priors that were found, all that they share held; system and cost there."""
    cut, damping = problem.settings.cut(problem.settings.iterations), Damping()
    system, gradient, cost, terms = problem.linearised(now, cut)
    for _ in range(STEADYING_STEPS):
        at, before = problem.values(now), cost
        right = BlockVector(at.shared[:0], gradient.frames)
        cost_at = partial(_frames_cost_at, problem, now, terms, at)
        there = step(
            system.frames_alone(), right, cost, right._replace(frames=at.frames), cost_at, damping, problem.bounds
        )
        now = problem.moved(now, at._replace(frames=there.frames))
        system, gradient, cost, terms = problem.linearised(now, cut)
        if not problem.dense and abs(before - cost) < _CONVERGED * max(before, 1e-12):
            break
    return now, system, cost


def _frames_cost_at(
    problem: Problem, now: Point, terms: list[list[Measurements]], at: BlockVector, x: BlockVector
) -> float:
    """The cost where the timesteps' unknowns are those of x, all others as `at` has them."""
    return problem.cost_at(now, terms, at._replace(frames=x.frames))


def _to_marginal_mode(problem: Problem, now: Point, report: Callable[[int], None] | None) -> Point:
    """Toward the mode of the shared unknowns alone, by Newton steps; the timesteps follow."""
    columns, settings = problem.columns, problem.settings
    cut = settings.cut(settings.iterations)
    volume = FrameVolume(problem.head, columns, problem.chosen)
    for number in range(settings.marginal):
        if report is not None:
            report(number)
        system, gradient, cost, terms = problem.linearised(now, cut)
        at = problem.values(now)
        held = holds(gradient, at, problem.bounds)
        # what evidence tells has no lever arms
        pull = volume.pull(now.parameters, [points_alone(term) for term in terms], system, held)
        # a pull on what is shared holds no other of the timesteps' own unknowns: one system for both
        free = system.holding(held)
        factors = newton_factors(free)
        if pull is None or factors is None:
            break
        pull = settings.volume * pull
        if (column := columns.slices().get("log_focal")) is not None:
            pull = pull * _believed(factors, pull, column.start)
        right = BlockVector(-gradient.shared - pull, torch.where(held, 0.0, -gradient.frames))
        cost_at = partial(problem.tilted_cost_at, now, terms, pull)
        there = shortened(free, factors, right, cost + float(pull @ at.shared), at, cost_at, problem.bounds)
        now = problem.moved(now, there)
        moved = BlockVector(there.shared - at.shared, there.frames - at.frames)
        if system.times(moved).dot(moved) < _SETTLED**2:
            break
    return now


def _believed(factors: Factors, pull: Tensor, column: int) -> float:
    """The share of a pull that moves one shared unknown by no more than its standard deviation.

    The volume knows a mode and its curvature. Where heads turn little it would move a focal length several times as far
    as that is known, and where that leads is no longer what it knows of.
    """
    one = torch.zeros_like(pull)
    one[column] = 1.0
    moved = torch.cholesky_solve(torch.stack([pull, one], dim=1), factors.corner)[column]
    return min(1.0, float(moved[1].sqrt()) / max(abs(float(moved[0])), 1e-12))
