"""Lid and lip gaps and gaze of the open head."""

import numpy as np
import pytest
import torch

from flame_fitting.errors import InputError
from flame_fitting.head.apertures import GAP_NAMES, Apertures, closing_expression, find_apertures, gaze_angles
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from tests.head.ring_head import ring_head


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open")


@pytest.fixture(scope="module")
def apertures(head) -> Apertures:
    return find_apertures(head)


def test_rims_lie_on_lids_and_lips_at_their_sides(head, apertures):
    upper, lower = 1000 * apertures.points(head.v_template[None], head.faces)[0].double().numpy()
    eyes = {side: 1000 * head.v_template[head.regions[f"{side}_eyeball"]].numpy() for side in ("right", "left")}
    for row, name in enumerate(GAP_NAMES[:10]):
        ball = eyes[name.split("_")[0]]
        center = 0.5 * (ball.min(0) + ball.max(0))
        for point in (upper[row], lower[row]):
            assert np.linalg.norm(point - center) > 11.5, "on the skin, not in the eyeball"
            assert np.linalg.norm(ball - point, axis=1).min() < 5
        assert upper[row, 1] > lower[row, 1] and abs(upper[row, 0] - lower[row, 0]) < 0.5
    assert np.all(np.diff(upper[:5, 0]) > 0) and np.all(np.diff(upper[5:10, 0]) < 0), "outer to inner"
    np.testing.assert_allclose(upper[:5, 0], -upper[5:10, 0], atol=1.0)
    weights = head.weights[:, 2].numpy()[head.faces.numpy()].mean(1)
    assert (weights[apertures.face_index[0, 10:]] < 0.5).all() and (weights[apertures.face_index[1, 10:]] > 0.5).all()


def test_a_jaw_that_opens_parts_the_lips_and_leaves_the_lids(head, apertures):
    gaps = [
        1000 * apertures.gaps(head(jaw_pose=torch.tensor([[angle, 0.0, 0.0]])).vertices, head.faces)[0]
        for angle in (0.0, 0.1, 0.2)
    ]
    assert gaps[0][10:].max() < 2 and (gaps[1] - gaps[0])[10:].min() > 5
    # twice the angle is nearly twice the gap
    np.testing.assert_allclose((gaps[2] - gaps[0])[10:] / (gaps[1] - gaps[0])[10:], 2, atol=0.15)
    np.testing.assert_allclose(gaps[2][:10], gaps[0][:10], atol=0.1)


def test_gaps_do_not_change_with_the_place_and_turn_of_the_head(head, apertures):
    rotation, neck = torch.tensor([[0.2, -0.5, 0.1]]), None
    still, moved = head(), head(rotation=rotation, neck_pose=neck, translation=torch.tensor([[0.3, -1.0, 2.0]]))
    up = rotation_matrix(rotation)[:, :, 1]
    np.testing.assert_allclose(
        apertures.gaps(moved.vertices, head.faces, up), apertures.gaps(still.vertices, head.faces), atol=2e-5
    )


def test_gaps_move_with_the_vertices_that_they_are_made_of(head, apertures):
    double = head.double()
    vertices = double.v_template[None].clone().requires_grad_()
    apertures.gaps(vertices, double.faces)[0, 2].backward()
    moved = torch.nonzero(vertices.grad[0].abs().sum(1))[:, 0]
    assert set(moved.tolist()) <= set(double.faces[apertures.face_index[:, 2]].flatten().tolist())
    assert vertices.grad[0, :, 1].sum().abs() < 1e-12, "both rims raised alike change nothing"
    head.float()


def test_gaze_is_where_the_eyes_are_turned():
    yaw, pitch = 0.3, 0.2
    # left eye toward the subject's left, right eye up: a turn about -x looks up
    angles = gaze_angles(torch.tensor([[0.0, yaw, 0.0, -pitch, 0.0, 0.0]]))[0]
    np.testing.assert_allclose(angles, [0, pitch, yaw, 0], atol=1e-6)


def test_a_head_without_eyeballs_is_refused():
    with pytest.raises(InputError, match="no right eyeball"):
        find_apertures(HeadModel(ring_head(eyes=False)))


def test_lids_are_shut_by_expression_and_lips_stay(head, apertures):
    rng = np.random.default_rng(5)
    shape, offset = rng.normal(size=head.n_shape), rng.normal(size=(1, 1, 3)) * 0.001
    fixed = {"shape": torch.as_tensor(shape).float(), "static_offset": torch.as_tensor(offset).float()}
    fixed["static_offset"] = fixed["static_offset"].expand(1, head.n_vertices, 3) * torch.sin(60 * head.v_template)
    neutral = head(**fixed).vertices
    shut = closing_expression(head, apertures, neutral[0].double().numpy())
    before = 1000 * apertures.gaps(neutral, head.faces)[0].numpy()
    after = (
        1000 * apertures.gaps(head(expr=torch.as_tensor(shut)[None].float(), **fixed).vertices, head.faces)[0].numpy()
    )
    assert before[:10].min() > 4 and np.abs(after[:10]).max() < 0.1 * before[:10].min()
    np.testing.assert_allclose(after[10:], before[10:], atol=0.1)
    assert np.abs(shut).max() < 5
