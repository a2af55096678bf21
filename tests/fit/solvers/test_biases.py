"""Landmarks that are always off alike: slopes, and what becomes of the identity with and without unknowns for them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.fit.solvers.biases import Biases, with_noise_found, without_biases
from flame_fitting.fit.solvers.block_arrow import BlockVector
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.solvers.jacobians import Linearizer, skinning_rotations
from flame_fitting.fit.solvers.problem import Point, Problem
from flame_fitting.fit.solvers.residuals import projected_landmarks
from flame_fitting.fit.targets import FrameTarget
from tests.fit.known_truth import sequence
from tests.fit.settings import priors_of, second_order_of
from tests.fit.solvers.test_focal import ASSUMED, TRUE, seen_by_one_camera

PRIOR = priors_of(shape=1.0, expr=1.0)
SIGMA = 0.002


def biased(steps: int, sigma: float, seed: int = 4):
    """Truth, and targets whose points are off alike at every timestep, in the skin's axes."""
    head, truth, targets, _ = sequence(steps)
    offs = sigma * torch.as_tensor(np.random.default_rng(seed).standard_normal((80, 3)))
    out, biases = [], Biases.of(targets, sigma, 80.0, head)
    for t, target in enumerate(targets):
        source = target.sources[0]
        marks = source.landmarks
        rows = biases.rows(0, torch.as_tensor(marks.index))
        assert rows is not None
        shift = torch.einsum("nac,nc->na", biases.turns(truth, t)[rows], offs[torch.as_tensor(marks.index)])
        out.append(FrameTarget((replace(source, landmarks=replace(marks, points=marks.points + shift)),)))
    return head, truth, out, offs


def of_pictures(steps: int):
    truth, seen = seen_by_one_camera(steps)
    truth.log_focal[0] = np.log(TRUE / ASSUMED)
    return seen.head, truth, seen.targets


@pytest.mark.parametrize("pictures", [False, True])
def test_slopes_and_blocks_are_those_of_the_cost(pictures: bool) -> None:
    """Central differences of the cost along the biases, and of the slope along them for the blocks of the system."""
    head, truth, targets = of_pictures(2) if pictures else biased(2, 1e-5)[:3]
    columns = Columns.of(head, ("shape", "rotation", "jaw_pose"), {"shape": 3})
    settings = second_order_of(iterations=0, landmark_cut=1e6, bias_sigma=SIGMA)
    problem = Problem(head, targets, columns, PRIOR, settings, None, truth)
    begin = problem.begin(truth)
    rng = np.random.default_rng(0)
    # pictures bend, and biases turn with the skin: what residuals add to the curvature is no part of the system
    now = Point(truth, begin.bias + torch.as_tensor(1e-5 * rng.standard_normal(begin.bias.shape)))
    system, gradient, _, terms = problem.linearised(now, 0.01)
    at, size = problem.values(now), columns.n_shared
    assert len(at.shared) == size + 3 * len(begin.bias) and len(begin.bias) == 80
    for column in (size, size + 4, size + 77):
        step = torch.zeros_like(at.shared)
        step[column] = 1e-5
        ahead, behind = (BlockVector(at.shared + sign * step, at.frames) for sign in (1, -1))
        costs = [problem.cost_at(now, terms, x) for x in (ahead, behind)]
        assert float(gradient.shared[column]) == pytest.approx((costs[0] - costs[1]) / 2e-5, rel=1e-4, abs=1e-6)
        slopes = [problem.linearised(problem.moved(now, x), 0.01)[1] for x in (ahead, behind)]
        expected = (slopes[0].shared - slopes[1].shared) / 2e-5
        near = 1e-3 * float(system.corner[column, column])
        torch.testing.assert_close(system.corner[column], expected, rtol=1e-4, atol=near)
        frames = (slopes[0].frames - slopes[1].frames) / 2e-5
        torch.testing.assert_close(system.arrow[:, :, column], frames, rtol=1e-4, atol=near)


@pytest.mark.parametrize("pictures", [False, True])
def test_turns_carry_biases_along(pictures: bool) -> None:
    """Central differences of the cost along poses, with biases of 2 cm."""
    head, truth, targets = of_pictures(2) if pictures else biased(2, SIGMA)[:3]
    columns = Columns.of(head, ("placement_rotation", "rotation", "neck_pose", "jaw_pose"))
    settings = second_order_of(iterations=0, landmark_cut=1e6, bias_sigma=SIGMA)
    problem = Problem(head, targets, columns, PRIOR, settings, None, truth)
    begin = problem.begin(truth)
    bias = 0.02 * torch.as_tensor(np.random.default_rng(0).standard_normal(begin.bias.shape))
    now = Point(truth, bias)
    _, gradient, _, terms = problem.linearised(now, 0.01)
    at = problem.values(now)
    for number in range(columns.count):
        shared, frames = torch.zeros_like(at.shared), torch.zeros_like(at.frames)
        own = number >= columns.n_shared
        (frames[1] if own else shared)[number - columns.n_shared if own else number] = 1e-5
        costs = [
            problem.cost_at(now, terms, BlockVector(at.shared + sign * shared, at.frames + sign * frames))
            for sign in (1, -1)
        ]
        slope = gradient.frames[1, number - columns.n_shared] if own else gradient.shared[number]
        assert float(slope) == pytest.approx((costs[0] - costs[1]) / 2e-5, rel=1e-4, abs=1e-2)


