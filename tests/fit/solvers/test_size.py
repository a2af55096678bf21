"""How large the head is where no camera tells: held at the mean, whatever expressions would gain by a smaller one."""

from dataclasses import replace

import numpy as np
import torch

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.solvers.size import size_slopes
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.head.model import HeadModel
from tests.fit.known_truth import embedding_on
from tests.fit.settings import priors_of, second_order_of
from tests.fit.solvers.test_focal import ASSUMED, TRUE, pixels_of
from tests.toy import toy_head

STEPS = 12


def log_size(head: HeadModel, shape: torch.Tensor) -> float:
    """Logarithm of the size of the face of an identity."""
    points = (head.v_template + head.shapedirs @ shape)[head.region_mask("face")]
    return 0.5 * float((points - points.mean(0)).square().sum().log())


def test_slopes_are_those_of_the_logarithm_of_the_size() -> None:
    head = toy_head().double()
    slopes = size_slopes(head, 4)
    assert slopes.shape == (4,)
    for k, slope in enumerate(slopes):
        step = torch.zeros(head.n_shape, dtype=torch.float64)
        step[k] = 1e-4
        assert abs(float(slope) - (log_size(head, step) - log_size(head, -step)) / 2e-4) < 1e-6


def sized_head() -> HeadModel:
    """A head whose first identity component is its size, as in real models."""
    head = toy_head().double()
    head.shapedirs[..., 0] = 0.1 * head.v_template
    return head


def filmed(head: HeadModel) -> tuple[FitParameters, list[FrameTarget]]:
    """A lively face of the mean size, seen by one camera that is not known."""
    generator = torch.Generator().manual_seed(2)
    truth = FitParameters.neutral(head, STEPS)
    truth.log_focal[0] = np.log(TRUE / ASSUMED)
    truth.rotation[:, 1] = torch.linspace(-0.4, 0.4, STEPS, dtype=torch.float64)
    truth.expr[:] = torch.randn(STEPS, head.n_expr, generator=generator, dtype=torch.float64)
    nothing = np.full((80, 3), np.nan)
    empty = make_landmark_target(head, embedding_on(head), nothing, nothing[:, 0], np.ones(80))
    return truth, [FrameTarget((SourceTarget(empty, pixels_of(head, one)),)) for one in truth.vertices(head)]


def test_weak_expressions_do_not_shrink_a_head_that_one_camera_sees() -> None:
    head = sized_head()
    truth, targets = filmed(head)
    columns = Columns.of(head, ("log_focal", "shape", "expr", "rotation", "translation"), metric=True)
    sizes = {}
    for sigma in (None, 0.01):
        settings = second_order_of(iterations=20, landmark_cut=1e6, landmark_count=80.0, size_sigma=sigma)
        found = gauss_newton(head, truth, targets, columns, priors_of(shape=1.0, expr=0.7), settings)
        sizes[sigma] = log_size(head, found.parameters.shape) - log_size(head, torch.zeros_like(truth.shape))
        if sigma is not None:
            assert abs(float(found.parameters.log_focal[0] - truth.log_focal[0])) < 0.05
    assert sizes[None] < -0.2
    assert abs(sizes[0.01]) < 0.02


def test_a_known_size_is_not_looked_for_again() -> None:
    """Without identity among the unknowns nothing changes."""
    head = sized_head()
    truth, targets = filmed(head)
    columns = Columns.of(head, ("expr", "rotation", "translation"), metric=True)
    found = [
        gauss_newton(head, truth, targets, columns, priors_of(), second_order_of(iterations=2, size_sigma=sigma))
        for sigma in (None, 0.01)
    ]
    assert torch.equal(found[0].parameters.expr, found[1].parameters.expr)
    assert found[0].cost == found[1].cost
    assert torch.equal(replace(truth).shape, found[0].parameters.shape)
