"""Which timesteps a stage sees, and three of them through the whole schedule."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.fit import driver
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import SOLVERS, run_stage, run_stages
from flame_fitting.fit.folds import folded_at, folded_by_dynamic
from flame_fitting.fit.keyframes import check_keyframes
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import PARAMETERS, FitParameters
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.stage_config import StageConfig
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.fit.track_config import track_preset
from tests.fit.known_truth import embedding_on, sequence

STILL = ("rotation", "translation", "placement", "static_offset", "log_focal")
"""What has no truth away from zero, at one timestep or at several."""


def _sequence(timesteps: int = 3) -> tuple[FitState, Observations]:
    head, _, targets, surface = sequence(timesteps)
    return FitState(FitParameters.neutral(head, timesteps), np.eye(4)), Observations(head, targets, surface)


def _without_face(seen: Observations, row: int) -> Observations:
    """The same, with nothing seen at a timestep."""
    nothing = np.full((80, 3), np.nan)
    marks = make_landmark_target(seen.head, embedding_on(seen.head), nothing, nothing[:, 0], np.ones(80))
    targets = list(seen.targets)
    targets[row] = FrameTarget((SourceTarget(marks),))
    return replace(seen, targets=targets)


def _watched(
    frames: str, state: FitState, seen: Observations, monkeypatch, keyframes: tuple[int, ...] = (), batch: int = 16
) -> tuple[FitState, list]:
    """What a solver is given in a stage that sees such timesteps; it adds 1 to every moving parameter."""
    given: list[tuple[FitParameters, list]] = []

    def solve(state: FitState, seen: Observations, stage: Stage, shown) -> FitState:
        assert seen.is_sequence and seen.timesteps == state.parameters.timesteps
        given.append((state.parameters.clone(), seen.targets))
        moved = state.parameters.clone()
        moved.expr += 1.0
        moved.shape[0] += 1.0
        return replace(state, parameters=moved)

    monkeypatch.setitem(SOLVERS, "gauss_newton", solve)
    monkeypatch.setattr(driver, "worsened", lambda *_: None)
    settings = StageConfig(1, solver="gauss_newton", frames=frames, looks_at=("landmarks",))
    config = FitConfig(Path("toy"))
    config.pipeline.lmk_sequential_tracking = settings
    config.exp.keyframes, config.batch_size = keyframes, batch
    with progress.silent():
        return run_stage(state, seen, Stage("lmk_sequential_tracking", settings, config)), given


def test_the_first_timestep_alone_the_rest_stays(monkeypatch) -> None:
    start, seen = _sequence()
    state, given = _watched("first", start, seen, monkeypatch)
    assert [targets for _, targets in given] == [seen.targets[:1]]
    assert state.parameters.expr[:, 0].tolist() == [1.0, 0.0, 0.0] and state.parameters.shape[0] == 1.0


def test_all_timesteps_together(monkeypatch) -> None:
    start, seen = _sequence()
    state, given = _watched("global", start, seen, monkeypatch)
    assert [targets for _, targets in given] == [seen.targets]
    assert state.parameters.expr[:, 0].tolist() == [1.0, 1.0, 1.0] and state.parameters.shape[0] == 1.0


def test_in_sequence_each_starts_from_the_one_before_until_all_were_seen(monkeypatch) -> None:
    start, seen = _sequence()
    state, given = _watched("sequential", start, seen, monkeypatch)
    assert [targets for _, targets in given] == [[target] for target in seen.targets]
    assert [float(at.expr[0, 0]) for at, _ in given] == [0.0, 1.0, 2.0]
    assert state.parameters.expr[:, 0].tolist() == [1.0, 2.0, 3.0] and state.parameters.shape[0] == 3.0
    again, given = _watched("sequential", state, seen, monkeypatch)
    assert [float(at.expr[0, 0]) for at, _ in given] == [1.0, 2.0, 3.0]
    assert again.parameters.expr[:, 0].tolist() == [2.0, 3.0, 4.0]


def test_a_timestep_that_shows_nothing_is_passed_over(monkeypatch) -> None:
    start, seen = _sequence()
    seen = _without_face(seen, 1)
    targets = seen.targets
    assert seen.valid == [True, False, True]
    state, given = _watched("sequential", start, seen, monkeypatch)
    assert [found for _, found in given] == [targets[:1], targets[2:]]
    # it stands as the one before, and the next goes on from there
    assert state.parameters.expr[:, 0].tolist() == [1.0, 1.0, 2.0]


def test_the_first_timestep_is_the_first_that_shows_a_face(monkeypatch) -> None:
    """Those before it begin where it is; what comes after goes on from it."""
    start, seen = _sequence(4)
    seen = _without_face(seen, 0)
    state, given = _watched("first", start, seen, monkeypatch)
    assert [targets for _, targets in given] == [seen.targets[1:2]]
    assert state.parameters.expr[:, 0].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_keyframes_are_looked_at_together_and_the_rest_gets_what_is_shared(monkeypatch) -> None:
    start, seen = _sequence(4)
    state, given = _watched("keyframes", start, seen, monkeypatch, keyframes=(3, 1))
    assert [targets for _, targets in given] == [[seen.targets[1], seen.targets[3]]]
    assert state.parameters.expr[:, 0].tolist() == [0.0, 1.0, 0.0, 1.0] and state.parameters.shape[0] == 1.0
    # none given: the most different ones with a face, as many as a batch holds
    start.parameters.rotation[:, 1] = torch.tensor([0.0, 0.1, 0.2, 0.9], dtype=torch.float64)
    state, _ = _watched("keyframes", start, _without_face(seen, 2), monkeypatch, batch=2)
    assert state.parameters.expr[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0]
    state, _ = _watched("keyframes", start, _without_face(seen, 2), monkeypatch)
    assert state.parameters.expr[:, 0].tolist() == [1.0, 1.0, 0.0, 1.0]


def test_keyframes_that_are_not_there_or_show_no_face_are_refused() -> None:
    start, seen = _sequence(4)
    seen, config = _without_face(seen, 2), track_preset("track")
    config.exp.keyframes = (1, 2, 7, -1, 1)
    expected = (
        "--exp.keyframes 1 2 7 -1 1: -1, 7: there are the timesteps 0 to 3; 2: no face was found there, or it is held "
        "out. There are 0 to 1, 3; 1: given more than once. Give others, or leave the flag out."
    )
    with pytest.raises(InputError) as caught:
        run_stages(start, seen, config)
    assert str(caught.value) == expected
    for fine in ((), (0, 3), (3, 0, 1)):
        check_keyframes(fine, seen.timesteps, seen.valid)
    # before anything is known of faces
    check_keyframes((2, 3), 4)
    with pytest.raises(InputError, match=r"^--exp.keyframes 4: 4: there are the timesteps 0 to 3\. Give others"):
        check_keyframes((4,), 4)


@pytest.mark.parametrize(("keyframes", "monocular"), [((1,), True), ((), True), ((1,), False)])
def test_keyframes_that_no_stage_looks_at_are_said(keyframes: tuple[int, ...], monocular: bool, capsys) -> None:
    start, seen = _sequence(4)
    config = track_preset("track", monocular=monocular)
    config.exp.keyframes, seen = keyframes, replace(seen, rasterizer=None)
    for stage in ("lmk_init_rigid", "lmk_init_focal", "lmk_init_all"):
        getattr(config.pipeline, stage).num_steps = 0
    run_stages(start, seen, config)
    told = "--exp.keyframes has no effect here" in capsys.readouterr().err
    assert told is (bool(keyframes) and monocular)


def test_what_dynamic_offsets_turn_is_repaired_after_a_stage_and_said(monkeypatch) -> None:
    start, seen = _sequence()
    chosen, lines = int(seen.head.regions["face"][40]), list[str]()

    def solve(state: FitState, seen: Observations, stage: Stage, shown) -> FitState:
        parameters = state.parameters.with_dynamic_offset().clone()
        parameters.dynamic_offset[2, chosen] = torch.tensor([0.0, 0.01, -0.05], dtype=torch.float64)
        assert folded_by_dynamic(seen.head, parameters).any(1).tolist() == [False, False, True]
        return replace(state, parameters=parameters)

    monkeypatch.setitem(SOLVERS, "gauss_newton", solve)
    monkeypatch.setattr(driver, "worsened", lambda *_: None)
    monkeypatch.setattr(progress, "say", lines.append)
    settings = StageConfig(1, solver="gauss_newton", frames="global", looks_at=("landmarks",))
    with progress.silent():
        state = run_stage(start, seen, Stage("toy", settings, FitConfig(Path("toy"))))
    assert not folded_at(seen.head, state.parameters).any()
    assert torch.equal(state.parameters.dynamic_offset[:2], torch.zeros_like(state.parameters.dynamic_offset[:2]))
    assert len(state.records[0].smoothed) > 1
    assert len(lines) == 1 and lines[0].startswith("toy: ") and "dynamic offsets of 1 timestep" in lines[0]


def test_three_timesteps_are_found_with_every_parameter(tmp_path: Path) -> None:
    """The whole schedule of the preset static, by landmarks and surface, at T = 3."""
    head, truth, targets, surface = sequence(3)
    config = FitConfig(tmp_path)
    config.pipeline.lmk_init_all.num_steps = config.pipeline.geo_init_all.num_steps = 40
    config.model.use_static_offset = False
    start = FitState(FitParameters.neutral(head, 3), np.eye(4))
    with progress.silent():
        state = run_stages(start, Observations(head, targets, surface), config)
    assert [record.name for record in state.records] == [
        "lmk_init_rigid",
        "lmk_init_all",
        "geo_init_all",
    ] and state.warnings == ()
    apart = 1000 * (state.parameters.vertices(head) - truth.vertices(head)).norm(dim=-1)
    assert apart.median() < 0.2
    # priors pull every parameter toward 0, and scale and shape share what a head's size is
    bounds = {"rotation": 0.02, "translation": 0.002, "neck_pose": 0.03, "jaw_pose": 0.03, "eyes_pose": 0.08}
    for name, bound in (bounds | {"expr": 0.3, "shape": 0.6}).items():
        value, expected = getattr(state.parameters, name), getattr(truth, name)
        assert (value - expected).abs().max() < bound, (name, value, expected)
    assert (state.parameters.placement[:6] == 0).all() and abs(
        state.parameters.placement[6] - truth.placement[6]
    ) < 0.02


def _by_landmarks(config: FitConfig) -> FitConfig:
    """A user's schedule where there are landmarks alone: the first timestep, one after the other, all together."""
    config.exp.photometric = config.model.use_static_offset = config.data.use_geometry = False
    stages = config.pipeline
    stages.lmk_init_all = replace(stages.lmk_init_all, num_steps=40, frames="first")
    for name in ("lmk_sequential_tracking", "lmk_global_tracking"):
        setattr(stages, name, replace(getattr(stages, name), num_steps=40, solver="gauss_newton"))
    return config


