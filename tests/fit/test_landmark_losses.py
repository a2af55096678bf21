"""Landmark terms of first-order stages: in pictures of known cameras, and the opening of lids and lips."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.fit.losses.landmarks import OPPOSITE, closure_loss, closure_pairs, projected_landmark_loss
from flame_fitting.fit.targets import make_detection_target, make_landmark_target
from flame_fitting.head.embedding import LandmarkEmbedding
from tests.toy import toy_head

SIZE = (320, 200)
UP = np.array([0.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def head():
    return toy_head()


def embedding_of(head, count=68, seed=0):
    """Landmarks of the iBUG-68 order on triangles of the head's front."""
    rng = np.random.default_rng(seed)
    front = np.flatnonzero((head.v_template[head.faces][..., 2] > 0.05).all(1).numpy())
    return LandmarkEmbedding(
        rng.choice(front, count, replace=False),
        rng.dirichlet([2, 2, 2], size=count),
        np.full(count, 0.5),
        np.full(count, 9),
        "ibug68",
        "toy",
        "clay",
        "toy",
    )


def cameras(yaws, size=SIZE):
    """K (C, 3, 3) and cameras (C, 4, 4) that look at the head from yaws in degrees."""
    K = np.stack([intrinsics_from_fov(20.0, *size)] * len(yaws))
    eyes = [0.9 * np.array([np.sin(a), 0.1, np.cos(a)]) for a in np.radians(yaws)]
    return K, np.stack([look_at(eye, np.zeros(3), UP) for eye in eyes])


def places_of(head, embedding):
    return embedding.points(head.v_template[None], head.faces)[0].double().numpy()


def detected(head, embedding, yaws, size=SIZE):
    """True projections (C, N, 3) with confidence 1, and the cameras."""
    K, camera = cameras(yaws, size)
    found = [project(places_of(head, embedding), k, c) for k, c in zip(K, camera, strict=True)]
    out = np.stack(found)
    out[..., 2] = 1.0
    return out, K, camera


def target_of(head, embedding, found, K, camera, size=SIZE):
    return make_detection_target(head, embedding, "ibug68", found, K, camera, size)


@pytest.mark.parametrize("size", [(320, 200), (200, 320), (256, 256)])
def test_true_head_costs_nothing(head, size):
    embedding = embedding_of(head)
    target = target_of(head, embedding, *detected(head, embedding, (0, 20, -20), size), size)
    assert target.weight.max() == 1
    assert projected_landmark_loss(head.v_template.float(), target) < 1e-5
    assert torch.allclose(target.project(head.v_template.float()), target.points, atol=1e-5)


@pytest.mark.parametrize("size", [(320, 200), (200, 320)])
def test_a_pixel_costs_the_same_across_and_down(head, size):
    embedding = embedding_of(head)
    found, K, camera = detected(head, embedding, (0,), size)
    losses = []
    for axis in (0, 1):
        moved = found.copy()
        moved[..., axis] += 1.0
        losses.append(
            projected_landmark_loss(head.v_template.float(), target_of(head, embedding, moved, K, camera, size))
        )
    target = target_of(head, embedding, found, K, camera, size)
    factor = torch.where((target.ibug >= 27) & (target.ibug < 36), 10.0, 1.0)
    expected = (target.weight * factor).mean() / (max(size) / 2)
    assert losses[0].item() == pytest.approx(expected.item(), rel=1e-3)
    assert losses[1].item() == pytest.approx(expected.item(), rel=1e-3)


def test_views_in_which_nothing_was_found_count_in_the_mean(head):
    embedding = embedding_of(head)
    found, K, camera = detected(head, embedding, (0, 20))
    found[..., 0] += 3.0
    args = (head, embedding, "ibug68", found, K, camera, SIZE)
    vertices = head.v_template.float()
    alone = projected_landmark_loss(vertices, make_detection_target(*args))
    of_five = projected_landmark_loss(vertices, make_detection_target(*args, searched=5))
    assert of_five.item() == pytest.approx(2 / 5 * alone.item(), rel=1e-5)


