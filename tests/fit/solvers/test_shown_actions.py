"""Which actions a face's shape shows, with known truth."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from flame_fitting.avatar.demo_head import outside_offsets
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import surface_weights
from flame_fitting.fit.solvers.active_expression import ActiveExpression, precision_of
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.solvers.shown_actions import Shown, kernel, shown_actions
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.head.actions import actions_of
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.action_scores import FoundAction
from tests.fit.known_truth import cloud_of, embedding_on
from tests.fit.settings import second_order_of


@lru_cache(maxsize=1)
def person():
    """The open head, and a person's identity and offsets, which are not in the span of its components."""
    head, rng = load_head("open").double(), np.random.default_rng(5)
    offsets = outside_offsets(head.float(), 0.0015, rng, leading=(0, 0))
    return head.double(), torch.as_tensor(0.8 * rng.standard_normal(head.n_shape)), torch.as_tensor(offsets)


def fitted(expression, use_surface=True):
    """Parameters as if at rest, and what they were fitted to."""
    head, shape, offsets = person()
    neutral = FitParameters.neutral(head, 1, torch.float64)
    truth = replace(neutral, shape=shape, expr=torch.as_tensor(expression)[None], static_offset=offsets[None])
    vertices = truth.vertices(head)[0]
    embedding = embedding_on(head, count=200)
    points = embedding.points(vertices[None], head.faces)[0].numpy()
    points += np.random.default_rng(2).normal(0, 0.001, points.shape)
    marks = make_landmark_target(head, embedding, points, np.full(200, 0.001), np.ones(200))
    skin = head.faces[~head.face_mask("eyeballs", "teeth", "lip_inside")]
    cloud = cloud_of(vertices.numpy(), skin.numpy(), count=120000) if use_surface else None
    target, surface = FrameTarget((SourceTarget(marks),), cloud), surface_weights(head)
    columns = Columns.of(head, ["placement", "shape", "expr", "jaw_pose"], {"shape": 60, "expr": 60})
    settings = second_order_of(iterations=12)
    found = gauss_newton(head, neutral, [target], columns, PriorConfig(), settings, surface if use_surface else None)
    return head, found.parameters, target, surface if use_surface else None


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ({}, set()),
        ({"mouthSmileRight": 0.8}, {("mouthSmileRight",)}),
        ({"browDownLeft": 1.0, "browDownRight": 1.0}, {("browDownLeft", "browDownRight")}),
    ],
)
def test_actions_are_told_from_identity_and_offsets(amounts, expected) -> None:
    actions = actions_of(load_head("open"))
    assert actions is not None
    head, parameters, target, surface = fitted(actions.expression(amounts))
    found = shown_actions(head, parameters, target, surface, PriorConfig(), actions)
    # the surest first; a smile may stretch the mouth
    assert {action.names for action in found.actions[: len(expected)]} == expected and len(found.actions) <= 2
    assert bool(found.actions) == bool(expected)
    for action, direction in zip(found.actions, found.directions, strict=True):
        assert action.amount > 0.6 or action.names not in expected
        np.testing.assert_allclose(direction, actions.expression(dict.fromkeys(action.names, 1.0)))


def test_landmarks_alone_are_enough_for_a_wide_smile() -> None:
    actions = actions_of(load_head("open"))
    assert actions is not None
    args = fitted(actions.expression({"mouthSmileLeft": 1.2, "mouthSmileRight": 1.2}), use_surface=False)
    found = shown_actions(*args, PriorConfig(), actions)
    assert ("mouthSmileLeft", "mouthSmileRight") in {action.names for action in found.actions}


def test_priors_are_wide_along_what_is_shown_and_nowhere_else() -> None:
    direction = np.array([[0.0, 2.0, 0.0]])
    shown = Shown((FoundAction(("cheekPuff",), 0.7, 0.1, 3.0),), direction)
    head = load_head("open")
    active = ActiveExpression.at_rest(head)
    assert not active.said and not len(active.directions)
    active = replace(active, directions=np.zeros((0, 3))).with_shown(shown)
    assert active.said == ("cheekPuff 0.7",)
    variances = torch.linalg.inv(precision_of(active, torch.full((3,), 0.3, dtype=torch.float64))).diagonal()
    np.testing.assert_allclose(variances, [0.09, 4.09, 0.09])


def test_kernels_are_those_of_a_process() -> None:
    points = np.random.default_rng(0).normal(0, 0.03, (40, 3))
    found = kernel(points, (0.01, 0.04))
    np.testing.assert_allclose(found.diagonal(), 1.0)
    assert np.linalg.eigvalsh(found).min() > -1e-9
    far = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.testing.assert_allclose(found, 0.5 * (np.exp(-(far**2) / 2e-4) + np.exp(-(far**2) / 3.2e-3)), atol=1e-12)