def test_what_is_always_off_does_not_become_the_identity() -> None:
    """With unknowns for it the shape is nearer to the truth, and says truly how well it is known."""
    errors: dict[float | None, list[float]] = {None: [], SIGMA: []}
    scores: dict[float | None, list[float]] = {None: [], SIGMA: []}
    for seed in range(3):
        head, truth, targets, offs = biased(6, SIGMA, seed)
        columns = Columns.of(head, ("shape", "expr", "rotation", "translation", "jaw_pose"), {"shape": 6, "expr": 4})
        for sigma, found in errors.items():
            settings = second_order_of(iterations=15, landmark_count=80.0, landmark_cut=1e6, bias_sigma=sigma)
            solution = gauss_newton(head, truth, targets, columns, PRIOR, settings)
            off = (solution.parameters.shape - truth.shape)[:6]
            deviations = solution.posterior.standard_deviations(truth)["shape"][:6]
            found.append(float(off.square().mean().sqrt()))
            scores[sigma].append(float(np.sqrt(np.mean((off.numpy() / deviations) ** 2))))
            if sigma is not None:
                # what a shape cannot explain is found
                assert np.corrcoef(solution.bias.flatten().numpy(), offs.flatten().numpy())[0, 1] > 0.7
    assert np.mean(errors[SIGMA]) <= np.mean(errors[None])
    assert np.mean(scores[SIGMA]) < 2.5 < np.mean(scores[None])


def test_only_points_that_are_seen_have_one() -> None:
    head, _, targets, _ = biased(2, SIGMA)
    assert Biases.of(targets, None, 60.0, head).count == 0
    found = Biases.of(targets, SIGMA, 60.0, head)
    index = torch.as_tensor(targets[0].sources[0].landmarks.index)
    assert found.count == len(index)
    rows = found.rows(0, index)
    assert rows is not None and torch.equal(rows, torch.arange(len(index)))
    # together they count as many as the landmarks do
    assert float(found.precision.sum()) == pytest.approx(60.0 / SIGMA**2)


def test_a_source_may_say_how_far_off_its_points_are() -> None:
    head, _, targets, _ = biased(2, SIGMA)
    bias = (6 * SIGMA, 3 * SIGMA)
    other = [FrameTarget((*one.sources, replace(one.sources[0], bias=bias))) for one in targets]
    found = Biases.of(other, SIGMA, 60.0, head)
    assert found.count == 160
    torch.testing.assert_close(found.precision[:80], 9 * found.precision[80:])
    # twice as far in the skin as along its normal, where its own deviation does not say otherwise
    axes, marks = found.axes, targets[0].sources[0].landmarks
    a, b, c = head.v_template[marks.corners].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    torch.testing.assert_close(axes[:80].mT @ axes[:80], torch.eye(3).double().expand(80, 3, 3))
    torch.testing.assert_close(axes[80:].mT @ axes[80:], torch.diag(axes.new_tensor([4.0, 4, 1])).expand(80, 3, 3))
    torch.testing.assert_close(axes[80:, :, 2], normal)


def test_what_several_pictures_show_of_a_point_adds_up() -> None:
    head, truth, targets = of_pictures(1)
    pixels = targets[0].sources[0].pixels
    assert pixels is not None
    once = torch.arange(80)
    twice = torch.cat([once, once])
    both = {
        name: getattr(pixels, name)[twice] for name in ("camera", "rays", "weight", "corners", "barycentric", "view")
    }
    columns = Columns.of(head, ("shape", "rotation"), {"shape": 3})
    vertices, jacobian = Linearizer(head, columns)(truth)
    turns = Biases.of(targets, SIGMA, 60.0, head).turns(truth, 0)
    found = []
    for target, number in ((pixels, once), (replace(pixels, **both, index=twice), twice)):
        measured = projected_landmarks(target, 1.0, 4.0, truth.log_focal[0] + 0.1, None, number)
        more = measured.with_biases(measured.linear(vertices, jacobian), turns)
        assert more is not None
        whole = [part.new_zeros(80, *part.shape[1:]) for part in (more.own, more.cross, more.gradient)]
        for each, part in zip(whole, (more.own, more.cross, more.gradient), strict=True):
            more.add_to(each, part)
        found.append(whole)
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(2 * one, other)


