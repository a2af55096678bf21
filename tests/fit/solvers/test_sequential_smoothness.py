"""Stages that see one timestep after the other: changes count to the one before, as in global ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import run_stages
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.priors import make_priors
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.fit.texture import TexelMaps
from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.render.backend import make_rasterizer
from tests.fit.known_truth import embedding_on, sequence
from tests.fit.pictures import around, draw, stored

TIMESTEPS = 6
CHANGES = {"rotation": 0.01, "translation": 0.001, "expr": 0.1, "neck": 0.01, "jaw": 0.01, "eyes": 0.02}


def _still() -> tuple[FitParameters, Observations]:
    """A head that does not move, by landmarks with noise of 4 mm."""
    head, truth, _, surface = sequence(2)
    truth = truth.of_frames([0] * TIMESTEPS)
    embedding, generator = embedding_on(head), torch.Generator().manual_seed(3)
    points = embedding.points(truth.vertices(head), head.faces)
    points = points + 4e-3 * torch.randn(points.shape, generator=generator, dtype=torch.float64)
    marks = [make_landmark_target(head, embedding, one.numpy(), np.full(80, 4e-3), np.ones(80)) for one in points]
    targets = [FrameTarget((SourceTarget(one),)) for one in marks]
    views = draw(head, truth.vertices(head)[0].numpy(), None, around(1), 32)
    views = replace(
        views,
        views=views.views * TIMESTEPS,
        rgba=views.rgba.repeat(TIMESTEPS, 1, 1, 1),
        clip=views.clip.repeat(TIMESTEPS, 1, 1),
        K=views.K.repeat(TIMESTEPS, 0),
        camera=views.camera.repeat(TIMESTEPS, 0),
        timestep=torch.arange(TIMESTEPS),
    )
    rasterizer = make_rasterizer("cpu")
    maps = TexelMaps(rasterizer, head)
    return truth, Observations(head, targets, surface, rasterizer=rasterizer, pictures=stored(views), texels=maps)


@pytest.mark.parametrize("solver", ["gauss_newton", "adam"])
def test_jitter_of_noisy_landmarks_goes_down(solver: str) -> None:
    truth, seen = _still()
    jitter = []
    for smooth in (False, True):
        config = FitConfig(Path("toy"))
        for name, stage in config.pipeline.items():
            stage.num_steps = stage.num_epochs = 0
            if name == "lmk_sequential_tracking":
                stage.solver, stage.num_steps, stage.frames = (
                    solver,
                    6 if solver == "gauss_newton" else 40,
                    "sequential",
                )
                stage.when = "always"
        for name, sigma in CHANGES.items():
            setattr(config.prior, f"{name}_change", sigma if smooth else None)
        w = config.w
        w.smooth_trans = w.smooth_rot = w.smooth_neck = w.smooth_jaw = w.smooth_eyes = w.smooth_expr = 0.0
        if smooth:
            w.smooth_trans, w.smooth_rot, w.smooth_neck, w.smooth_jaw, w.smooth_expr = 3e5, 3e3, 3e3, 3e3, 3.0
        with progress.silent():
            found = run_stages(FitState(truth.clone(), np.eye(4)), seen, config)
        assert found.records[-1].name == "lmk_sequential_tracking" and found.records[-1].accepted
        vertices = found.parameters.vertices(seen.head)
        jitter.append(1000 * float((vertices[2:] - 2 * vertices[1:-1] + vertices[:-2]).square().sum(-1).mean().sqrt()))
    assert jitter[1] < 0.6 * jitter[0]


def test_the_one_before_counts_as_in_a_global_stage() -> None:
    """Conditioned on the first timestep, the cost of the second is that of both less what the first alone has."""
    head, truth, _, _ = sequence(3)
    columns = Columns.of(head, ["expr", "rotation", "jaw_pose"])
    smoothness = {"expr": 0.1, "rotation": 0.02}
    prior = PriorConfig()
    both = make_priors(columns, prior, smoothness, 3, truth.expr)
    rest = make_priors(columns, prior, smoothness, 2, truth.expr, truth.of_frames([0]))
    at = columns.values(truth)
    tail = at._replace(frames=at.frames[1:])
    torch.testing.assert_close(rest.gradient(tail).frames, both.gradient(at).frames[1:])
    moved = at._replace(frames=at.frames + torch.tensor([0.0, 0.1, -0.2])[:, None])
    change = both.cost(moved) - both.cost(at)
    assert rest.cost(tail._replace(frames=moved.frames[1:])) - rest.cost(tail) == pytest.approx(change, rel=1e-9)
