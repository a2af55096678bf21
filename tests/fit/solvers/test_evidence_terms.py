"""Lids, lips and gaze as measurements, on the open head of known parameters."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.evidence_terms import EvidenceTerms, Gaps, Gaze
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.solvers.jacobians import Linearizer
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.head.apertures import GAP_NAMES, Apertures, find_apertures, gaze_angles
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.evidence import Evidence
from tests.fit.known_truth import embedding_on
from tests.fit.settings import priors_of, second_order_of

FRAMES = 8
MIDDLE = [2, 7]
"""The middle columns of both eyes."""
BIAS = 0.3
"""What evidence of this person is always off by, mm."""
PARTS = ["placement_scale", "expr", "rotation", "translation", "neck_pose", "eyes_pose"]


@cache
def head() -> HeadModel:
    return load_head("open").double()


@cache
def apertures() -> Apertures:
    return find_apertures(head())


def gaps_of(parameters: FitParameters) -> np.ndarray:
    """(T, G) mm, in the axes of the head."""
    still = replace(parameters, **{n: torch.zeros_like(getattr(parameters, n)) for n in ("rotation", "neck_pose")})
    return 1000 * apertures().gaps(still.head_vertices(head()), head().faces).numpy()


@cache
def blinking() -> tuple[FitParameters, list[FrameTarget]]:
    """A head that turns and shuts its eyes in the middle; landmarks know nothing of its lids."""
    truth = FitParameters.neutral(head(), FRAMES)
    open_gaps, shut = gaps_of(truth)[0], torch.zeros(head().n_expr, dtype=torch.float64)
    slopes = []
    for k in range(20):
        one = FitParameters.neutral(head())
        one.expr[0, k] = 1.0
        slopes.append(gaps_of(one)[0] - open_gaps)
    wanted = np.where(np.arange(len(GAP_NAMES)) < 10, -open_gaps, 0.0)
    slope = np.array(slopes)
    shut[:20] = torch.as_tensor(np.linalg.solve(slope @ slope.T + 0.5 * np.eye(20), slope @ wanted))
    truth.expr[:] = torch.tensor([0, 0, 0.5, 1, 1, 0.5, 0, 0.0])[:, None] * shut
    truth.rotation[:, 1] = torch.linspace(-0.2, 0.2, FRAMES)
    truth.eyes_pose[:, [1, 4]] = torch.linspace(-0.15, 0.15, FRAMES)[:, None].double()
    gaze = np.degrees(gaze_angles(truth.eyes_pose).numpy())
    values = np.concatenate([gaps_of(truth) + BIAS, gaze], axis=1)
    own, shared = np.r_[np.full(13, 0.5), np.full(4, 1.0)], np.r_[np.full(13, 0.35), np.full(4, 1.0)]
    embedding = embedding_on(head(), 60)
    # only what stays is seen of them
    still = replace(truth, expr=torch.zeros_like(truth.expr))
    points = embedding.points(still.vertices(head()), head().faces).numpy()
    targets = []
    for t in range(FRAMES):
        marks = make_landmark_target(head(), embedding, points[t], np.full(60, 1e-3), np.ones(60))
        evidence = Evidence(values[t], own, shared, np.zeros(52))
        targets.append(FrameTarget((SourceTarget(marks, evidence=evidence),)))
    return truth, targets


def test_rows_agree_with_finite_differences_and_posing_changes_no_gap() -> None:
    truth, targets = blinking()
    start = replace(truth, placement=torch.tensor([0.1, 0.2, -0.1, 0.01, 0.02, 0.03, 0.1], dtype=torch.float64))
    start.neck_pose[:] = torch.tensor([0.1, -0.1, 0.05])
    for metric in (False, True):
        columns = Columns.of(head(), ["placement", *PARTS, "jaw_pose", "shape"], {"shape": 3, "expr": 5}, metric)
        terms, linear = EvidenceTerms(head(), targets, columns, 1.0, start.expr), Linearizer(head(), columns)
        vertices, jacobian = linear(start, 3)
        found = terms.of(3, start)
        assert [type(one) for one in found] == [Gaps, Gaze]
        at = columns.values(start)
        for measured in found:
            rows = measured.rows(vertices, jacobian)[:, 0]
            for column in range(columns.count):
                ends = []
                for sign in (1e-5, -1e-5):
                    moved = at._replace(shared=at.shared.clone(), frames=at.frames.clone())
                    if column < columns.n_shared:
                        moved.shared[column] += sign
                    else:
                        moved.frames[3, column - columns.n_shared] += sign
                    there = columns.with_values(start, moved)
                    ends.append(measured.at(there).residuals(linear.vertices(there, 3))[:, 0])
                # the pose correctives of the neck alone move lids against each other
                torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, rows[:, column], rtol=1e-3, atol=2e-3)


def test_a_blink_is_followed_and_what_evidence_is_always_off_by_is_not() -> None:
    truth, targets = blinking()
    columns = Columns.of(head(), PARTS, {"expr": 20}, metric=True)
    gaps = []
    for count in (0.0, 3.0):
        settings = second_order_of(iterations=12, evidence=count, bias_sigma=0.0015, smoothness={"expr": 1.0})
        start = FitParameters.neutral(head(), FRAMES)
        found = gauss_newton(head(), start, targets, columns, priors_of(expr=0.7), settings).parameters
        gaps.append(gaps_of(found)[:, MIDDLE])
    true = gaps_of(truth)[:, MIDDLE]
    amplitude = true.max() - true.min()
    assert amplitude > 6.0
    assert np.ptp(gaps[0], axis=0).max() < 0.3 * amplitude
    assert np.ptp(gaps[1], axis=0).min() > 0.85 * amplitude
    assert np.abs(gaps[1] - true).mean() < 0.6 < 0.2 * np.abs(gaps[0] - true).max()
    apart = np.degrees((gaze_angles(found.eyes_pose) - gaze_angles(truth.eyes_pose)).numpy())
    assert np.abs(apart).mean() < 1.5


def test_a_head_without_lids_and_targets_without_evidence_measure_nothing() -> None:
    from tests.fit.known_truth import sequence

    small, truth, targets, _ = sequence(2)
    said = [
        replace(t, sources=(replace(t.sources[0], evidence=blinking()[1][0].sources[0].evidence),)) for t in targets
    ]
    for given in (targets, said):
        columns = Columns.of(small, ["expr"])
        terms = EvidenceTerms(small, given, columns, 1.0, truth.expr)
        assert terms.of(0, truth) == [] and not len(terms.corners)


@pytest.mark.parametrize("known", [(), (0, 5), (13, 14)])
def test_only_what_is_known_is_measured(known: tuple[int, ...]) -> None:
    truth, targets = blinking()
    said = targets[0].sources[0].evidence
    assert said is not None
    values = np.full_like(said.values, np.nan)
    values[list(known)] = said.values[list(known)]
    one = replace(targets[0], sources=(replace(targets[0].sources[0], evidence=replace(said, values=values)),))
    columns = Columns.of(head(), PARTS)
    found = EvidenceTerms(head(), [one], columns, 1.0, truth.expr).of(0, truth)
    assert [len(term.corners) for term in found] == ([2] if known else [])
