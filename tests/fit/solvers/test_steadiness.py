"""How much a sequence moves, found from itself: still heads, one that moves for a moment, what nothing measures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.block_arrow import BlockArrow, BlockVector
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.solvers.priors import make_priors
from flame_fitting.fit.solvers.steadiness import LEAST, found_shares, groups_of
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.fit.weight_config import PriorConfig
from tests.fit.known_truth import embedding_on
from tests.fit.settings import second_order_of
from tests.toy import toy_head

PRIOR = PriorConfig(expr=0.7, jaw=0.2, neck=0.15, eyes=0.1)
SMOOTH = {"expr": 0.3, "rotation": 0.1, "translation": 0.01, "jaw_pose": 0.08, "neck_pose": 0.05}
STEPS, POINTS, NOISE = 24, 80, 1e-3
MOMENT = slice(10, 14)


def solved(truth: FitParameters, steadied: bool, seed: int = 0) -> tuple[FitParameters, dict[str, np.ndarray]]:
    """From landmarks with noise; identity moves, too."""
    head, rng = toy_head().double(), np.random.default_rng(seed)
    embedding, targets = replace(embedding_on(head, POINTS), spread_mm=np.zeros(POINTS)), []
    for vertices in truth.vertices(head):
        at = np.zeros((POINTS, 3)), np.zeros(POINTS), np.ones(POINTS)
        marks = make_landmark_target(head, embedding, *at, NOISE)
        noise = NOISE * torch.as_tensor(rng.normal(size=(POINTS, 3)))
        targets.append(FrameTarget((SourceTarget(replace(marks, points=marks.model_points(vertices) + noise)),)))
    columns = Columns.of(head, ["shape", *SMOOTH], {"shape": 4})
    settings = second_order_of(iterations=15, landmark_count=POINTS, smoothness=SMOOTH, steadied=steadied)
    start = FitParameters.neutral(head, STEPS)
    found = gauss_newton(head, start, targets, columns, PRIOR, settings)
    return found.parameters, found.posterior.standard_deviations(found.parameters)


def still() -> FitParameters:
    """Nothing moves."""
    neutral = FitParameters.neutral(toy_head().double(), STEPS)
    held = {"expr": 0.4, "rotation": 0.05, "translation": 0.004, "jaw_pose": 0.06}
    rows = torch.linspace(-1, 1, neutral.expr.shape[1], dtype=torch.float64)
    values = {name: torch.full_like(getattr(neutral, name), size) for name, size in held.items()}
    values["expr"] = (held["expr"] * rows).expand(STEPS, -1).clone()
    return replace(neutral, **values)


def jitter(found: FitParameters, rows: slice = slice(None)) -> float:
    """m, of what nothing moves."""
    return float(found.vertices(toy_head().double())[rows].diff(n=2, dim=0).square().sum(-1).mean().sqrt())


def test_a_head_that_is_still_is_found_so() -> None:
    (free, wide), (found, narrow) = (solved(still(), steadied) for steadied in (False, True))
    assert jitter(found) < 0.3 * jitter(free)
    assert torch.equal(found.shape, free.shape), "identity is found by the stated deviations"
    np.testing.assert_array_equal(narrow["shape"], wide["shape"])
    for name in SMOOTH:
        assert torch.isfinite(getattr(found, name)).all() and np.isfinite(narrow[name]).all()
        assert (narrow[name] < wide[name] * (1 + 1e-9)).all()


@pytest.mark.parametrize("name", ["expr", "jaw_pose"])
def test_a_motion_of_a_moment_stays_and_all_else_is_still(name: str) -> None:
    """Of an expression (a blink) or of the jaw."""
    truth = still()
    moved = {"expr": 1.0, "jaw_pose": 0.15}[name]
    value = getattr(truth, name).clone()
    value[MOMENT, 0] += moved * torch.tensor([0.6, 1.0, 0.9, 0.3])
    truth = replace(truth, **{name: value})
    free, found = (solved(truth, steadied)[0] for steadied in (False, True))
    gain = []
    for one in (free, found):
        own, true = getattr(one, name)[:, 0], value[:, 0]
        gain.append(float((own - own.mean()) @ (true - true.mean()) / (true - true.mean()).square().sum()))
    assert gain[1] > 0.93 * gain[0]
    for rows in (slice(0, MOMENT.start), slice(MOMENT.stop, None)):
        assert jitter(found, rows) < 0.4 * jitter(free, rows)


def chain(evidence: torch.Tensor, place: torch.Tensor) -> dict[str, torch.Tensor]:
    """Shares of what a head's expression and eyes are measured at, with such precisions of each coefficient."""
    head = toy_head().double()
    columns, smooth = Columns.of(head, ["expr", "eyes_pose"]), {"expr": 0.3, "eyes_pose": 0.1}
    like = FitParameters.neutral(head, len(place)).expr

    def priors_with(shares):
        return make_priors(columns, PRIOR, smooth, len(place), like, shares=shares)

    priors = priors_with({})
    system = BlockArrow(
        like.new_zeros(0, 0),
        like.new_zeros(*place.shape, 0),
        priors.diagonal + torch.diag(evidence),
        priors.below,
    )
    at = torch.zeros_like(place)
    groups, held = groups_of(columns, PRIOR, smooth, like), torch.zeros_like(place, dtype=torch.bool)
    return found_shares(groups, system, -evidence * place, at, priors, priors_with, held)