@pytest.mark.parametrize("timesteps", [1, 3])
def test_landmarks_alone_give_every_parameter(timesteps: int, tmp_path: Path) -> None:
    """Exact landmarks that outweigh the priors; the placement moves at one timestep only."""
    head, truth, targets, surface = sequence(timesteps)
    targets = [replace(target, surface=None) for target in targets]
    config = _by_landmarks(FitConfig(tmp_path))
    config.w.landmark_count = 1e7
    start = FitState(FitParameters.neutral(head, timesteps), np.eye(4))
    with progress.silent():
        state = run_stages(start, Observations(head, targets, surface), config)
    assert [r.name for r in state.records if r.accepted] == [
        "lmk_init_rigid",
        "lmk_init_all",
        "lmk_sequential_tracking",
        "lmk_global_tracking",
    ]
    within = {"shape": 2e-3, "expr": 2e-3, "static_offset": 0.0}
    for parameter in (one for one in PARAMETERS if not one.optional):
        value, true = getattr(state.parameters, parameter.name), getattr(truth, parameter.name)
        assert float((value - true).abs().max()) <= within.get(parameter.name, 2e-4), parameter.name
        assert (true != 0).any() or parameter.name in STILL
    moved = (
        {p.name for p in PARAMETERS}
        - {"static_offset", "dynamic_offset", "log_focal", "eyelids"}  # this head has no eyelids
        - ({"rotation", "translation"} if timesteps == 1 else set())
    )
    assert set(state.uncertainty) == moved
    assert all((sigma[np.isfinite(sigma)] > 0).all() for sigma in state.uncertainty.values())


