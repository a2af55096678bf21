"""Points of the skin beside landmarks: what moves is followed, and jitters less, than by landmarks alone."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.fit import driver
from flame_fitting.fit.driver import run_stage, run_stages
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.pictures import Pictures
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.solvers import points
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target, make_pixel_target
from flame_fitting.fit.track_config import TrackConfig, track_preset
from flame_fitting.head.model import HeadModel
from flame_fitting.render.backend import make_rasterizer
from tests.fit.known_truth import embedding_on
from tests.fit.pictures import around, draw, over_time, stored
from tests.fit.test_skin_points import FRAMES, SIZE, speckled, turning
from tests.fit.test_steady_points import followed
from tests.toy import toy_head

NOISE = 2.0
"""px of a landmark in every picture."""


def film(head: HeadModel, truth: FitParameters, blank: int | None = None) -> Observations:
    """One camera's pictures, and landmarks with noise; timestep `blank` shows nothing."""
    vertices = truth.vertices(head)
    drawn = [draw(head, one.numpy(), speckled(), around(1), SIZE) for one in vertices]
    embedding, rng = embedding_on(head), np.random.default_rng(3)
    K, camera = drawn[0].K, drawn[0].camera
    nothing = np.full((80, 3), np.nan)
    empty = make_landmark_target(head, embedding, nothing, nothing[:, 0], np.ones(80))
    targets = []
    for row, posed in enumerate(vertices):
        points = embedding.points(posed[None], head.faces)[0].numpy() @ camera[0, :3, :3].T + camera[0, :3, 3]
        pixels = points @ K[0].T
        found = np.concatenate(
            [pixels[:, :2] / pixels[:, 2:] + NOISE * rng.standard_normal((80, 2)), np.ones((80, 1))], 1
        )
        seen = make_pixel_target(head, embedding, np.ones(80, bool), found[None], K, camera, np.ones(80))
        targets.append(FrameTarget(() if row == blank else (SourceTarget(empty, seen),)))
    if blank is not None:
        drawn[blank] = replace(drawn[blank], rgba=torch.zeros_like(drawn[blank].rgba))
    ones = torch.ones(head.n_vertices, dtype=torch.float64)
    return Observations(
        head,
        targets,
        SurfaceWeights(ones, ones[head.faces].mean(1), ones),
        rasterizer=make_rasterizer("cpu"),
        pictures=stored(over_time(drawn)),
        of_sequence=True,
    )


def config_of(folder: Path) -> TrackConfig:
    config = track_preset("track", folder, monocular=True)
    config.w.evidence = 0.0
    return config


def moving(head: HeadModel, found: FitParameters) -> torch.Tensor:
    """(T, V, 3) m: what moves in the face, by expression and jaw, about its mean over time."""
    still = {name: torch.zeros_like(getattr(found, name)) for name in ("rotation", "translation", "neck_pose")}
    vertices = replace(found, **still).vertices(head)
    return vertices - vertices.mean(0)


def test_expressions_follow_and_jitter_less_than_by_landmarks_alone(tmp_path: Path) -> None:
    head = toy_head().double()
    truth, config = turning(head), config_of(tmp_path)
    seen = film(head, truth)
    start = FitState(FitParameters.neutral(head, FRAMES), np.eye(4))
    landmarks = replace(config.pipeline.lmk_init_all, optimizable_params=("pose", "joints", "expr", "shape"))
    with progress.silent():
        before = run_stage(start, seen, Stage("landmarks", landmarks, config))
        after = run_stage(before, seen, Stage("points", config.pipeline.pts_global_tracking, config))
    assert not after.warnings and after.records[-1].accepted
    face, true = head.region_mask("face"), truth.vertices(head)
    jitter, apart, gain = [], [], []
    for state in (before, after):
        error = (state.parameters.vertices(head) - true)[:, face]
        jitter.append(float(error.diff(n=2, dim=0).square().sum(-1).mean().sqrt()))
        wanted, found = moving(head, truth)[:, face], moving(head, state.parameters)[:, face]
        apart.append(float((found - wanted).square().sum(-1).mean().sqrt()))
        gain.append(float((found * wanted).sum() / wanted.square().sum()))
    assert jitter[1] < 0.5 * jitter[0]
    assert apart[1] < 0.6 * apart[0]
    assert abs(1 - gain[1]) < abs(1 - gain[0])
    assert torch.equal(after.parameters.shape, before.parameters.shape)
    assert before.uncertainty.keys() <= after.uncertainty.keys() and "shape" in after.uncertainty


