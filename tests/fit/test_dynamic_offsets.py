"""Offsets of single timesteps: their slopes, their share beside static ones, a moving bulge that no basis shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.fit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from flame_fitting.fit.driver import run_stages
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import CAP
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.geometry_step import GeometryStep
from flame_fitting.fit.solvers.jacobians import Linearizer
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.fit.texture import TexelMaps
from flame_fitting.fit.track_config import TrackConfig, track_preset
from flame_fitting.render.backend import make_rasterizer
from tests.fit.known_truth import embedding_on, sequence
from tests.fit.pictures import around, draw, over_time, smooth_texture, stored
from tests.fit.settings import geometry_of, offsets_of, priors_of
from tests.fit.test_resuming import assert_same

TIMESTEPS, SIZE = 5, 64
HEIGHTS = (0.0, 0.008, 0.0, 0.0, 0.008)
"""Of the bulge, m."""


def bulge(head) -> torch.Tensor:
    """(V, 3): 1 in the middle of a round bulge on the front, along the head's outside."""
    place = head.v_template[head.v_template[:, 2].argmax()]
    share = torch.exp(-(head.v_template - place).square().sum(-1) / (2 * 0.025**2))
    outside = torch.nn.functional.normalize(head.v_template - head.v_template.mean(0), dim=-1)
    return share[:, None] * outside


def test_slopes_agree_with_finite_differences_over_all_timesteps_and_a_batch() -> None:
    head, truth, targets, surface = sequence(4)
    start = truth.with_dynamic_offset()
    generator = torch.Generator().manual_seed(1)
    for offset in (start.static_offset, start.dynamic_offset):
        offset += 1e-3 * torch.randn(offset.shape, generator=generator, dtype=torch.float64)
    weights = replace(
        geometry_of(landmark_3d=1.0, surface=0.0, prior=0.0, offset=offsets_of(l1=30.0, laplacian=1e5, rigid=300.0)),
        offset_change=3e5,
    )
    views = draw(head, truth.vertices(head)[0].numpy(), None, around(1), 32)
    rates = {"static_offset": 1e-5, "dynamic_offset": 1e-5}
    step = GeometryStep(head, start, targets, views, surface, priors_of(), weights, rates)
    for rows in ([0, 1, 2, 3], [1, 3]):
        if len(rows) < 4:
            step.turn_to(rows, views)
        (slope,) = torch.autograd.grad(step().loss, step.values)
        by_name = step.unpack(torch.arange(len(step.values)))
        for name in ("static_offset", "dynamic_offset"):
            direction = torch.zeros_like(step.values)
            places = by_name[name] if name == "static_offset" else by_name[name][rows]
            direction[places.reshape(-1).long()] = torch.sign(slope[places.reshape(-1).long()])
            ends = []
            for sign in (0.4, -0.4):
                with torch.no_grad():
                    step.values.copy_(sign * direction)
                    ends.append(float(step().loss))
            with torch.no_grad():
                step.values.zero_()
            assert (ends[0] - ends[1]) / 0.8 == pytest.approx(float((slope * direction).sum()), rel=0.02), name
    assert step.active is not None
    moving = step.unpack(step.active)["dynamic_offset"].flatten(1).float().mean(1)
    assert moving.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_they_are_capped_and_counted_with_the_static_ones() -> None:
    head, truth, targets, surface = sequence(2)
    views = draw(head, truth.vertices(head)[0].numpy(), None, around(1), 32)
    start, rates = truth.with_dynamic_offset(), {"dynamic_offset": 1e-3}
    step = GeometryStep(head, start, targets, views, surface, priors_of(), geometry_of(), rates)
    with torch.no_grad():
        step.values += 100.0
    step.keep_possible()
    length = step.current().dynamic_offset.norm(dim=-1)
    assert length.max() < max(*CAP.values(), 0.02) + 1e-6 and length.min() > 0
    # posed alike by the model, the linearizer and batch by batch
    moved = replace(truth, dynamic_offset=1e-3 * torch.randn(2, head.n_vertices, 3, dtype=torch.float64))
    posed, linear = moved.vertices(head), Linearizer(head, Columns.of(head, ["expr"], metric=True))
    for t in range(2):
        torch.testing.assert_close(linear.vertices(moved, t), posed[t])
        torch.testing.assert_close(moved.of_frames([t]).vertices(head)[0], posed[t])
    assert float((posed - truth.vertices(head)).norm(dim=-1).median()) > 5e-4
    assert not moved.without_dynamic_offset().moves_vertices


