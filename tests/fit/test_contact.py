"""Lips and lids that do not pass through each other."""

from dataclasses import replace

import numpy as np
import torch

from flame_fitting.fit.contact import Meeting, lower_lip, meetings, touching
from flame_fitting.fit.intersections import crossing_pairs
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import surface_weights
from flame_fitting.fit.solvers.registration import OffsetConfig, fit_offsets
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.head.apertures import closing_expression, find_apertures
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.evidence import Evidence
from tests.fit.known_truth import cloud_of, embedding_on

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=float)
FACES = np.array([[0, 1, 2], [0, 2, 3]])


def test_what_is_near_or_inside_touches_and_nothing_beside() -> None:
    mm = 0.001
    points = mm * np.array([[5, 5, -1], [5, 5, 0.02], [5, 5, 1], [5, 5, -20], [30, 5, -1]], dtype=float)
    vertices = np.concatenate([10 * mm * SQUARE, points])
    found = touching(vertices, [Meeting(np.arange(4, 9), FACES)], 0.05 * mm)
    np.testing.assert_array_equal(found.own, [4, 5])
    np.testing.assert_allclose(found.gap, mm * np.array([-1, 0.02]), atol=1e-12)
    np.testing.assert_allclose(found.normal, [[0, 0, 1]] * 2)
    at = np.einsum("nk,nkc->nc", found.shares, vertices[found.other])
    np.testing.assert_allclose(at, points[:2] * (1, 1, 0), atol=1e-12)
    assert not len(touching(vertices, [], mm).own)


def test_a_heads_parts_by_the_jaw_and_by_the_side() -> None:
    head = load_head("open")
    lower = lower_lip(head, find_apertures(head)).astype(bool)
    lips, faces = head.face_mask("lips", "lips_tight").numpy(), head.faces.numpy()
    height = head.v_template.numpy()[faces].mean(1)[:, 1]
    assert height[lips & lower].mean() < height[lips & ~lower].mean()
    parts = meetings(head)
    assert len(parts) == 4
    assert np.isin(parts[0].own, parts[1].other).all() and np.isin(parts[1].own, parts[0].other).all()
    right, left = (np.unique(part.other) for part in parts[2:])
    assert head.v_template.numpy()[right, 0].max() < 0 < head.v_template.numpy()[left, 0].min()


def test_offsets_keep_the_lips_of_the_fit_and_of_its_neutral_head_apart() -> None:
    """Lips that meet where the jaw is open by a little would pass through each other when it shuts."""
    head = load_head("open").double()
    shut = FitParameters.neutral(head, 1, torch.float64)
    posed = replace(shut, jaw_pose=torch.tensor([[0.02, 0.0, 0.0]], dtype=torch.float64))
    # the avatar's lips meet at a template's shut mouth
    skin = head.faces[~head.face_mask("teeth", "lip_inside")]
    target = FrameTarget((), cloud_of(shut.vertices(head)[0].numpy(), skin.numpy(), count=150000))
    lips = torch.nonzero(head.face_mask("lips", "lips_tight"))[:, 0].numpy()
    deepest, crossing = {}, {}
    for contact in (0.0, OffsetConfig().contact):
        config = OffsetConfig(contact=contact)
        found = fit_offsets(head, posed, [target], surface_weights(head), 8, config)
        neutral = replace(found, jaw_pose=shut.jaw_pose).vertices(head)[0].detach().numpy()
        held = touching(neutral, meetings(head)[:2], 0.0)
        deepest[contact] = -1000 * held.gap.min(initial=0.0)
        crossing[contact] = len(np.unique(crossing_pairs(neutral, head.faces.numpy(), lips, lips)))
    without, with_it = deepest
    assert deepest[without] > 0.5 and deepest[with_it] < 0.2, deepest
    assert crossing[with_it] < 0.3 * crossing[without], crossing


def test_rims_of_shut_lids_meet_and_others_are_left_alone() -> None:
    """What a fit before offsets has left open by a millimetre."""
    head = load_head("open").double()
    apertures = find_apertures(head)
    closing = closing_expression(head, apertures, head.v_template.numpy())
    neutral = FitParameters.neutral(head, 1, torch.float64)
    parameters = replace(neutral, expr=torch.as_tensor(0.85 * closing)[None])
    posed = parameters.vertices(head)[0]
    before = 1000 * apertures.gaps(posed[None], head.faces)[0].numpy()
    values = np.concatenate([before, np.zeros(4)])
    values[:5] = 0.2  # the right eye is read as shut
    evidence = Evidence(values, np.full(17, 0.2), np.zeros(17), np.zeros(52))
    source = replace(SourceTarget(_no_landmarks(head)), evidence=evidence)
    skin = head.faces[~head.face_mask("teeth", "lip_inside", "eyeballs")]
    target = FrameTarget((source,), cloud_of(posed.numpy(), skin.numpy(), count=100000))
    found = fit_offsets(head, parameters, [target], surface_weights(head), 8)
    after = 1000 * apertures.gaps(found.vertices(head), head.faces)[0].numpy()
    assert before[:10].min() > 0.5
    assert np.abs(after[:5]).max() < 0.2 and np.abs(after[5:10] - before[5:10]).max() < 0.3


def _no_landmarks(head):
    embedding = embedding_on(head)
    return make_landmark_target(head, embedding, np.full((80, 3), np.nan), np.ones(80), np.ones(80))