@pytest.mark.parametrize("at_once", [48, 5])
def test_identity_and_focal_length_are_found_by_all_or_by_some_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Of a head of the mean size, from landmarks with noise; pictures that tell no identity follow."""
    monkeypatch.setattr(points, "_AT_ONCE", at_once)
    head = toy_head().double()
    truth, config = turning(head), config_of(tmp_path)
    seen = replace(film(head, truth), calibrated=False)
    start = FitState(FitParameters.neutral(head, FRAMES), np.eye(4))
    start.parameters.log_focal[0] = 0.15
    with progress.silent():
        before = run_stage(start, seen, Stage("landmarks", config.pipeline.lmk_init_all, config))
        after = run_stage(before, seen, Stage("points", config.pipeline.pts_init_all, config))
    assert not after.warnings and after.records[-1].accepted
    face, true, apart = head.region_mask("face"), truth.vertices(head), []
    for state in (before, after):
        vertices = state.parameters.vertices(head)
        depth = (true - vertices)[:, face].mean((1, 2), keepdim=True)
        apart.append(((vertices - true)[:, face] - depth).norm(dim=-1).median(1).values)
    assert float(apart[1].median()) < 0.8 * float(apart[0].median())
    assert float(apart[1].max()) < 1.5 * float(apart[1].median())  # those between the chosen ones, too
    assert not torch.equal(after.parameters.shape, before.parameters.shape)
    assert abs(float(after.parameters.log_focal[0])) < max(abs(float(before.parameters.log_focal[0])), 0.05)
    assert after.uncertainty["expr"].shape[0] == FRAMES and np.isfinite(after.uncertainty["log_focal"]).all()


@pytest.mark.parametrize("noise", [0.05, 0.8])
def test_where_timesteps_are_integrated_out_points_are_as_unsure_as_the_video_shows(
    noise: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volume counts by what errors are assumed: at least by what the middle point is off by, in pixels at 512."""
    head, config, marginal = toy_head().double(), config_of(tmp_path), list[bool]()
    truth = turning(head)
    shown, told = followed(noise=noise)
    assumed: list[np.ndarray] = []

    def solve(state: FitState, seen: Observations, *rest: object) -> FitState:
        marginal.append(rest[-1] > 0)
        own = []
        for row, target in enumerate(seen.targets):
            pixels = target.sources[-1].pixels
            assert pixels is not None
            size = pixels.sigma * shown.K[row, 0, 0] / (pixels.weight.sqrt() * shown.camera[row, 2, 3])  # px
            own.append((size.square() - (2 * told.sigma[row, pixels.index]).square()).sqrt())
        assumed.append(torch.cat(own).numpy() * 512 / SIZE)
        return replace(state, uncertainty={})

    monkeypatch.setattr(points, "on_the_skin", lambda *_: told)
    monkeypatch.setattr(points.second_order, "solve", solve)
    stage = Stage("points", config.pipeline.pts_init_all, config)
    pictures = points.Film.of(film(head, truth), list(range(FRAMES)))
    points._in_rounds(FitState(truth, np.eye(4)), pictures, [], stage, points._IDENTITY, progress.Bar(1, "points"))
    # twice in pictures of half the size; all but 3 in 12 numbers of a point's two axes
    expected = 512 / SIZE * noise * (2 - 3 / (2 / 3 * FRAMES)) ** 0.5
    rounds = points._IDENTITY
    assert marginal == [one.marginal for one in rounds] and any(marginal) and not all(marginal)
    for one, found in zip(rounds, assumed, strict=True):
        wanted = max(one.noise, expected) if one.marginal else one.noise
        np.testing.assert_allclose(found, wanted, rtol=0.15 if wanted > one.noise else 1e-6)
        assert np.ptp(found) < 1e-6