@pytest.mark.parametrize("jawline", [True, False])
def test_nose_is_boosted_with_the_jaw_line_only(head, jawline):
    embedding = embedding_of(head)
    found, K, camera = detected(head, embedding, (0,))
    base = target_of(head, embedding, found, K, camera)
    full = replace(base, weight=torch.ones_like(base.weight))

    def loss(number, boost=10.0):
        points = full.points.clone()
        points[:, full.ibug == number] += 0.01
        moved = replace(full, points=points)
        return projected_landmark_loss(head.v_template.float(), moved, jawline, boost).item()

    for nose in (27, 35):
        assert loss(nose) == pytest.approx((10 if jawline else 1) * loss(40), rel=1e-2)
        assert loss(nose, 1.0) == pytest.approx(loss(40), rel=1e-2)
    for other in (26, 36):
        assert loss(other) == pytest.approx(loss(40), rel=1e-2)
    assert loss(40) == pytest.approx(0.02 / (68 if jawline else 51), rel=1e-2)


def test_jaw_line_can_be_off(head):
    embedding = embedding_of(head)
    found, K, camera = detected(head, embedding, (0,))
    found[:, :17, 0] += 5
    target = target_of(head, embedding, found, K, camera)
    assert target.outline.sum() == 17
    assert projected_landmark_loss(head.v_template.float(), target, jawline=True) > 1e-3
    assert projected_landmark_loss(head.v_template.float(), target, jawline=False) < 1e-5


def test_points_that_look_away_or_were_not_found_count_nothing(head):
    embedding = embedding_of(head)
    found, K, camera = detected(head, embedding, (0, 90))
    found[0, 30] = np.nan
    found[0, 40, 2] = 0.25
    target = target_of(head, embedding, found, K, camera)
    corners = head.v_template.double()[head.faces[torch.as_tensor(embedding.face_index)]].numpy()
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    eyes = np.linalg.inv(camera)[:, :3, 3]
    toward = eyes[:, None] - places_of(head, embedding)
    degrees = np.degrees(np.arccos((toward / np.linalg.norm(toward, axis=-1, keepdims=True) * normals[None]).sum(-1)))
    inner = ~target.outline.numpy()
    away, well = (degrees > 81) & inner, (degrees < 69) & inner
    well[0, [30, 40]] = False
    assert away[1].any() and well[0].sum() > 30 and well[1].any()
    assert not target.weight.numpy()[away].any()
    assert (target.weight.numpy()[well] == 1).all()
    assert target.weight[0, 30] == 0 and target.weight[0, 40] == pytest.approx(0.25)
    assert target.confidence is not None
    assert (target.confidence.numpy()[away & ~np.isin(np.arange(68), [30, 40])[None]] == 1).all()


def test_points_that_look_away_count_where_vhap_counts_them(head):
    embedding = embedding_of(head)
    found, K, camera = detected(head, embedding, (0, 90))
    target = target_of(head, embedding, found, K, camera)
    assert (target.weight[1] == 0).any()
    points = target.points.clone()
    points[target.weight == 0] += 0.1
    moved = replace(target, points=points)
    vertices = head.v_template.float()
    assert projected_landmark_loss(vertices, moved) < 1e-5
    assert projected_landmark_loss(vertices, moved, visible=False) > 1e-3
    # the outline is judged elsewhere: there it is a contour
    assert (target.weight[:, target.outline] == 1).all()
    assert torch.isfinite(projected_landmark_loss(head.v_template.float(), target))


def test_weight_scales_a_point(head):
    embedding = embedding_of(head)
    found, K, camera = detected(head, embedding, (0,))
    found[:, 45, :2] += 4
    losses = []
    for confidence in (1.0, 0.5):
        found[:, 45, 2] = confidence
        losses.append(projected_landmark_loss(head.v_template.float(), target_of(head, embedding, found, K, camera)))
    assert losses[1].item() == pytest.approx(losses[0].item() / 2, rel=1e-3)


def test_irises_of_mediapipe_count_and_its_outline_does_not(head):
    embedding = mediapipe_embedding(head)
    found, K, camera = detected(head, embedding, (0,))
    target = make_detection_target(head, embedding, "mediapipe478", found, K, camera, SIZE)
    assert (target.ibug >= 0).sum() == 68
    assert sorted(target.ibug[target.ibug >= 0].tolist()) == list(range(68))
    irises = (target.ibug < 0) & ~target.outline
    outline = (target.ibug < 0) & target.outline
    assert irises.sum() == 10 and outline.any()
    full = replace(target, weight=torch.ones_like(target.weight))

    def loss(rows):
        points = full.points + 0.05 * rows[None, :, None]
        return projected_landmark_loss(head.v_template.float(), replace(full, points=points)).item()

    assert loss(irises) > 1e-3
    assert loss(outline) < 1e-5


