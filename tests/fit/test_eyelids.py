"""Eyelids as a parameter: fits of known truth, bounds, files."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting.avatar.evidence_pictures import EvidencePictures, draw_poses, truth_of
from flame_fitting.errors import InputError
from flame_fitting.export.flame_files import write_parameters
from flame_fitting.export.transforms_files import EYELIDS_NAME
from flame_fitting.fit.checkpoint import CHECKPOINT_NAME, Checkpoint, load_checkpoint, save_checkpoint
from flame_fitting.fit.earlier import earlier_state
from flame_fitting.fit.parameters import EYELIDS, FitParameters
from flame_fitting.fit.presets import preset
from flame_fitting.fit.result import FitResult, load_fit, save_parameters
from flame_fitting.fit.solvers.active_expression import active_expression
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.solvers.geometry_step import GeometryStep
from flame_fitting.fit.state import FitState, StageRecord
from flame_fitting.fit.track_config import track_preset
from flame_fitting.head.apertures import LID_COLUMNS, find_apertures
from flame_fitting.head.eyelids import with_eyelids
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from tests.fit.known_truth import problem
from tests.fit.pictures import around, draw
from tests.fit.settings import geometry_of, offsets_of, priors_of, second_order_of
from tests.fit.solvers.test_active_expression import LEFT, RIGHT, rest_gaps, target
from tests.synthetic import known_fit, similarity
from tests.toy import toy_head


@pytest.fixture(scope="module")
def head() -> HeadModel:
    """The open head with eyelids beside its expressions."""
    return with_eyelids(load_head("open")).double()


def blinking() -> HeadModel:
    """The toy head with eyelids."""
    head = toy_head()
    head.set_eyelids(0.01 * np.random.default_rng(5).normal(size=(head.n_vertices, 3, 2)))
    return head


@pytest.mark.parametrize("shut", [(LEFT,), (LEFT, RIGHT)])
def test_shut_eyes_are_eyelids_and_neither_expression_nor_identity(head: HeadModel, shut: tuple[slice, ...]) -> None:
    gaps, apertures = rest_gaps(head), find_apertures(head)
    for eye in shut:
        gaps[eye] = 0.0
    aim = target(head, gaps)
    active = active_expression(head, [aim])
    assert active is not None and len(active.directions) == 0
    assert active.eyelids == (1.0, 1.0 if RIGHT in shut else 0.0) and "left eye shut by 100 %" in active.said
    columns = Columns.of(head, ["shape", "expr", "eyelids", "placement"], {"shape": 50, "expr": 20})
    settings = replace(second_order_of(iterations=15), evidence=3.0, active=active)
    found = gauss_newton(head, FitParameters.neutral(head), [aim], columns, priors_of(), settings).parameters
    fitted = 1000 * apertures.gaps(found.head_vertices(head), head.faces)[0, : 2 * LID_COLUMNS].detach().numpy()
    rest = rest_gaps(head)[: 2 * LID_COLUMNS]
    for eye in (LEFT, RIGHT):
        assert np.abs(fitted[eye]).mean() < 0.6 if eye in shut else np.abs(fitted[eye] - rest[eye]).mean() < 0.6
    assert found.eyelids[0, 0] == pytest.approx(1.0, abs=0.1)
    assert found.eyelids[0, 1] == pytest.approx(1.0 if RIGHT in shut else 0.0, abs=0.1)
    neutral = replace(found, expr=torch.zeros_like(found.expr), eyelids=torch.zeros_like(found.eyelids))
    opened = 1000 * apertures.gaps(neutral.head_vertices(head), head.faces)[0, : 2 * LID_COLUMNS].detach().numpy()
    assert np.abs(opened - rest).mean() < 0.6 and float(found.expr.abs().max()) < 0.15


def test_an_eyelid_goes_no_further_than_its_bounds(head: HeadModel) -> None:
    """Eyes that evidence says are wide open, and shut ones of a head whose own are half as wide again."""
    columns = Columns.of(head, ["eyelids"])
    wide = -0.5 * head.eyelids.sum(-1)[None]
    for gap, offset, bound in ((40.0, 0 * wide, EYELIDS[0]), (0.0, wide, EYELIDS[1])):
        gaps = rest_gaps(head)
        gaps[LEFT] = gaps[RIGHT] = gap
        settings = replace(second_order_of(iterations=10), evidence=3.0, landmark_count=0.0)
        prior, start = replace(priors_of(), eyelids=1e3), replace(FitParameters.neutral(head), static_offset=offset)
        found = gauss_newton(head, start, [target(head, gaps)], columns, prior, settings)
        assert found.parameters.eyelids.flatten().tolist() == [bound, bound]


def test_presets() -> None:
    assert preset("static").model.use_eyelids == track_preset("track").model.use_eyelids == "auto"
    assert preset("vhap").model.use_eyelids == track_preset("vhap").model.use_eyelids == "no"
    assert track_preset("track").prior.eyelids > preset("static").prior.eyelids


def test_a_head_without_has_no_columns() -> None:
    plain = toy_head().double()
    assert Columns.of(plain, ["expr", "eyelids"]) == Columns.of(plain, ["expr"])
    assert FitParameters.neutral(plain, 3).eyelids.shape == (3, 0)


def made(head: HeadModel, **more: np.ndarray) -> FitResult:
    fit = known_fit(head, similarity())
    return replace(fit, parameters=fit.parameters | more)


def test_files_hold_them_where_there_are_some(tmp_path: Path) -> None:
    head, eyelids = blinking(), np.array([[0.25, 1.0]])
    fit = made(head, eyelids=eyelids)
    save_parameters(tmp_path / "tracked_flame_params.npz", fit)
    loaded = load_fit(tmp_path)
    np.testing.assert_array_equal(loaded.parameters["eyelids"], eyelids)
    np.testing.assert_allclose(loaded.vertices_head(head), fit.vertices_head(head), atol=1e-7)
    opened = made(head).vertices_head(head)
    assert np.abs(fit.vertices_head(head) - opened).max() > 0.01
    np.testing.assert_allclose(fit.without_offsets().vertices_head(head), fit.vertices_head(head))

    (tmp_path / "data").mkdir()
    write_parameters(tmp_path / "data", loaded, head, {0: 0})
    with np.load(tmp_path / "data" / "flame_param" / "00000.npz") as file:
        np.testing.assert_array_equal(file["eyelids"], eyelids)
    with np.load(tmp_path / "data" / "canonical_flame_param.npz") as file:
        assert not file["eyelids"].any() and file["eyelids"].shape == (1, 2)
    with np.load(tmp_path / "data" / EYELIDS_NAME) as file:
        shapes = 0.25 * file["left"] + file["right"]
    np.testing.assert_allclose(head.eyelids.numpy() @ eyelids[0].astype(np.float32), shapes, atol=1e-7)

    save_parameters(tmp_path / "plain.npz", made(head))
    with np.load(tmp_path / "plain.npz") as file:
        assert "eyelids" not in file.files
    (tmp_path / "open").mkdir()
    write_parameters(tmp_path / "open", made(head), head, {0: 0})
    assert not (tmp_path / "open" / EYELIDS_NAME).exists()

    for wrong in (np.zeros((1, 3)), np.zeros((2, 2)), np.full((1, 2), np.nan)):
        save_parameters(tmp_path / "tracked_flame_params.npz", made(head, eyelids=wrong))
        with pytest.raises(InputError, match="eyelids has shape"):
            load_fit(tmp_path)


def test_a_checkpoint_keeps_them_and_older_ones_have_none(tmp_path: Path) -> None:
    head = blinking().double()
    parameters = replace(FitParameters.neutral(head, 2), eyelids=torch.tensor([[0.2, 0.9], [0.0, 1.0]]).double())
    state = FitState(parameters, np.eye(4), records=(StageRecord("one", parameters, np.eye(4), 1.0),))
    save_checkpoint(tmp_path / CHECKPOINT_NAME, Checkpoint(state, head.file_hash))
    loaded = load_checkpoint(tmp_path / CHECKPOINT_NAME)
    loaded.check_head(tmp_path, head)
    record = loaded.state.records[0].parameters
    assert record is not None
    for found in (loaded.state.parameters, record):
        torch.testing.assert_close(found.eyelids, parameters.eyelids)
    plain = copy.deepcopy(head)
    plain.set_eyelids(np.zeros((head.n_vertices, 3, 0)))
    with pytest.raises(InputError, match="another head model"):
        loaded.check_head(tmp_path, plain)


def test_a_fit_begins_with_those_of_another_or_without(tmp_path: Path) -> None:
    head = blinking().double()
    eyelids = torch.tensor([[0.2, 0.9]]).double()
    parameters = replace(FitParameters.neutral(head), eyelids=eyelids)
    save_checkpoint(tmp_path / CHECKPOINT_NAME, Checkpoint(FitState(parameters, np.eye(4)), head.file_hash))
    save_parameters(tmp_path / "tracked_flame_params.npz", made(head, eyelids=eyelids.numpy()))
    plain = copy.deepcopy(head)
    plain.set_eyelids(np.zeros((head.n_vertices, 3, 0)))
    for path in (tmp_path, tmp_path / "tracked_flame_params.npz"):
        said: list[str] = []
        torch.testing.assert_close(earlier_state(path, head, 2).parameters.eyelids, eyelids.repeat(2, 1))
        assert earlier_state(path, plain, 1, notify=said.append).parameters.eyelids.shape == (1, 0)
        assert "its eyelids are left out" in said[0]
    save_parameters(tmp_path / "tracked_flame_params.npz", made(plain))
    found = earlier_state(tmp_path / "tracked_flame_params.npz", head, 1)
    assert found.parameters.eyelids.tolist() == [[0.0, 0.0]]


def test_pictures_that_evidence_is_calibrated_on_shut_eyes_by_them(head: HeadModel) -> None:
    apertures = find_apertures(head)
    poses = [pose for _, pose in draw_poses(head, apertures, EvidencePictures(identities=8))]
    gaps = np.array([truth_of(head, apertures, pose)[: 2 * LID_COLUMNS] for pose in poses]).reshape(-1, 2, LID_COLUMNS)
    shut = np.array([pose.eyelids for pose in poses])
    assert shut.min() < 0.05 and shut.max() > 0.9 and (shut[:, 0] != shut[:, 1]).any()
    for number in range(2):  # gaps have the right eye first
        assert np.corrcoef(shut[:, number], gaps[:, 1 - number].mean(1))[0, 1] < -0.7
    plain = load_head("open")
    assert all(pose.eyelids.shape == (0,) for _, pose in draw_poses(plain, apertures, EvidencePictures(identities=1)))


def test_a_blink_over_time_is_followed(head: HeadModel) -> None:
    """Of one eye, that shuts and opens within five pictures, by the deviations that tracking has."""
    amounts = np.array([0.0, 0.0, 0.5, 1.0, 0.5, 0.0, 0.0])
    targets = []
    for amount in amounts:
        gaps = rest_gaps(head)
        gaps[LEFT] *= 1 - amount
        targets.append(target(head, gaps))
    prior = track_preset("track").prior
    columns = Columns.of(head, ["shape", "expr", "eyelids", "rotation", "translation"], {"shape": 20, "expr": 10})
    settings = replace(second_order_of(iterations=8), evidence=3.0, bias_sigma=prior.landmark_bias)
    smoothness = {"expr": prior.expr_change, "eyelids": prior.eyelids_change}
    found = gauss_newton(
        head,
        FitParameters.neutral(head, len(targets)),
        targets,
        columns,
        prior,
        replace(settings, smoothness=smoothness),
    ).parameters.eyelids.numpy()
    assert np.corrcoef(found[:, 0], amounts)[0, 1] > 0.99
    assert 0.8 < np.ptp(found[:, 0]) < 1.1 and np.abs(found[:, 1]).max() < 0.1


def test_pictures_start_from_a_shut_eye_that_is_not_at_rest() -> None:
    """In first order the prior is as wide as the eye is shut when the stage begins, and holds it within its bounds."""
    head, truth, targets, surface = problem(head=blinking().double())
    start = replace(truth, eyelids=torch.tensor([[0.8, 0.0]], dtype=torch.float64))
    views = draw(head, truth.vertices(head)[0].numpy(), None, around(1, 0.05, 50.0), 32)
    weights = geometry_of(
        surface=0.0, prior=1.0, landmark_3d=0.0, landmark=0.0, contour=0.0, closure=0.0, offset=offsets_of()
    )
    step = GeometryStep(head, start, targets, views, surface, priors_of(eyelids=0.05), weights, {"eyelids": 0.1})
    assert step().loss.item() == pytest.approx(0.8**2 / (0.05**2 + 0.8**2), rel=1e-3)
    with torch.no_grad():
        step.values[:] = torch.tensor([100.0, -100.0])
    step.keep_possible()
    assert step.current().eyelids.flatten().tolist() == pytest.approx([EYELIDS[1], EYELIDS[0]], abs=1e-6)