def test_timesteps_without_a_face_are_left_out_and_others_are_the_same_without_pictures(tmp_path: Path) -> None:
    head = toy_head().double()
    truth, config = turning(head), config_of(tmp_path)
    seen = film(head, truth, blank=3)
    state = FitState(truth, np.eye(4))
    settings = replace(config.pipeline.pts_global_tracking, num_steps=3)
    with progress.silent():
        found = run_stage(state, seen, Stage("points", settings, config))
        alone = run_stage(state, replace(seen, pictures=None), Stage("points", settings, config))
    turn = found.parameters.rotation[:, 1]
    assert turn[2] < turn[3] < turn[4]  # carried by its neighbours
    for name, value in state.parameters.items().items():
        assert torch.equal(alone.parameters.items()[name], value)


def test_timesteps_that_are_held_out_have_no_picture_and_stop_no_other(tmp_path: Path) -> None:
    head = toy_head().double()
    truth, config = turning(head), config_of(tmp_path)
    seen = film(head, truth, blank=3)
    assert seen.pictures is not None
    kept = seen.with_face
    seen = replace(seen, pictures=_lacking(seen.pictures, 3))
    assert len(seen.pictures or ()) == len(kept) == FRAMES - 1 and points.hindrance(seen, config) is None
    state = FitState(truth, np.eye(4))
    settings = replace(config.pipeline.pts_global_tracking, num_steps=3)
    with progress.silent():
        found = run_stage(state, seen, Stage("points", settings, config))
    assert not torch.equal(found.parameters.rotation, truth.rotation) and found.records[0].accepted


def _lacking(pictures: Pictures, row: int) -> Pictures:
    """The pictures without those of a timestep, whose place stays."""
    out = copy.copy(pictures)
    rows = [one for one in range(len(pictures)) if one != row]
    out._all, out._row = pictures._all.of_rows(rows, pictures._all.rgba), rows
    return out


def test_what_hinders_is_said_once_for_all_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = toy_head().double()
    truth, config = turning(head), config_of(tmp_path)
    one, rig = film(head, truth).of_frames([2]), film(head, truth)
    assert rig.pictures is not None
    again = copy.copy(rig.pictures)
    again._all = replace(rig.pictures._all, timestep=torch.arange(FRAMES) // 2)
    state = FitState(truth.of_frames([2]), np.eye(4), texture_is_final=True)
    assert points.hindrance(rig, config) is None
    assert "several pictures" in (points.hindrance(replace(rig, pictures=again), config) or "")
    assert "no pictures" in (points.hindrance(replace(rig, pictures=None), config) or "")
    for name, stage in config.pipeline.items():
        if not name.startswith("pts_"):
            stage.num_steps = stage.num_epochs = 0
    run_stages(state, one, config)
    said = [line for line in capsys.readouterr().err.splitlines() if "not followed" in line]
    assert len(said) == 1 and "pts_init_all and pts_global_tracking change nothing: a single timestep" in said[0]
    config.pipeline.pts_init_all.num_steps = 0
    config.pipeline.pts_global_tracking.frames, config.w.landmark_count = "sequential", 60.0
    driver._tell_of_idle_points(rig, config, [("pts_global_tracking", config.pipeline.pts_global_tracking)])
    assert "--pipeline.pts-global-tracking.frames sequential" in capsys.readouterr().err
    config.w.landmark_count = 0.0
    assert "--w.landmark-count is 0" in (points.hindrance(rig, config) or "")


def test_of_a_head_that_hardly_turns_identity_is_left_to_landmarks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = toy_head().double()
    truth, config = turning(head), config_of(tmp_path)
    assert points.turned_by(head, truth, range(FRAMES)) > 5
    still = replace(truth, rotation=0.1 * truth.rotation)
    about = points.turned_by(head, truth, range(FRAMES))
    assert points.turned_by(head, still, range(FRAMES)) == pytest.approx(0.1 * about, rel=0.05)
    state = FitState(still, np.eye(4))
    seen = replace(film(head, still), calibrated=False)
    stage = Stage("points", replace(config.pipeline.pts_init_all, num_steps=4), config)
    found = run_stage(state, seen, stage)
    assert "do not tell its identity" in capsys.readouterr().err
    assert torch.equal(found.parameters.shape, still.shape)
    assert torch.equal(found.parameters.log_focal, still.log_focal)
