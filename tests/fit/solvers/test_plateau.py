"""Early stopping of first-order stages."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flame_fitting import progress
from flame_fitting.fit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import run_stages
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.solvers.plateau import Plateau
from flame_fitting.fit.state import FitState
from flame_fitting.fit.texture import TexelMaps
from flame_fitting.render.backend import make_rasterizer
from tests.fit.known_truth import sequence
from tests.fit.pictures import around, draw, stored
from tests.fit.test_resuming import assert_same


def test_it_is_reached_where_a_window_is_hardly_better_than_the_one_before() -> None:
    falling = torch.tensor([8.0, 8.0, 4.0, 4.0, 2.0, 2.0, 1.99, 1.99, 1.0])
    plateau = Plateau(0.01, 2)
    assert [plateau.reached(loss) for loss in falling] == [False] * 7 + [True, False]
    assert not any(Plateau(0.0, 1).reached(loss) for loss in torch.ones(5))
    # one that is taken up in the middle of a window answers alike
    for place in range(1, 8):
        first, second = Plateau(0.01, 2), Plateau(0.01, 2)
        for loss in falling[:place]:
            first.reached(loss)
        second.take_up(first.as_dict(), falling)
        assert [second.reached(loss) for loss in falling[place:8]] == [False] * (7 - place) + [True]
    plateau.restart()
    assert not plateau.reached(falling[0])


def _stage(frames: str) -> tuple[FitState, Observations, FitConfig]:
    head, truth, targets, surface = sequence(2)
    rasterizer = make_rasterizer("cpu")
    views = draw(head, truth.vertices(head)[0].numpy(), None, around(1), 32)
    views = replace(views, views=views.views * 2, rgba=views.rgba.repeat(2, 1, 1, 1), clip=views.clip.repeat(2, 1, 1))
    views = replace(views, K=views.K.repeat(2, 0), camera=views.camera.repeat(2, 0), timestep=torch.arange(2))
    maps = TexelMaps(rasterizer, head)
    seen = Observations(head, targets, surface, rasterizer=rasterizer, pictures=stored(views), texels=maps)
    config = FitConfig(Path("toy"))
    for name, stage in config.pipeline.items():
        stage.num_steps = stage.num_epochs = 0
        if name == "rgb_global_tracking":
            stage.num_steps, stage.frames, stage.looks_at = 120, frames, ("landmarks",)
            stage.optimizable_params, stage.lr_scale, stage.average_last = ("pose",), 1.0, 0.1
            stage.stop_below, stage.stop_window = 0.01, 10
    for target in targets:
        target.surface = None
    start = truth.clone()
    start.translation[:] += torch.tensor([0.003, -0.002, 0.002])
    return FitState(start, np.eye(4)), seen, config


def test_a_stage_that_has_arrived_ends_and_says_so_and_goes_on_where_it_was_stopped(tmp_path: Path, capsys) -> None:
    start, seen, config = _stage("sequential")
    config.exp.checkpoint_seconds = 1e-9
    saved: list[FitState] = []

    def keep(state: FitState) -> None:
        if state.underway is not None and (state.underway.batch, state.underway.step) in ((0, 25), (1, 13), (1, 0)):
            save_checkpoint(tmp_path / "a.safetensors", Checkpoint(state, seen.head.file_hash))
            saved.append(load_checkpoint(tmp_path / "a.safetensors").state)

    expected = run_stages(start, seen, config, keep=keep)
    said = capsys.readouterr()
    text = said.out + said.err
    assert (
        "rgb_global_tracking, timestep 1: stopped after" in text
        and "of 120 steps: the loss fell by less than 1 %" in text
    )
    assert expected.records[-1].accepted and len(saved) == 3
    with progress.silent():
        for state in saved:
            assert_same(run_stages(state, seen, config), expected)
        config.pipeline.rgb_global_tracking.stop_below = 0.0
        whole = run_stages(start, seen, config)
    assert not torch.equal(whole.parameters.translation, expected.parameters.translation)
    assert "stopped after" not in capsys.readouterr().out