def _made() -> tuple[FitParameters, Observations, torch.Tensor]:
    head, truth, targets, surface = sequence(TIMESTEPS)
    shown = replace(truth, dynamic_offset=torch.tensor(HEIGHTS, dtype=torch.float64)[:, None, None] * bulge(head))
    posed = shown.vertices(head).numpy()
    views = over_time(
        [draw(head, posed[t], smooth_texture(64), around(3, 0.05, 100.0), SIZE) for t in range(TIMESTEPS)]
    )
    for target in targets:
        target.surface = None
    rasterizer = make_rasterizer("cpu")
    maps = TexelMaps(rasterizer, head)
    seen = Observations(head, targets, surface, rasterizer=rasterizer, pictures=stored(views), texels=maps)
    return shown, seen, bulge(head)


def _config(dynamic: bool, epochs: int) -> TrackConfig:
    config = track_preset("track", monocular=False)
    config.batch_size, config.model.use_dynamic_offset, config.model.tex_resolution = 2, dynamic, 64
    for name, stage in config.pipeline.items():
        stage.num_steps = stage.num_epochs = 0
        if name == "rgb_global_tracking":
            stage.num_epochs, stage.rebake, stage.optimizable_params = epochs, 20, ("static_offset", "dynamic_offset")
    return config


def test_a_moving_bulge_is_followed_and_static_offsets_stay() -> None:
    """By landmarks in space, which are all that tells of it."""
    shown, seen, share = _made()
    embedding = embedding_on(seen.head, 200)
    points = embedding.points(shown.vertices(seen.head), seen.head.faces).numpy()
    marks = [make_landmark_target(seen.head, embedding, one, np.full(200, 2e-4), np.ones(200)) for one in points]
    seen = replace(seen, targets=[FrameTarget((SourceTarget(one),)) for one in marks])
    start = FitState(shown.without_dynamic_offset(), np.eye(4))
    middle = share.norm(dim=-1) > 0.5
    truth, errors = shown.vertices(seen.head), []
    for dynamic in (False, True):
        config = _config(dynamic, 0)
        stage = config.pipeline.rgb_global_tracking
        stage.num_steps, stage.looks_at, stage.landmark = 100, ("landmarks",), 1.0
        with progress.silent():
            found = run_stages(start, seen, config)
        assert found.records[-1].accepted and found.parameters.moves_vertices == dynamic
        np.testing.assert_allclose(found.vertices_world(seen.head), found.parameters.vertices(seen.head), atol=1e-9)
        errors.append(1000 * float((found.parameters.vertices(seen.head) - truth)[:, middle].norm(dim=-1).mean()))
    assert errors[1] < 0.4 * errors[0]
    # at three of five timesteps there is no bulge
    static = 1000 * found.parameters.static_offset[0, middle].norm(dim=-1)
    assert static.mean() < 0.1 * 1000 * max(HEIGHTS)


def test_a_run_with_them_that_was_stopped_comes_to_the_same(tmp_path) -> None:
    shown, seen, _ = _made()
    config = _config(True, 3)
    config.exp.checkpoint_seconds = 1e-9
    saved: list[FitState] = []

    def keep(state: FitState) -> None:
        if state.underway is not None and state.underway.step in (4, 7):
            save_checkpoint(tmp_path / "a.safetensors", Checkpoint(state, seen.head.file_hash))
            left = load_checkpoint(tmp_path / "a.safetensors")
            left.check_head(tmp_path, seen.head)
            saved.append(left.state)

    start = FitState(shown.without_dynamic_offset(), np.eye(4))
    with progress.silent():
        expected = run_stages(start, seen, config, keep=keep)
        assert len(saved) == 2 and expected.parameters.dynamic_offset.any()
        for state in saved:
            assert_same(run_stages(state, seen, config), expected)