def test_a_timestep_without_a_face_is_carried_and_known_worse(tmp_path: Path) -> None:
    """What is known of single timesteps in sequence stands beside what all share; together, neighbours carry."""
    head, _, targets, surface = sequence(3)
    nothing = np.full((80, 3), np.nan)
    marks = make_landmark_target(head, embedding_on(head), nothing, nothing[:, 0], np.ones(80))
    targets = [replace(target, surface=None) for target in targets]
    targets[1] = FrameTarget((SourceTarget(marks),))
    config = _by_landmarks(FitConfig(tmp_path))
    kept: dict[str, FitState] = {}
    start = FitState(FitParameters.neutral(head, 3), np.eye(4))
    with progress.silent():
        seen = Observations(head, targets, surface)
        run_stages(start, seen, config, keep=lambda state: kept.update({state.records[-1].name: state}))
    first, each, together = (kept[name] for name in list(kept)[1:])
    assert np.isfinite(first.uncertainty["expr"][0]).all() and np.isnan(first.uncertainty["expr"][1:]).all()
    assert np.isfinite(each.uncertainty["expr"][[0, 2]]).all() and np.isnan(each.uncertainty["expr"][1]).all()
    np.testing.assert_array_equal(each.uncertainty["shape"], first.uncertainty["shape"])
    for name in ("rotation", "translation"):
        value, sigma = getattr(together.parameters, name), together.uncertainty[name]
        np.testing.assert_allclose(value[1], (value[0] + value[2]) / 2, atol=1e-6)
        assert np.isfinite(sigma).all() and (sigma[1] > sigma[[0, 2]].max(axis=0)).all(), name


def test_motion_is_narrowed_by_the_last_stage_that_finds_it(monkeypatch) -> None:
    """Identity is found before, by deviations as they are stated; points that cannot be followed find nothing."""
    start, seen = _sequence()
    given: dict[str, bool] = {}

    def solve(state: FitState, seen: Observations, stage: Stage, shown) -> FitState:
        given[stage.name] = stage.steadied
        return state

    monkeypatch.setitem(SOLVERS, "gauss_newton", solve)
    config = track_preset("track", Path("toy"), monocular=True)
    second = StageConfig(1, solver="gauss_newton", optimizable_params=("pose", "expr"), looks_at=("landmarks",))
    config.pipeline.lmk_init_rigid = config.pipeline.lmk_init_all = config.pipeline.pts_init_all = second
    config.exp.photometric = False
    with progress.silent():
        run_stages(start, seen, config)
    assert given == {"lmk_init_rigid": False, "lmk_init_all": False, "pts_init_all": True}
    config.pipeline.pts_init_all = StageConfig(looks_at=("landmarks",))
    config.exp.photometric = True  # points of the skin come after, but there are no pictures
    with progress.silent():
        run_stages(start, seen, config)
    assert given["lmk_init_all"]
