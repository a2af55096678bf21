"""The forward pass: gradients of every parameter against finite differences, and facts of linear blend skinning."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from flame_fitting.head.rotations import rotation_matrix
from tests.toy import toy_head


def _parameters(head, steps=2, seed=0):
    rng = torch.Generator().manual_seed(seed)

    def draw(*size, scale=0.3):
        return (torch.randn(*size, generator=rng, dtype=torch.float64) * scale).requires_grad_()

    return {
        "shape": draw(head.n_shape),
        "expr": draw(steps, head.n_expr),
        "rotation": draw(steps, 3),
        "neck_pose": draw(steps, 3),
        "jaw_pose": draw(steps, 3),
        "eyes_pose": draw(steps, 6),
        "translation": draw(steps, 3, scale=0.1),
        "static_offset": draw(1, head.n_vertices, 3, scale=1e-3),
    }


@pytest.mark.parametrize("name", list(_parameters(toy_head())))
def test_gradient_equals_finite_differences(name):
    head = toy_head().double()
    parameters = _parameters(head)
    weights = torch.randn(2, head.n_vertices, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((head(**parameters).vertices * weights).sum(), parameters[name])
    rng, step = np.random.default_rng(2), 1e-6
    flat = gradient.flatten()
    assert flat.abs().max() > 0
    for index in rng.choice(flat.numel(), size=min(6, flat.numel()), replace=False):
        values = []
        for sign in (1, -1):
            moved = {key: value.detach().clone() for key, value in parameters.items()}
            moved[name].view(-1)[index] += sign * step
            values.append((head(**moved).vertices * weights).sum())
        numeric = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(flat[index], numeric, rtol=1e-5, atol=1e-6)


def test_gradient_is_finite_at_zero_pose():
    head = toy_head().double()
    pose = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    head(jaw_pose=pose, rotation=pose).vertices.square().sum().backward()
    assert torch.isfinite(pose.grad).all() and pose.grad.abs().max() > 0


def test_rotation_matrix_equals_scipy():
    vectors = np.random.default_rng(0).normal(size=(20, 3)) * np.logspace(-9, 0.4, 20)[:, None]
    ours = rotation_matrix(torch.as_tensor(vectors)).numpy()
    np.testing.assert_allclose(ours, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


def test_nothing_given_is_the_template():
    head = toy_head()
    torch.testing.assert_close(head().vertices[0], head.v_template, atol=1e-7, rtol=0)


def test_root_rotation_is_rigid_about_the_root_joint():
    head = toy_head().double()
    rest = head(shape=torch.ones(head.n_shape, dtype=torch.float64))
    turned = head(
        shape=torch.ones(head.n_shape, dtype=torch.float64), rotation=torch.tensor([[0.1, -0.7, 0.3]]).double()
    )
    matrix = rotation_matrix(torch.tensor([0.1, -0.7, 0.3]).double())
    root = rest.joints[0, 0]
    torch.testing.assert_close(turned.vertices[0], (rest.vertices[0] - root) @ matrix.T + root)


def test_time_steps_are_independent():
    head = toy_head().double()
    parameters = {key: value.detach() for key, value in _parameters(head, steps=3).items()}
    together = head(**parameters).vertices
    for t in range(3):
        single = {k: v if k in ("shape", "static_offset") else v[t : t + 1] for k, v in parameters.items()}
        torch.testing.assert_close(head(**single).vertices[0], together[t])


def test_offsets_move_the_joints():
    head = toy_head().double()
    offset = torch.zeros(1, head.n_vertices, 3, dtype=torch.float64)
    offset[..., 1] = 0.01
    torch.testing.assert_close(head(static_offset=offset).joints, head().joints + torch.tensor([0, 0.01, 0]).double())
