"""Rotation and translation of every timestep from landmarks alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.errors import NoFaceError
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.closed_form import align_timesteps
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from tests.fit.known_truth import embedding_on
from tests.toy import toy_head


def _case(timesteps=4):
    """Known poses far from the start, exact landmarks, everything else known."""
    head, generator = toy_head().double(), torch.Generator().manual_seed(5)

    def draw(*size, scale):
        return torch.randn(*size, generator=generator, dtype=torch.float64) * scale

    truth = replace(
        FitParameters.neutral(head, timesteps),
        placement=torch.tensor([0.1, -0.2, 0.05, 0.01, 0.02, -0.03, 0.1], dtype=torch.float64),
        shape=draw(head.n_shape, scale=1.0),
        rotation=draw(timesteps, 3, scale=0.8),
        translation=draw(timesteps, 3, scale=0.2),
        jaw_pose=torch.tensor([[0.1, 0.0, 0.0]], dtype=torch.float64).repeat(timesteps, 1),
    )
    embedding, vertices, targets = embedding_on(head), truth.vertices(head), []
    for t in range(timesteps):
        points = embedding.points(vertices[t : t + 1], head.faces)[0].numpy()
        marks = make_landmark_target(head, embedding, points, np.full(80, 2e-4), np.ones(80))
        targets.append(FrameTarget((SourceTarget(marks),)))
    start = replace(truth, rotation=torch.zeros_like(truth.rotation), translation=truth.translation + 1.0)
    return head, truth, start, targets


def test_motion_is_found_from_anywhere_and_nothing_else_moves():
    head, truth, start, targets = _case()
    targets[1].sources[0].landmarks.points[:5] += 0.3  # outliers
    found = align_timesteps(head, start, targets)
    torch.testing.assert_close(found.vertices(head), truth.vertices(head), atol=1e-8, rtol=0)
    torch.testing.assert_close(found.translation, truth.translation, atol=1e-8, rtol=0)
    for name, value in found.items().items():
        if name not in ("rotation", "translation"):
            torch.testing.assert_close(value, getattr(start, name), atol=0, rtol=0)


def test_a_timestep_without_landmarks_stands_where_its_neighbour_does():
    head, truth, start, targets = _case()
    empty = make_landmark_target(head, embedding_on(head), np.full((80, 3), np.nan), np.full(80, 2e-4), np.ones(80))
    targets[3] = FrameTarget((SourceTarget(empty),))
    found = align_timesteps(head, start, targets)
    torch.testing.assert_close(found.rotation[3], found.rotation[2], atol=0, rtol=0)
    torch.testing.assert_close(found.translation[3], truth.translation[2], atol=1e-8, rtol=0)
    with pytest.raises(NoFaceError, match="no timestep has 6 landmarks"):
        align_timesteps(head, start, [FrameTarget((SourceTarget(empty),))] * 4)
