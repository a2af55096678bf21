"""Pictures of many timesteps, a few at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.fit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from flame_fitting.fit.driver import run_stages
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import PARAMETERS, FitParameters
from flame_fitting.fit.presets import preset
from flame_fitting.fit.solvers.batches import Batches, sample_of
from flame_fitting.fit.state import FitState
from flame_fitting.fit.texture import TexelMaps
from flame_fitting.fit.views import ViewSet
from flame_fitting.render.backend import make_rasterizer
from tests.fit.known_truth import sequence
from tests.fit.pictures import around, draw, over_time, smooth_texture, stored
from tests.fit.test_resuming import assert_same

TIMESTEPS, SIZE = 5, 64


@pytest.fixture(scope="module")
def made() -> tuple[FitParameters, Observations, ViewSet]:
    """The truth, what is seen of it without a surface, and its pictures: two views a timestep."""
    head, truth, targets, surface = sequence(TIMESTEPS)
    posed, texture = truth.vertices(head).numpy(), smooth_texture(64)
    views = over_time([draw(head, posed[t], texture, around(2, 0.05, 50.0), SIZE) for t in range(TIMESTEPS)])
    rasterizer = make_rasterizer("cpu")
    for target in targets:
        target.surface = None
    seen = Observations(head, targets, surface, rasterizer=rasterizer, texels=TexelMaps(rasterizer, head))
    return truth, seen, views


def batches(views: ViewSet, size: int, timesteps: list[int], limit: int = 10**9) -> Batches:
    return Batches(stored(views, limit), timesteps, size, 180.0, torch.Generator().manual_seed(0))


def test_an_epoch_sees_every_timestep_and_pictures_count_within_the_batch(made) -> None:
    _, _, views = made
    source = batches(views, 2, [0, 1, 3, 4])  # in 2 no face was found
    seen: list[int] = []
    for _ in range(2):
        rows, batch = source.rows, source.views()
        seen += rows
        assert rows == sorted(rows) and batch.timestep.tolist() == [0, 0, 1, 1]
        for place, row in enumerate(rows):
            assert torch.equal(batch.rgba[2 * place : 2 * place + 2], views.rgba[2 * row : 2 * row + 2])
        source.advance()
    assert sorted(seen) == [0, 1, 3, 4]
    assert (
        sample_of(range(3)) == [0, 1, 2] and sample_of(range(300))[:2] == [0, 20] and sample_of(range(300))[-1] == 299
    )


def test_no_more_pictures_are_held_than_the_bound(made) -> None:
    _, _, views = made
    each = 4 * SIZE * SIZE
    pictures = stored(views, 4 * each)
    source = Batches(pictures, list(range(TIMESTEPS)), 2, 180.0, torch.Generator().manual_seed(0))
    for _ in range(6):
        source.views()
        source.advance()
        assert pictures.kept_bytes <= 8 * each  # this batch and the next, which is being read


def config_of(batch_size: int, epochs: int):
    config = preset("vhap")
    config.batch_size, config.model.tex_resolution = batch_size, 32
    for name, stage in config.pipeline.items():
        stage.num_steps = 5 if stage.solver == "gauss_newton" else int(stage.solver in ("closed_form", "bake"))
        stage.num_epochs, stage.texture_sizes = 0, ()
        if name == "rgb_global_tracking":
            stage.num_epochs, stage.lr_scale = epochs, 1.0
    return config


def errors(found: FitState, truth: FitParameters, seen: Observations) -> float:
    apart = found.parameters.vertices(seen.head) - truth.vertices(seen.head)
    return 1000 * float(apart.norm(dim=-1).mean())


def test_a_step_moves_the_timesteps_it_sees_and_what_all_share(made) -> None:
    truth, seen, views = made
    seen = replace(seen, pictures=stored(views))
    config = config_of(2, 1)
    for name, stage in config.pipeline.items():
        if name == "rgb_global_tracking":
            stage.num_steps = 1
        else:
            stage.num_steps = 0
    start = FitState(truth.clone(), np.eye(4))
    with progress.silent():
        found = run_stages(start, seen, config)
    rows = batches(views, 2, list(range(TIMESTEPS))).rows
    others = [row for row in range(TIMESTEPS) if row not in rows]
    assert not torch.equal(found.parameters.shape, truth.shape)
    for parameter in PARAMETERS:
        before, after = getattr(truth, parameter.name), getattr(found.parameters, parameter.name)
        if parameter.role == "frame":
            torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-7)  # float32 and back
    assert (found.parameters.expr[rows] - truth.expr[rows]).abs().amax(1).min() > 1e-4


def test_all_timesteps_improve_and_a_stopped_run_comes_to_the_same(made, tmp_path: Path) -> None:
    truth, seen, views = made
    seen = replace(seen, pictures=stored(views))
    config = config_of(2, 12)
    config.exp.checkpoint_seconds = 1e-9
    saved: list[FitState] = []

    def keep(state: FitState) -> None:
        if (
            state.underway is not None
            and state.underway.stage == "rgb_global_tracking"
            and state.underway.step % 9 == 7
        ):
            save_checkpoint(tmp_path / "a.safetensors", Checkpoint(state, seen.head.file_hash))
            saved.append(load_checkpoint(tmp_path / "a.safetensors").state)

    start = FitState(FitParameters.neutral(seen.head, TIMESTEPS), np.eye(4))
    with progress.silent():
        expected = run_stages(start, seen, config, keep=keep)
        assert expected.records[-1].name == "rgb_global_tracking" and expected.records[-1].accepted
        assert len(saved) == 4  # of 36 steps: three batches of two an epoch
        for state in saved[1::2]:
            assert_same(run_stages(state, seen, config), expected)
    assert errors(expected, truth, seen) < 0.75 * errors(start, truth, seen)


def test_pictures_of_a_timestep_without_a_face_say_nothing(made) -> None:
    """All pictures at once: what they show there moves neither the timestep nor what all share."""
    truth, seen, views = made
    targets = [replace(target, sources=()) if row == 2 else target for row, target in enumerate(seen.targets)]
    config = config_of(TIMESTEPS, 3)
    config.pipeline.rgb_global_tracking.lr_scale = 0.1
    for name, stage in config.pipeline.items():
        if name != "rgb_global_tracking":
            stage.num_steps = 0
    found = []
    for grey in (0.0, 0.6):
        rgba = views.rgba.clone()
        rgba[views.timestep == 2] = torch.full_like(rgba[:1], round(grey * 255) if rgba.dtype == torch.uint8 else grey)
        shown = replace(seen, targets=targets, pictures=stored(replace(views, rgba=rgba)))
        with progress.silent():
            found.append(run_stages(FitState(truth.clone(), np.eye(4)), shown, config).parameters)
    assert all(torch.equal(a, b) for a, b in zip(found[0].items().values(), found[1].items().values(), strict=True))
    assert not torch.equal(found[0].expr, truth.expr)
