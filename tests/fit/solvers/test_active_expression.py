"""Which expressions are at rest, as evidence has it, on the open head."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.active_expression import ActiveExpression, active_expression, precision_of
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.evidence_terms import shut_eyes, with_shut
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.solvers.moments import Moment
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.head.apertures import GAP_NAMES, GAZE_NAMES, LID_COLUMNS, find_apertures
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.evidence import Evidence
from tests.fit.known_truth import embedding_on
from tests.fit.settings import priors_of, second_order_of

RIGHT, LEFT, LIPS = slice(0, LID_COLUMNS), slice(LID_COLUMNS, 2 * LID_COLUMNS), slice(2 * LID_COLUMNS, len(GAP_NAMES))


@pytest.fixture(scope="module")
def head():
    return load_head("open").double()


def rest_gaps(head) -> np.ndarray:
    """mm."""
    return 1000 * find_apertures(head).gaps(head.v_template[None], head.faces)[0].numpy()


def target(head, gaps: np.ndarray) -> FrameTarget:
    """The template's own landmarks, but for lids and mouth, and evidence of gaps (mm)."""
    count = len(GAP_NAMES) + len(GAZE_NAMES)
    values = np.concatenate([gaps, np.full(len(GAZE_NAMES), np.nan)])
    evidence = Evidence(values, np.full(count, 0.3), np.full(count, 0.3), np.zeros(0))
    embedding = embedding_on(head)
    points = embedding.points(head.v_template[None], head.faces)[0].double().numpy()
    marks = make_landmark_target(head, embedding, points, np.full(len(points), 0.001), np.ones(len(points)))
    return FrameTarget(sources=(SourceTarget(marks, evidence=evidence),))


def test_a_face_at_rest_is_at_rest(head):
    found = active_expression(head, [target(head, rest_gaps(head))])
    assert found is not None and found.said == () and len(found.directions) == 0 and not found.open_mouth


def test_one_shut_eye_and_an_open_mouth_are_named(head):
    gaps = rest_gaps(head)
    gaps[LEFT], gaps[LIPS] = 0.0, 12.0
    found = active_expression(head, [target(head, gaps)])
    assert found is not None and found.said == ("left eye shut by 100 %", "mouth open by 12 mm") and found.open_mouth
    shown = head(expr=torch.as_tensor(found.directions)).vertices
    apart = 1000 * find_apertures(head).gaps(shown, head.faces)[0].numpy()
    assert np.abs(apart[LEFT]).max() < 0.5
    assert np.abs(apart[RIGHT] - rest_gaps(head)[RIGHT]).max() < 0.5


def test_what_is_not_measured_is_not_decided(head):
    gaps = rest_gaps(head)
    gaps[RIGHT] = np.nan
    assert active_expression(head, [target(head, gaps)]).said == ()
    assert active_expression(head, [target(head, gaps)] * 2) is None
    assert active_expression(head, [FrameTarget(sources=())]) is None


def test_the_prior_is_wide_along_the_action_alone():
    rng = np.random.default_rng(0)
    action = rng.standard_normal((1, 6))
    sigmas = torch.full((6,), 0.3, dtype=torch.float64)
    precision = precision_of(ActiveExpression(action, False, ("x",)), sigmas).numpy()
    along = action[0] / np.linalg.norm(action)
    across = np.linalg.qr(np.stack([along, *rng.standard_normal((2, 6))]).T)[0][:, 1]
    assert 1 / (along @ precision @ along) == pytest.approx(0.09 + action[0] @ action[0])
    assert across @ precision @ across == pytest.approx(1 / 0.09)
    assert torch.equal(precision_of(None, sigmas), torch.diag(sigmas.square().reciprocal()))


def test_lids_that_may_be_shut_are_taken_for_shut_each_eye_by_itself():
    gaps, std = np.full(len(GAP_NAMES), 5.0), np.full(len(GAP_NAMES), 0.4)
    gaps[:5] = (0.3, 0.7, 0.9, 0.6, 0.2)
    shut, sure = with_shut(gaps, std)
    assert (shut[:5] == 0).all() and (sure[:5] < 0.2).all()
    np.testing.assert_array_equal(shut[5:], gaps[5:])
    np.testing.assert_array_equal(sure[5:], std[5:])
    values = np.concatenate([gaps, np.zeros(4)])
    evidence = Evidence(values, np.full(17, 0.4), np.zeros(17), np.zeros(52))
    assert shut_eyes(evidence) == [0]
    assert shut_eyes(replace(evidence, values=values + 2)) == []
    assert shut_eyes(replace(evidence, values=np.where(np.arange(17) < 1, np.nan, values))) == [], "not known"


def test_lips_that_may_be_shut_are_taken_for_shut():
    gaps, std = np.full(len(GAP_NAMES), 2.0), np.full(len(GAP_NAMES), 1.5)
    gaps[:10] = 5.0
    shut, sure = with_shut(gaps, std)
    assert (shut[LIPS] == 0).all() and (sure[LIPS] < 1).all() and (shut[:10] == 5.0).all() and (sure[:10] == 1.5).all()
    gaps[LIPS.start] = 12.0
    assert with_shut(gaps, std)[0] is gaps
    gaps[LIPS.start] = np.nan
    assert with_shut(gaps, std)[0] is gaps


def test_a_blink_is_an_expression_and_costs_no_identity(head):
    gaps = rest_gaps(head)
    gaps[RIGHT] = gaps[LEFT] = 0.0
    aim, apertures = target(head, gaps), find_apertures(head)
    lids = {}
    for active in (None, active_expression(head, [aim])):
        columns = Columns.of(head, ["shape", "expr", "placement"], {"shape": 50, "expr": 20})
        settings = replace(second_order_of(iterations=15), evidence=3.0, moments=(Moment(priors_of(), active),))
        found = gauss_newton(head, FitParameters.neutral(head), [aim], columns, priors_of(), settings).parameters
        neutral = replace(found, expr=torch.zeros_like(found.expr))
        lids[active is None] = [
            1000 * apertures.gaps(p.head_vertices(head), head.faces)[0, : 2 * LID_COLUMNS].detach().numpy()
            for p in (found, neutral)
        ]
    fitted, neutral = lids[False]
    assert np.abs(fitted).mean() < 0.6
    lost = (rest_gaps(head)[: 2 * LID_COLUMNS] - neutral).mean()
    assert lost < 0.5 * (rest_gaps(head)[: 2 * LID_COLUMNS] - lids[True][1]).mean()