def test_what_nothing_measures_keeps_its_deviations() -> None:
    """Nothing is known of the eyes; the expression is still, and measured with errors as large as stated."""
    head = toy_head().double()
    size = head.n_expr + 6
    eyes = torch.arange(size) >= head.n_expr
    rng = torch.Generator().manual_seed(0)
    noise = 0.2 * torch.randn(60, size, generator=rng, dtype=torch.float64)
    shares = chain(torch.where(eyes, 0.0, 1 / 0.2**2).double(), torch.where(eyes, 0.0, noise))
    torch.testing.assert_close(shares["eyes_pose"], torch.ones_like(shares["eyes_pose"]))
    assert float(shares["expr"].median()) < 0.5 and float(shares["expr"].min()) >= LEAST


def test_a_sequence_that_moves_has_its_own_deviation() -> None:
    """Drawn as a walk of half the stated steps, and measured well."""
    head = toy_head().double()
    size = head.n_expr + 6
    rng = torch.Generator().manual_seed(0)
    walk = (0.15 * torch.randn(60, size, generator=rng, dtype=torch.float64)).cumsum(0)
    share = chain(torch.full((size,), 1e4, dtype=torch.float64), walk)["expr"]
    assert 0.45 < float(share.median()) < 0.75


def test_priors_of_narrow_changes_leave_each_timestep_as_wide() -> None:
    """The dense inverse: the stated variance of every timestep, and those of changes times the squared shares."""
    head = toy_head().double()
    columns, like = Columns.of(head, ["jaw_pose"]), FitParameters.neutral(head, 5).expr
    shares = torch.tensor([1.0, 0.3, 0.01, 0.5], dtype=torch.float64)
    priors = make_priors(columns, PRIOR, {"jaw_pose": 0.08}, 5, like, shares={"jaw_pose": shares})
    dense = torch.block_diag(*priors.diagonal)
    for t, below in enumerate(priors.below):
        dense[3 * t + 3 : 3 * t + 6, 3 * t : 3 * t + 3] = below
        dense[3 * t : 3 * t + 3, 3 * t + 3 : 3 * t + 6] = below.mT
    covariance = torch.linalg.inv(dense)
    torch.testing.assert_close(covariance.diagonal().view(5, 3)[:, 0], like.new_full((5,), 0.04))
    opening = covariance[::3, ::3]
    change = opening.diagonal()[1:] + opening.diagonal()[:-1] - 2 * opening.diagonal(1)
    torch.testing.assert_close(change, (0.08 * shares).square(), rtol=1e-6, atol=0)


def test_covariances_of_changes_are_those_of_the_dense_inverse() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(4, 3, 9, generator=rng, dtype=torch.float64)
    diagonal, below = rows @ rows.mT, 0.3 * torch.randn(3, 3, 3, generator=rng, dtype=torch.float64)
    chained = BlockArrow(rows.new_zeros(0, 0), rows.new_zeros(4, 3, 0), diagonal, below)
    dense = torch.zeros(12, 12, dtype=torch.float64)
    for number in range(12):
        one = torch.zeros(12, dtype=torch.float64)
        one[number] = 1
        dense[:, number] = chained.times(BlockVector(rows.new_zeros(0), one.view(4, 3))).frames.flatten()
    change = torch.zeros(9, 12, dtype=torch.float64)
    change[:, :9] -= torch.eye(9)
    change[:, 3:] += torch.eye(9)
    wanted = change @ torch.linalg.inv(dense) @ change.T
    found = chained.factorised().change_covariances()
    for t in range(3):
        torch.testing.assert_close(found[t], wanted[3 * t : 3 * t + 3, 3 * t : 3 * t + 3])
