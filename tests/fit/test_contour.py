"""The jaw line's contour on the open head, whose true outline is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import clip_from_world, intrinsics_from_fov, look_at
from flame_fitting.fit.contour import _far_side, _hidden, contour_loss, find_contour
from flame_fitting.fit.targets import DetectionTarget
from flame_fitting.head.loading import load_head
from flame_fitting.render.mesh import clip_positions

YAWS = (0.0, 35.0, -35.0)


@pytest.fixture(scope="module")
def head():
    return load_head("open")


def detections(head, vertices, shift=0.0):
    """Jaw-line points on the outline of the drawn head: the outermost point of the face at each of 17 heights.

    Only the side that is turned away has points in turned views. The points move outwards by `shift`.
    """
    matrices = []
    for yaw in np.radians(YAWS):
        camera = look_at(np.array([0.9 * np.sin(yaw), 0.0, 0.9 * np.cos(yaw)]), np.zeros(3), np.array([0.0, 1.0, 0.0]))
        matrices.append(clip_from_world(intrinsics_from_fov(20.0, 512, 512), camera, 512, 512, 0.3, 2.0))
    clip = torch.as_tensor(np.stack(matrices), dtype=torch.float32)
    projected = clip_positions(vertices[None].float(), clip)
    projected = projected[..., :2] / projected[..., 3:]
    cheeks = head.region_mask("left_cheek", "right_cheek")
    points, weight = torch.zeros(len(YAWS), 17, 2), torch.zeros(len(YAWS), 17)
    corners = torch.zeros(17, 3, dtype=torch.long)
    edges = torch.cat([head.faces[:, [0, 1]], head.faces[:, [1, 2]], head.faces[:, [2, 0]]])
    edges = edges[head.region_mask("face", "left_cheek", "right_cheek")[edges].all(1)]
    for view, yaw in enumerate(YAWS):
        low, high = projected[view, cheeks, 1].max(), projected[view, cheeks, 1].min()
        levels = torch.linspace(0.2, 0.85, 6) * (low - high) + high
        for number, level in enumerate(levels):
            cut = cut_at(projected[view], edges, level)
            for side, row in ((-1, 1 + number), (1, 15 - number)):
                if side * yaw > 0:
                    continue
                points[view, row] = torch.stack([side * ((side * cut).max() + shift), level])
                weight[view, row] = 1.0
    # places on the sides of the face, which look neither to nor from the cameras
    sides = head.v_template[head.faces][:, :, 0].mean(1)
    facing = torch.linalg.cross(
        head.v_template[head.faces[:, 1]] - head.v_template[head.faces[:, 0]],
        head.v_template[head.faces[:, 2]] - head.v_template[head.faces[:, 0]],
    )
    facing = facing / facing.norm(dim=-1, keepdim=True)
    inside = head.region_mask("face")[head.faces].all(1)
    for row in range(17):
        sign = -1.0 if row < 8 else 1.0
        lateral = torch.where(inside & (sign * sides > 0), sign * facing[:, 0], -2.0)
        corners[row] = head.faces[lateral.argmax()]
    return DetectionTarget(
        clip=clip,
        points=points,
        weight=weight,
        aspect=torch.ones(2),
        corners=corners,
        barycentric=torch.full((17, 3), 1 / 3),
        ibug=torch.arange(17),
        outline=torch.ones(17, dtype=torch.bool),
    )


def cut_at(projected, edges, level):
    """Where the edges of a drawn mesh cross a height: x of every crossing."""
    a, b = projected[edges].unbind(1)
    crossing = (a[:, 1] > level) != (b[:, 1] > level)
    a, b = a[crossing], b[crossing]
    return a[:, 0] + (level - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])


def widened(head, by):
    """The head's vertices with x scaled about the middle."""
    return head.v_template * torch.tensor([1 + by, 1.0, 1.0])


def test_true_head_lies_on_its_outline(head):
    target = detections(head, head.v_template)
    match = find_contour(head, head.v_template, target)
    given, used = target.weight > 0, match.weight > 0
    assert used.sum() >= 0.7 * given.sum()
    assert used.any(1).all()
    assert not used[~given].any()
    assert contour_loss(head.v_template, match, target) < 0.001