def test_biases_turn_as_the_skin_around_their_points_does() -> None:
    head, truth, targets, _ = biased(2, SIGMA)
    moved = truth.clone()
    moved.jaw_pose[1, 0] = 0.3
    marks, biases = targets[1].sources[0].landmarks, Biases.of(targets, SIGMA, 60.0, head)
    rows = biases.rows(0, torch.as_tensor(marks.index))
    assert rows is not None
    turns = biases.turns(moved, 1)[rows]
    of_skin = skinning_rotations(head, moved, 1)[marks.corners] / moved.placement[6].exp()
    turned = torch.einsum("nk,nkac->nac", marks.barycentric, of_skin)
    torch.testing.assert_close(turns, turned @ biases.axes[rows])
    # the jaw's points turn with it, others do not
    changed = (turns - biases.turns(truth, 1)[rows]).abs().amax((1, 2))
    by_jaw = torch.einsum("nk,nk->n", marks.barycentric, head.weights[marks.corners][..., 2])
    assert by_jaw.max() > 0.1 and changed[by_jaw > 0.1].min() > 0.01


def off_in_pictures(targets: list[FrameTarget], head, parameters) -> torch.Tensor:
    """(T, 80, 2) m across the rays."""
    out = []
    for target, vertices in zip(targets, parameters.vertices(head), strict=True):
        pixels = target.sources[0].pixels
        assert pixels is not None
        out.append(projected_landmarks(pixels, 1.0, 4.0, parameters.log_focal[0], None).residuals(vertices))
    return torch.stack(out)


def test_what_landmarks_are_always_off_by_is_taken_away_and_what_moves_is_not() -> None:
    head, truth, exact = of_pictures(6)
    offs = SIGMA * torch.as_tensor(np.random.default_rng(4).standard_normal((80, 3)))
    targets, biases = [], Biases.of(exact, SIGMA, 60.0, head)
    for t, (target, vertices) in enumerate(zip(exact, truth.vertices(head), strict=True)):
        pixels = target.sources[0].pixels
        assert pixels is not None
        measured = projected_landmarks(pixels, 1.0, 4.0, truth.log_focal[0], None, torch.arange(80))
        moved = measured.at(truth, torch.einsum("nac,nc->na", biases.turns(truth, t), offs))
        rays = pixels.rays + moved.residuals(vertices) / measured.depth[:, None]  # type: ignore[attr-defined]
        targets.append(replace(target, sources=(replace(target.sources[0], pixels=replace(pixels, rays=rays)),)))
    before = off_in_pictures(targets, head, truth)
    held = without_biases(head, truth, targets, 10 * SIGMA)
    assert off_in_pictures(held, head, truth).norm(dim=-1).median() < 0.05 * before.norm(dim=-1).median()
    # none is left to be found, and landmarks that nothing is known of stay where they are
    strength = Biases.of(held, SIGMA, 60.0, head).precision / Biases.of(targets, SIGMA, 60.0, head).precision
    assert strength.min() > 100
    torch.testing.assert_close(off_in_pictures(without_biases(head, truth, targets, 1e-9), head, truth), before)
    # a head that turns at one timestep is seen to turn
    turned = truth.clone()
    turned.rotation[2, 1] += 0.1
    left = off_in_pictures(without_biases(head, turned, exact, SIGMA), head, turned).norm(dim=-1).median(1).values
    whole = off_in_pictures(exact, head, turned).norm(dim=-1).median(1).values
    assert left[2] > 0.7 * whole[2] and left[[0, 1, 3, 4, 5]].max() < 0.2 * whole[2]


@pytest.mark.parametrize(("noise", "counts"), [(0.8, 1 / 0.64), (0.1, 3.0), (3.0, 1.0)])
def test_landmarks_count_by_the_errors_that_are_found(noise: float, counts: float) -> None:
    """Of `noise` times what is assumed; what they are always off by is no error, and none counts less than assumed."""
    head, truth, exact = of_pictures(40)
    rng, targets = np.random.default_rng(1), []
    always = 1e-3 * rng.standard_normal((80, 2))
    for target in exact:
        pixels = target.sources[0].pixels
        assert pixels is not None
        deviation = noise * pixels.sigma / pixels.weight.sqrt()[:, None]
        off = deviation * torch.as_tensor(rng.standard_normal((80, 2))) + torch.as_tensor(always)
        rays = pixels.rays + off / pixels.camera[:, 2, 3, None]
        targets.append(replace(target, sources=(replace(target.sources[0], pixels=replace(pixels, rays=rays)),)))
    found = with_noise_found(head, truth, targets, 10 * SIGMA)
    for before, after in zip(targets, found, strict=True):
        one, other = before.sources[0].pixels, after.sources[0].pixels
        assert one is not None and other is not None
        torch.testing.assert_close(other.weight, counts * one.weight, rtol=0.08, atol=0)
        assert torch.equal(one.rays, other.rays)
