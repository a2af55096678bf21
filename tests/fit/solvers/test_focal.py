"""Heads that one camera of unknown focal length sees: residuals in pictures, keyframes, the first focal length."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.capture.camera import look_at
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import run_stage
from flame_fitting.fit.keyframes import keyframes
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters, in_metric_world
from flame_fitting.fit.quality import measure, worsened
from flame_fitting.fit.solvers.block_arrow import BlockVector
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.dolly import along, depth_rows
from flame_fitting.fit.solvers.focal import TRIED, USUAL_DISTANCE, dollied, lowest, thinned, usual_log_focal
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.solvers.jacobians import Linearizer
from flame_fitting.fit.solvers.problem import Problem
from flame_fitting.fit.solvers.residuals import projected_landmarks
from flame_fitting.fit.stage_config import LANDMARKS, StageConfig
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import FrameTarget, PixelTarget, SourceTarget, make_landmark_target, make_pixel_target
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from tests.fit.known_truth import embedding_on, sequence
from tests.fit.settings import priors_of, second_order_of
from tests.synthetic import similarity

CAMERA = look_at([[0.05, 0.02, 0.8]], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
ASSUMED, TRUE = 300.0, 420.0
"""Focal length, px of a picture of 200."""


def pixels_of(head: HeadModel, vertices: torch.Tensor) -> PixelTarget:
    """What a camera with the true focal length shows, read with the assumed one."""
    embedding = embedding_on(head)
    points = embedding.points(vertices[None], head.faces)[0].numpy()
    seen = points @ CAMERA[0, :3, :3].T + CAMERA[0, :3, 3]
    found = np.concatenate([TRUE * seen[:, :2] / seen[:, 2:] + 100, np.ones((len(seen), 1))], axis=1)
    K = np.array([[[ASSUMED, 0, 100], [0, ASSUMED, 100], [0, 0, 1.0]]])
    target = make_pixel_target(head, embedding, np.ones(80, bool), found[None], K, CAMERA, np.ones(80))
    assert target is not None and target.points == 80
    return target


def seen_by_one_camera(timesteps: int) -> tuple[FitParameters, Observations]:
    head, truth, _, surface = sequence(timesteps, seed=3)
    truth = replace(truth, placement=torch.zeros_like(truth.placement))
    nothing = np.full((80, 3), np.nan)
    empty = make_landmark_target(head, embedding_on(head), nothing, nothing[:, 0], np.ones(80))
    targets = [FrameTarget((SourceTarget(empty, pixels_of(head, v)),)) for v in truth.vertices(head)]
    return truth, Observations(head, targets, surface, calibrated=False, of_sequence=True)


def test_residuals_vanish_at_the_truth_and_their_rows_are_their_slopes() -> None:
    truth, seen = seen_by_one_camera(1)
    columns = Columns.of(seen.head, ("log_focal", "shape", "rotation", "translation", "jaw_pose"))
    linearizer, column = Linearizer(seen.head, columns), columns.slices()["log_focal"].start
    pixels = seen.targets[0].sources[0].pixels
    assert pixels is not None

    def residuals(parameters: FitParameters) -> torch.Tensor:
        measured = projected_landmarks(pixels, 1.0, 4.0, parameters.log_focal[0], column)
        return measured.residuals(linearizer.vertices(parameters))

    true = replace(truth, log_focal=torch.tensor([np.log(TRUE / ASSUMED)]))
    assert residuals(true).abs().max() < 1e-9
    at = replace(truth.clone(), log_focal=torch.tensor([0.1], dtype=torch.float64), shape=truth.shape + 0.3)
    vertices, jacobian = linearizer(at)
    rows = projected_landmarks(pixels, 1.0, 4.0, at.log_focal[0], column).rows(vertices, jacobian)
    for block in columns.blocks:
        for k in range(block.columns.start, block.columns.stop):
            moved = []
            for sign in (1, -1):
                value = getattr(at, block.parameter).clone()
                value.view(-1)[block.coefficients.start + k - block.columns.start] += sign * 1e-6
                moved.append(residuals(replace(at, **{block.parameter: value})))
            numeric = (moved[0] - moved[1]) / 2e-6
            torch.testing.assert_close(rows[..., k], numeric, rtol=1e-4, atol=1e-6 * float(rows.abs().max()))


def test_pixels_do_not_pull_a_head_to_the_camera() -> None:
    """The same error in pixels costs the same at any depth."""
    truth, seen = seen_by_one_camera(1)
    head, pixels = seen.head, seen.targets[0].sources[0].pixels
    assert pixels is not None
    vertices, away = truth.vertices(head)[0], torch.as_tensor(CAMERA[0, 2, :3])
    costs = []
    for depth in (0.0, 0.4):
        shifted = vertices + depth * away
        points = torch.einsum("nkc,nk->nc", shifted[pixels.corners], pixels.barycentric)
        shown = torch.einsum("nkc,nc->nk", pixels.camera[..., :3], points) + pixels.camera[..., 3]
        off = replace(pixels, rays=shown[:, :2] / shown[:, 2:] + 0.003)
        costs.append(float(projected_landmarks(off, 1.0, 1e3, torch.zeros(()).double(), None).cost(shifted)))
    assert costs[0] > 0 and abs(costs[1] / costs[0] - 1) < 1e-9


def test_a_course_before_one_camera_is_found_from_an_assumed_focal_length(tmp_path: Path) -> None:
    truth, seen = seen_by_one_camera(6)
    config = FitConfig(tmp_path)
    config.w.landmark_count, config.prior.log_focal = 1e5, 1.0
    state = FitState(FitParameters.neutral(seen.head, 6), np.eye(4))
    moves = ("cam", "pose", "shape", "joints", "expr")
    stages = {
        "lmk_init_rigid": StageConfig(1, solver="closed_form", optimizable_params=("pose",), looks_at=LANDMARKS),
        "lmk_init_focal": StageConfig(6, solver="focal", optimizable_params=("cam", "pose"), looks_at=LANDMARKS),
        "lmk_init_all": StageConfig(40, solver="gauss_newton", optimizable_params=moves, looks_at=LANDMARKS),
    }
    with progress.silent():
        for name, settings in stages.items():
            state = run_stage(state, seen, Stage(name, settings, config))
    found = state.parameters
    assert abs(float(found.log_focal[0]) - np.log(TRUE / ASSUMED)) < 0.05
    assert 0 < float(state.uncertainty["log_focal"][0]) < 0.05
    apart = (found.vertices(seen.head) - truth.vertices(seen.head)).norm(dim=-1)
    assert 1000 * float(apart.median()) < 20  # depth and focal length go together
    turned = rotation_matrix(found.rotation) @ rotation_matrix(truth.rotation).transpose(1, 2)
    angle = torch.rad2deg(torch.arccos(((turned.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)))
    assert float(angle.max()) < 3


def test_keyframes_are_far_from_one_another_and_show_a_face() -> None:
    truth, seen = seen_by_one_camera(3)
    many = [replace(seen.targets[t % 3]) for t in range(30)]
    many[4] = FrameTarget()
    neutral = FitParameters.neutral(seen.head, 30)
    neutral.rotation[:, 1] = torch.linspace(0, 1, 30, dtype=torch.float64)
    chosen = keyframes(replace(seen, targets=many), neutral, 12)
    assert len(chosen) == 12 and 4 not in chosen and {0, 29} <= set(chosen)
    assert np.diff(chosen).max() <= 4
    assert truth.timesteps == 3


def test_the_lowest_place_is_that_of_a_parabola() -> None:
    places = np.array(TRIED)
    assert abs(lowest(TRIED, list((places - 0.4) ** 2)) - 0.4) < 1e-9
    assert lowest(TRIED, list(places)) == TRIED[0] and lowest(TRIED, list(-places)) == TRIED[-1]


def test_a_metric_world_is_head_space_and_nothing_moves_in_it() -> None:
    head, truth, _, _ = sequence(4)
    truth = replace(truth, placement=torch.zeros_like(truth.placement))
    frame = similarity(1.0)
    moved = in_metric_world(head, truth, frame)
    inverse = np.linalg.inv(frame)
    expected = truth.vertices(head).numpy() @ inverse[:3, :3].T + inverse[:3, 3]
    np.testing.assert_allclose(moved.vertices(head).numpy(), expected, atol=1e-7)


def test_a_head_that_pictures_alone_show_is_measured_and_a_worse_one_is_found_out() -> None:
    truth, seen = seen_by_one_camera(2)
    true = replace(truth, log_focal=torch.tensor([np.log(TRUE / ASSUMED)]))
    at_truth = measure(seen.head, true, seen.targets)
    assert at_truth.landmark_mm < 1e-6
    # 10 mm to the side of the camera, in both timesteps; nothing of that is along a ray
    aside = torch.as_tensor(10e-3 * CAMERA[0, 0, :3])
    moved = measure(seen.head, replace(true, translation=true.translation + aside), seen.targets)
    assert moved.landmark_mm == pytest.approx(10 * TRUE / ASSUMED, rel=0.1)
    assert "landmarks went from" in str(worsened(at_truth, moved))


def test_a_dolly_zoom_leaves_the_head_as_large_as_it_is_and_the_usual_focal_length_where_it_was() -> None:
    truth, seen = seen_by_one_camera(3)
    moved = dollied(seen, truth, 0.4)
    depths = []
    for parameters in (truth, moved):
        camera = torch.as_tensor(CAMERA[0])
        depths.append(parameters.translation @ camera[2, :3] + camera[2, 3])
        aside = parameters.translation @ camera[:2, :3].T + camera[:2, 3]
        depths.append(aside)
    torch.testing.assert_close(depths[2], depths[0] * np.exp(0.4))
    torch.testing.assert_close(depths[3], depths[1])
    assert float(moved.log_focal[0]) == 0.4 and float(truth.log_focal[0]) == 0.0
    usual = usual_log_focal(seen, truth)
    assert usual == pytest.approx(np.log(USUAL_DISTANCE / float(depths[0].median())))
    assert usual_log_focal(seen, moved) == pytest.approx(usual)


def test_without_landmarks_the_focal_length_is_the_usual_one_and_slopes_are_those_of_the_cost() -> None:
    truth, seen = seen_by_one_camera(2)
    columns = Columns.of(seen.head, ("log_focal", "shape", "rotation", "translation"), {"shape": 3})
    blind = [FrameTarget() for _ in seen.targets]
    prior = priors_of(log_focal=0.3)
    settings = second_order_of(iterations=3, usual_log_focal=0.25)
    found = gauss_newton(seen.head, truth, blind, columns, prior, settings)
    assert float(found.parameters.log_focal[0]) == pytest.approx(0.25, abs=1e-6)
    assert float(found.posterior.standard_deviations(truth)["log_focal"][0]) == pytest.approx(0.3, rel=1e-4)
    problem = Problem(seen.head, blind, columns, prior, settings, None, truth)
    at = problem.values(problem.begin(truth))
    slope = problem.priors.gradient(at).shared
    for column in range(columns.n_shared):
        step = torch.zeros_like(at.shared)
        step[column] = 1e-4
        ahead, behind = (problem.priors.cost(BlockVector(at.shared + sign * step, at.frames)) for sign in (1, -1))
        assert float(slope[column]) == pytest.approx((ahead - behind) / 2e-4, rel=1e-6, abs=1e-9)


def test_of_many_points_a_few_are_looked_at_and_the_same_at_all_timesteps(monkeypatch: pytest.MonkeyPatch) -> None:
    _, seen = seen_by_one_camera(2)
    assert thinned(seen).targets[0].sources[0].pixels is seen.targets[0].sources[0].pixels
    monkeypatch.setattr("flame_fitting.fit.solvers.focal._POINTS", 30)
    few = [target.sources[0].pixels for target in thinned(seen).targets]
    for before, after in zip((target.sources[0].pixels for target in seen.targets), few, strict=True):
        assert before is not None and after is not None
        assert after.points == len(after.index) == len(after.rays) == 30
        assert torch.equal(after.rays, before.rays[torch.isin(before.index, after.index)])
    assert few[0] is not None and few[1] is not None and torch.equal(few[0].index, few[1].index)


def test_the_stated_deviation_is_that_of_the_error() -> None:
    """Landmarks with noise of the stated size: errors over stated deviations are about 1, and the error is small."""
    scores = []
    for seed in range(4):
        truth, seen = seen_by_one_camera(4)
        rng, targets = np.random.default_rng(seed), []
        for target in seen.targets:
            source = target.sources[0]
            pixels = source.pixels
            assert pixels is not None
            # of rays, at the depth that the noise is stated at
            noise = 0.2 * pixels.sigma / float(pixels.camera[0, 2, 3]) * rng.standard_normal(pixels.rays.shape)
            pixels = replace(pixels, rays=pixels.rays + torch.as_tensor(noise), sigma=0.2 * pixels.sigma)
            targets.append(FrameTarget((replace(source, pixels=pixels),)))
        names = ("log_focal", "shape", "expr", "rotation", "translation", "jaw_pose")
        columns = Columns.of(seen.head, names, {"shape": 6, "expr": 4}, metric=True)
        start = replace(truth.clone(), log_focal=torch.zeros_like(truth.log_focal))
        settings = second_order_of(iterations=10, landmark_count=80.0, landmark_cut=1e6)
        found = gauss_newton(
            seen.head, start, targets, columns, priors_of(shape=1.0, expr=0.5, log_focal=1.0), settings
        )
        deviation = float(found.posterior.standard_deviations(truth)["log_focal"][0])
        scores.append((float(found.parameters.log_focal[0]) - np.log(TRUE / ASSUMED)) / deviation)
        assert deviation < 0.3
    assert 0.4 < np.sqrt(np.mean(np.square(scores))) < 1.7, scores


def test_steps_along_focal_length_and_distance_keep_what_is_seen() -> None:
    """What is linear in a step is a dolly zoom of the head's middle when it is taken."""
    truth, seen = seen_by_one_camera(3)
    columns = Columns.of(seen.head, ("log_focal", "rotation", "translation"))
    targets = [*seen.targets[:2], FrameTarget()]
    problem = Problem(seen.head, targets, columns, priors_of(), second_order_of(iterations=0), None, truth)
    begin = problem.begin(truth)
    problem.linearised(begin, 0.01)
    camera = torch.as_tensor(CAMERA[0])

    def middle(parameters: FitParameters) -> torch.Tensor:
        marked = torch.unique(torch.cat([target.sources[0].pixels.corners.flatten() for target in targets[:2]]))
        places = parameters.vertices(seen.head)[:2, marked].mean(1)
        return places @ camera[:3, :3].T + camera[:3, 3]

    at, rows, before = problem.values(begin), depth_rows(targets, truth.expr), middle(truth)
    step = at.frames.clone()
    step[:2, 3:] += along(rows[:2], 0.3 * before[:, 2])
    moved = problem.moved(begin, BlockVector(at.shared + 0.3, step)).parameters
    after = middle(moved)
    torch.testing.assert_close(after[:, 2], before[:, 2] * np.exp(0.3))
    torch.testing.assert_close(after[:, :2], before[:, :2])
    torch.testing.assert_close(moved.translation[2], truth.translation[2])  # nothing is seen there
    # a longer focal length alone shows all of it larger, whatever the distance
    alone = problem.moved(begin, BlockVector(at.shared + 0.1, at.frames)).parameters
    assert (middle(alone)[:, :2] / middle(alone)[:, 2:] * np.exp(0.1)).allclose(1.1 * before[:, :2] / before[:, 2:])