def test_width_is_told(head):
    target = detections(head, head.v_template)

    def loss(by):
        vertices = widened(head, by)
        return float(contour_loss(vertices, find_contour(head, vertices, target), target))

    at_truth = loss(0.0)
    assert loss(0.06) > 3 * at_truth
    assert loss(-0.06) > 3 * at_truth


def test_normals_point_out_of_the_face(head):
    target = detections(head, head.v_template)
    match = find_contour(head, head.v_template, target)
    used = match.weight > 0
    assert torch.allclose(match.normal[used].norm(dim=-1), torch.ones(int(used.sum())), atol=1e-5)
    outward = torch.where(torch.arange(17) < 8, -1.0, 1.0).expand_as(match.weight)
    assert (match.normal[..., 0] * outward)[used].min() > 0


def test_gradient_agrees_with_finite_differences(head):
    target = detections(head, head.v_template, shift=0.015)
    match = find_contour(head, head.v_template, target)
    vertices = head.v_template.clone().requires_grad_()
    contour_loss(vertices, match, target).backward()
    direction = torch.randn(head.v_template.shape, generator=torch.Generator().manual_seed(0))
    step = 2e-4
    ahead, behind = (
        contour_loss(head.v_template + sign * step * direction, match, target).item() for sign in (1.0, -1.0)
    )
    assert (vertices.grad * direction).sum().item() == pytest.approx((ahead - behind) / (2 * step), rel=0.03)
    assert torch.isfinite(vertices.grad).all()


def test_loss_is_bounded_and_moves_toward_the_points(head):
    target = detections(head, head.v_template, shift=0.02)
    match = find_contour(head, head.v_template, target)
    losses = [float(contour_loss(widened(head, by), match, target)) for by in (0.0, 0.03)]
    assert losses[1] < losses[0] <= 1.0


def test_copy_keeps_storage(head):
    target = detections(head, head.v_template)
    match = find_contour(head, head.v_template, target)
    other = find_contour(head, widened(head, 0.05), target)
    storage = [getattr(match, name).data_ptr() for name in ("first", "second", "share", "normal", "point", "weight")]
    match.copy_(other)
    for name, pointer in zip(("first", "second", "share", "normal", "point", "weight"), storage, strict=True):
        assert getattr(match, name).data_ptr() == pointer
        assert torch.equal(getattr(match, name), getattr(other, name))


def test_views_without_points_count_nothing(head):
    target = detections(head, head.v_template)
    nothing = replace(target, weight=torch.zeros_like(target.weight))
    match = find_contour(head, head.v_template, nothing)
    vertices = head.v_template.clone().requires_grad_()
    loss = contour_loss(vertices, match, nothing)
    loss.backward()
    assert loss == 0
    assert not vertices.grad.any()


def test_points_far_away_or_across_are_left_out(head):
    target = detections(head, head.v_template)
    away = replace(target, points=target.points + torch.tensor([0.0, 0.9]))
    assert not find_contour(head, head.v_template, away).weight.any()
    # a line whose outside is on the inside fits no contour
    turned = replace(target, ibug=torch.arange(16, -1, -1))
    assert not find_contour(head, head.v_template, turned).weight.any()


def test_near_side_of_a_turned_head_is_left_out():
    facing = torch.linspace(-0.6, 0.6, 17)
    kept = _far_side(torch.stack([facing, -facing, 0 * facing]), torch.arange(17))
    assert kept.tolist() == [[1.0] * 9 + [0.0] * 8, [0.0] * 8 + [1.0] * 9, [1.0] * 17]


def test_no_jaw_line_at_all(head):
    target = replace(detections(head, head.v_template), ibug=torch.full((17,), -1))
    match = find_contour(head, head.v_template, target)
    assert match.weight.shape == (3, 0)
    assert contour_loss(head.v_template, match, target) == 0


def test_points_behind_a_face_are_hidden():
    places = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0]])
    depths, faces = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([[0, 1, 2]])
    place = torch.tensor([[0.0, -0.9], [0.0, -0.9], [0.0, 0.9], [0.9, 0.9]])
    depth = torch.tensor([1.5, 0.9, 1.5, 9.0])
    for winding in (faces, faces.flip(1)):
        assert _hidden(place, depth, places, depths, winding).tolist() == [True, False, False, False]