def mediapipe_embedding(head):
    """Random places for all points of the scheme."""
    rng = np.random.default_rng(2)
    front = np.flatnonzero((head.v_template[head.faces][..., 2] > 0.05).all(1).numpy())
    few = embedding_of(head)
    return replace(
        few,
        face_index=rng.choice(front, 478),
        barycentric=rng.dirichlet([2, 2, 2], size=478),
        spread_mm=np.full(478, 0.5),
        n_views=np.full(478, 9),
        scheme="mediapipe478",
    )


def test_projected_gradient_agrees_with_finite_differences(head):
    embedding = embedding_of(head)
    found, K, camera = detected(head, embedding, (0, 20))
    # far from the kink of an absolute value
    found[..., :2] += np.random.default_rng(1).choice([-6.0, 6.0], found[..., :2].shape)
    target = target_of(head, embedding, found, K, camera)
    vertices = head.v_template.float().clone().requires_grad_()
    projected_landmark_loss(vertices, target).backward()
    direction = torch.randn(vertices.shape, generator=torch.Generator().manual_seed(3))
    step = 2e-4
    with torch.no_grad():
        ends = [projected_landmark_loss(vertices + sign * step * direction, target).item() for sign in (1, -1)]
    assert (vertices.grad * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-2)


def opening(head, drop=()):
    """Landmarks in space on the true head, without the points in `drop`."""
    embedding = embedding_of(head)
    weight = np.ones(68)
    weight[list(drop)] = 0
    points = places_of(head, embedding)
    return make_landmark_target(head, embedding, points, np.full(68, 5e-4), weight, scheme="ibug68")


def test_pairs_are_those_of_which_both_points_were_measured(head):
    whole, some = opening(head), opening(head, drop=(37, 66))
    pairs = closure_pairs(whole, "ibug68")
    assert [(int(whole.index[a]), int(whole.index[b])) for a, b in zip(pairs.first, pairs.second, strict=True)] == list(
        OPPOSITE
    )
    left = closure_pairs(some, "ibug68")
    found = [(int(some.index[a]), int(some.index[b])) for a, b in zip(left.first, left.second, strict=True)]
    assert found == [pair for pair in OPPOSITE if 37 not in pair and 66 not in pair]
    assert closure_pairs(opening(head, drop=range(36, 68)), "ibug68") is None


def test_only_the_opening_counts(head):
    target = opening(head)
    pairs = closure_pairs(target, "ibug68")
    vertices = head.v_template.float()
    assert closure_loss(vertices, target, pairs) < 1e-6
    shifted = vertices + torch.tensor([0.01, -0.02, 0.005])
    assert closure_loss(shifted, target, pairs) < 1e-6
    # one pair's measured opening is off by a known number of standard deviations
    wrong = replace(target, points=target.points.clone())
    apart = torch.tensor([0.0, 0.002, 0.0], dtype=wrong.points.dtype)
    wrong.points[pairs.first[0]] += apart
    sigma = (target.sigma[pairs.first[0]] ** 2 + target.sigma[pairs.second[0]] ** 2).item()
    squared = 0.002**2 / sigma
    expected = squared / (1 + squared / 16) / len(OPPOSITE)
    assert closure_loss(vertices, wrong, pairs).item() == pytest.approx(expected, rel=1e-3)
    wrong.points[pairs.first[0]] += 1000 * apart
    assert closure_loss(vertices, wrong, pairs).item() == pytest.approx(16 / len(OPPOSITE), rel=1e-2)


def test_closure_gradient_agrees_with_finite_differences(head):
    target = opening(head)
    pairs = closure_pairs(target, "ibug68")
    noise = torch.randn(head.v_template.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    vertices = (head.v_template.double() + 5e-4 * noise).requires_grad_()
    closure_loss(vertices, target, pairs).backward()
    direction = torch.randn(vertices.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        ends = [closure_loss(vertices + sign * step * direction, target, pairs).item() for sign in (1, -1)]
    assert (vertices.grad * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)
