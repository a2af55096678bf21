"""The head model with all losses that look at vertices and parameters alone, on a toy head of known parameters."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.fit.parameters import JAW_SHUT, FitParameters
from flame_fitting.fit.region_weights import CAP
from flame_fitting.fit.solvers.geometry_step import BALANCED, GeometryStep
from flame_fitting.fit.solvers.geometry_weights import GeometryWeights
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_detection_target, make_landmark_target
from tests.fit.known_truth import cloud_of, ibug_embedding, problem
from tests.fit.pictures import around, draw
from tests.fit.settings import geometry_of, offsets_of, priors_of

RATES = {
    "placement": 1e-3,
    "shape": 1e-2,
    "expr": 1e-2,
    "neck_pose": 1e-3,
    "jaw_pose": 1e-3,
    "eyes_pose": 1e-3,
    "static_offset": 1e-5,
}
STEP = 0.4
"""Of a step size: what is small enough for curvature and large enough for single precision."""


@pytest.fixture(scope="module")
def scene():
    """Head, truth, a target of every kind, views, surface weights."""
    head, truth, _, surface = problem()
    embedding = ibug_embedding(head)
    vertices = truth.vertices(head)
    points = embedding.points(vertices, head.faces)[0].numpy()
    marks = make_landmark_target(head, embedding, points, np.full(68, 2e-4), np.ones(68), scheme="ibug68")
    eyes = around(3, 0.05, 50.0)
    size = (96, 64)
    K = np.stack([intrinsics_from_fov(20.0, *size)] * len(eyes))
    camera = np.stack([look_at(np.array(eye), np.zeros(3), np.array([0.0, 1.0, 0.0])) for eye in eyes])
    found = np.stack([project(points, k, c) for k, c in zip(K, camera, strict=True)])
    found[..., 2] = 1.0
    detections = make_detection_target(head, embedding, "ibug68", found, K, camera, size)
    cloud = cloud_of(vertices[0].numpy(), head.faces.numpy(), 8000)
    target = FrameTarget((SourceTarget(marks, None, detections),), cloud)
    views = draw(head, vertices[0].numpy(), None, eyes, 32)
    return head, truth, target, views, surface


def made(scene, start: FitParameters, weights: GeometryWeights, rates: dict[str, float]) -> GeometryStep:
    head, _, target, views, surface = scene
    return GeometryStep(head, start, [target], views, surface, priors_of(), weights, rates)


def displaced(scene) -> FitParameters:
    """Off the truth and off every kink of a loss."""
    truth = scene[1]
    rng = torch.Generator().manual_seed(2)
    start = truth.clone()
    start.placement[:] += torch.tensor([0.02, -0.03, 0.01, 0.002, 0.003, -0.002, 0.01])
    start.shape[:] += 0.3
    start.expr[:] -= 0.2
    start.neck_pose[:] = torch.tensor([0.05, 0.02, -0.03])
    start.jaw_pose[:] = torch.tensor([0.2, 0.02, 0.01])
    start.eyes_pose[:] = torch.tensor([0.05, 0.1, 0.01, -0.04, 0.06, 0.02])
    start.static_offset[:] = 1e-3 * torch.randn(start.static_offset.shape, generator=rng, dtype=torch.float64)
    return start


NONE = geometry_of(landmark_3d=0.0, surface=0.0, prior=0.0, offset=offsets_of(l1=0.0, laplacian=0.0, rigid=0.0))
ALL = geometry_of(
    landmark_3d=1.0,
    landmark=100.0,
    contour=0.0,
    closure=1.0,
    surface=3.0,
    prior=0.02,
    shape=1.0,
    expr=1.0,
    neck=30.0,
    jaw=30.0,
    eyes=30.0,
    offset=offsets_of(l1=300.0, laplacian=1e5, rigid=0.0),
)
TERMS = {
    "all": ALL,
    "landmark_3d": replace(NONE, landmark_3d=1.0),
    "landmark": replace(NONE, landmark=100.0),
    "closure": replace(NONE, closure=1.0),
    "surface": replace(NONE, surface=3.0),
    "prior": replace(NONE, prior=1.0),
    "regularisers": replace(NONE, shape=1.0, expr=1.0, neck=30.0, jaw=30.0, eyes=30.0),
    "offset": replace(NONE, offset=offsets_of(l1=300.0, laplacian=1e5, rigid=0.0)),
}


@pytest.mark.parametrize("name", TERMS)
def test_gradient_agrees_with_finite_differences(scene, name) -> None:
    step = made(scene, displaced(scene), TERMS[name], RATES)
    step.find_correspondences(step.vertices().detach())
    value = step().loss
    assert value > 0
    (slope,) = torch.autograd.grad(value, step.values)
    checked = 0
    for group, part in step.unpack(torch.arange(len(step.values))).items():
        rows = part.reshape(-1).long()
        direction = torch.zeros_like(step.values)
        direction[rows] = torch.sign(slope[rows]) + (slope[rows] == 0)
        expected = float((slope * direction).sum())
        ends = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                step.values.copy_(sign * STEP * direction)
                ends.append(float(step().loss))
        with torch.no_grad():
            step.values.zero_()
        found, rounding = (ends[0] - ends[1]) / (2 * STEP), 2e-6 / STEP * float(value.detach())
        assert found == pytest.approx(expected, rel=0.03, abs=rounding), group
        checked += abs(expected) > 20 * rounding
    assert checked >= {"offset": 1, "all": 6, "prior": 3, "regularisers": 4}.get(name, 4)


def test_values_start_at_zero_and_only_what_has_a_step_size_moves(scene) -> None:
    start = displaced(scene)
    step = made(scene, start, ALL, {"shape": 0.5, "expr": 0.0})
    assert step.values.numel() == len(start.shape) and not step.values.any()
    torch.testing.assert_close(step.current().shape, start.shape.float(), rtol=0, atol=0)
    with torch.no_grad():
        step.values += 2.0
    torch.testing.assert_close(step.current().shape, start.shape.float() + 1.0)
    for name, value in step.current().items().items():
        if name != "shape":
            torch.testing.assert_close(value, getattr(start, name).float(), rtol=0, atol=0)
    bare = made(scene, start, ALL, {})
    assert bare.values.numel() == 0 and torch.isfinite(bare().loss)


def test_parts_of_the_placement_have_step_sizes_of_their_own(scene) -> None:
    start = displaced(scene)
    step = made(scene, start, NONE, {"placement_rotation": 1e-2, "placement_translation": 1e-3})
    with torch.no_grad():
        step.values += 1.0
    change = step.current().placement - start.placement.float()
    expected = torch.tensor([1e-2] * 3 + [1e-3] * 3 + [0.0])
    torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-7)
    step = made(scene, start, NONE, {"placement": 1e-4, "placement_scale": 1e-2})
    with torch.no_grad():
        step.values += 1.0
    change = step.current().placement - start.placement.float()
    torch.testing.assert_close(change, torch.tensor([1e-4] * 6 + [1e-2]), rtol=5e-3, atol=1e-7)


def test_offsets_stay_within_their_caps_and_a_jaw_does_not_close_further_than_shut(scene) -> None:
    head, truth = scene[:2]
    step = made(scene, truth, NONE, {"static_offset": 1e-3, "jaw_pose": 1e-2})
    with torch.no_grad():
        step.values += 100.0
        step.unpack(step.values)["jaw_pose"][:] = -100.0
    step.keep_possible()
    with torch.no_grad():
        now = step.current()
    length = now.static_offset[0].norm(dim=-1)
    assert length.max() <= max(*CAP.values(), 0.02) + 1e-6 and length.min() > 1e-4
    for region, cap in CAP.items():
        if region in head.regions:
            assert length[head.region_mask(region)].max() <= max(cap, 0.02) + 1e-6
    assert float(now.jaw_pose[0, 0]) == pytest.approx(JAW_SHUT, abs=1e-6)
    assert float(now.jaw_pose[0, 1]) < JAW_SHUT, "other turns of the jaw are free"
    kept = step.values.clone()
    step.keep_possible()
    torch.testing.assert_close(step.values, kept, rtol=1e-4, atol=1e-4)


def test_a_bound_that_is_not_reached_changes_nothing(scene) -> None:
    step = made(scene, scene[1], NONE, {"static_offset": 1e-5, "jaw_pose": 1e-3})
    with torch.no_grad():
        step.values += 1.0
    step.keep_possible()
    torch.testing.assert_close(step.values, torch.ones_like(step.values), rtol=0, atol=0.02)


def test_smoothness_ties_a_timestep_to_the_one_before_which_stays(scene) -> None:
    """Over all timesteps, and over those that a batch looks at."""
    head, _, target, views, surface = scene
    start = FitParameters.neutral(head, 3)
    start.translation[:] = torch.tensor([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0], [0.03, 0.02, 0.0]])
    weights = replace(NONE, smooth=(("translation", 2.0), ("expr", 0.0)))
    step = GeometryStep(head, start, [target] * 3, views, surface, priors_of(), weights, {"translation": 1e-3})
    squares = torch.tensor([0.0, 1e-4, 4e-4 + 4e-4])
    for rows in ([0, 1, 2], [2]):
        if len(rows) < 3:
            step.turn_to(rows, views)
        loss = step().loss
        assert float(loss) == pytest.approx(2.0 * float(squares[rows].sum()) / (3 * len(rows)), rel=1e-4)
        slope = step.unpack(torch.autograd.grad(loss, step.values)[0])["translation"]
        apart = (start.translation - start.translation[[0, 0, 1]]).float()
        expected = torch.zeros(3, 3)
        expected[rows] = 2.0 * 2 * apart[rows] * 1e-3 / (3 * len(rows))
        torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-9)


def test_landmarks_of_many_timesteps_count_by_their_mean_and_priors_by_their_pictures(scene) -> None:
    """Three times the same timestep says the same of the landmarks; priors are summed, and balanced by the pictures."""
    head, _, target, views, surface = scene
    one = displaced(scene)
    many = FitParameters.neutral(head, 3)
    for name, value in one.items().items():
        getattr(many, name)[:] = value
    seen = views.of_rows(list(range(len(views.views))) * 4, views.rgba[:0])
    assert len(seen.views) == 12 > BALANCED

    def loss_of(parameters: FitParameters, weights: GeometryWeights) -> float:
        targets = [target] * parameters.timesteps
        shown = views if parameters.timesteps == 1 else seen
        step = GeometryStep(head, parameters, targets, shown, surface, priors_of(), weights, {"expr": 1e-2})
        return float(step().loss)

    marks = replace(NONE, landmark_3d=1.0, landmark=10.0, surface=3.0)
    assert loss_of(many, marks) == pytest.approx(loss_of(one, marks), rel=1e-5)
    held = replace(NONE, prior=0.02)
    assert loss_of(many, held) == pytest.approx(3 * BALANCED / 12 * loss_of(one, held), rel=1e-5)
