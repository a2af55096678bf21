"""A sequence of the bench as files: what is given to a track, and what is the truth of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.capture.camera import centred_intrinsics, project
from flame_fitting.capture.opening import open_capture
from flame_fitting.fit.alignment import aligned
from flame_fitting.fit.result import FitResult, load_fit
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import read_landmarks
from scripts.tracking import making
from scripts.tracking.cases import BY_NAME
from scripts.tracking.making import BIAS_MM, NOISE_AT, NOISE_PX, Wanted, made
from scripts.tracking.measure import psnr

SIZE, FRAMES = 64, 7


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open").double()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sequences")
    with progress.silent():
        for case in ("rig", "video"):
            made(Wanted(case, "open", 3, SIZE, FRAMES, texture_size=128), folder)
    return folder


def folder_of(work: Path, case: str) -> Path:
    return work / f"open_{case}_{FRAMES}x{SIZE}_s3"


def true_points(folder: Path, truth: FitResult, head: HeadModel) -> np.ndarray:
    vertices = torch.as_tensor(truth.vertices_world(head))
    return LandmarkEmbedding.load(folder / "embedding.npz").points(vertices, head.faces).numpy()


def test_a_rig_has_known_cameras_and_some_that_are_held_out(work: Path, head: HeadModel) -> None:
    folder = folder_of(work, "rig")
    capture, truth = open_capture(folder / "sequence"), load_fit(folder / "truth")
    assert capture.calibrated and len(capture.timesteps) == FRAMES
    assert len(capture.views_of("fit")) == 8 * FRAMES and len(capture.views_of("heldout")) == 2 * FRAMES
    points = true_points(folder, truth, head)
    found = {name: read_landmarks(capture, name).landmarks for name in making.LANDMARKS}
    for view in capture.views:
        t, c = capture.timesteps.index(view.timestep), capture.cameras.index(view.camera)
        if view.role == "heldout":
            assert all(np.isnan(of[t, c]).all() for of in found.values())
            continue
        exact = project(points[t], view.K, view.world_to_camera)[:, :2]
        assert np.abs(found["exact"][t, c, :, :2] - exact).max() < 0.01
        # the head is whole in every picture
        alpha = capture.alpha(view)
        assert 0.1 < (alpha > 0.5).mean() < 0.6 and max(alpha[0].max(), alpha[:, [0, -1]].max()) == 0
    noise = (found["noisy"] - found["exact"])[:, :8, :, :2]
    assert noise.std() == pytest.approx(NOISE_PX * SIZE / NOISE_AT, rel=0.05) and abs(noise.mean()) < 0.01


def test_biases_have_their_length_and_stay_on_the_skin(work: Path, head: HeadModel) -> None:
    folder = folder_of(work, "rig")
    capture, truth = open_capture(folder / "sequence"), load_fit(folder / "truth")
    shift = (read_landmarks(capture, "biased").landmarks - read_landmarks(capture, "noisy").landmarks)[..., :2]
    cameras = capture.views_of("fit", timestep=0)
    vertices = truth.vertices_world(head)
    embedding = LandmarkEmbedding.load(folder / "embedding.npz")
    lengths, local = [], []
    for t in range(FRAMES):
        corners = vertices[t][head.faces.numpy()[embedding.face_index]]
        point = np.einsum("nkc,nk->nc", corners, embedding.barycentric)
        # the shift in space that explains those in all pictures, to first order
        rows = []
        for view in cameras:
            step = 1e-4 * np.eye(3)
            base = project(point, view.K, view.world_to_camera)[:, :2]
            rows.append(
                np.stack([project(point + d, view.K, view.world_to_camera)[:, :2] - base for d in step], -1) / 1e-4
            )
        jacobian = np.stack(rows, 1).reshape(68, -1, 3)
        wanted = shift[t, :8].transpose(1, 0, 2).reshape(68, -1)
        bias = np.stack([np.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(jacobian, wanted, strict=True)])
        lengths.append(1000 * np.linalg.norm(bias, axis=1))
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        local.append(1000 * (bias * normal / np.linalg.norm(normal, axis=1, keepdims=True)).sum(1))
    assert np.abs(np.array(lengths) - BIAS_MM).max() < 0.1
    assert np.ptp(local, axis=0).max() < 0.1 and np.std(local[0]) > 0.3  # its share along the normal stays


def test_a_video_shows_no_head_in_frames_that_are_left_out(work: Path, head: HeadModel) -> None:
    folder = folder_of(work, "video")
    capture, whole, truth = (
        open_capture(folder / "sequence"),
        open_capture(folder / "whole"),
        load_fit(folder / "truth"),
    )
    assert not capture.calibrated and capture.kind == "monocular" and truth.focal_length is not None
    assert truth.focal_length != pytest.approx(1.5)  # not what is assumed
    points, found = true_points(folder, truth, head), read_landmarks(capture, "exact").landmarks[:, 0]
    K = centred_intrinsics(truth.focal_length * SIZE, SIZE, SIZE)
    for row, (view, true) in enumerate(zip(capture.views, whole.views, strict=True)):
        assert (whole.alpha(true) > 0.5).mean() > 0.1
        if row == 5:
            assert np.isnan(found[row]).all() and capture.alpha(view).max() == 0 and capture.image(view).min() > 0.99
            continue
        assert np.abs(found[row, :, :2] - project(points[row], K, view.world_to_camera)[:, :2]).max() < 0.01
        assert np.abs(capture.image(view) - whole.image(true)).mean() < 0.02


def test_a_sequence_is_made_once_and_anew_for_other_wishes(work: Path) -> None:
    folder = folder_of(work, "video")
    stamp = (folder / "made.json").stat().st_mtime_ns
    assert made(Wanted("video", "open", 3, SIZE, FRAMES, texture_size=128), work) == folder
    assert (folder / "made.json").stat().st_mtime_ns == stamp
    before = load_fit(folder / "truth")
    with progress.silent():
        made(Wanted("video", "open", 3, SIZE, FRAMES, texture_size=64), work)
    assert (folder / "made.json").stat().st_mtime_ns != stamp
    # the same seed: the same head and motion
    again = load_fit(folder / "truth")
    for name in ("shape", "expr", "translation", "static_offset"):
        assert np.array_equal(before.parameters[name], again.parameters[name])


@pytest.mark.parametrize("case", ["rig", "video"])
def test_the_truth_looks_like_its_pictures_and_another_head_does_not(case: str, work: Path, head: HeadModel) -> None:
    folder = folder_of(work, case)
    truth = load_fit(folder / "truth")
    left_out = BY_NAME[case].left_out(FRAMES)
    found, capture = aligned(truth, open_capture(folder / "sequence"))
    right = psnr(folder, found, head, capture, left_out)
    # teeth and what closes the neck are no part of the head model
    assert set(right) == {f"psnr_{of}{part}" for of in ("training", "heldout") for part in ("", "_head")}
    assert all(value > 24 for value in right.values())
    for of in ("training", "heldout"):
        assert right[f"psnr_{of}"] > right[f"psnr_{of}_head"]  # background is easy
    moved = replace(found, parameters=found.parameters | {"translation": found.parameters["translation"] + 0.01})
    wrong = psnr(folder, moved, head, capture, left_out)
    assert all(wrong[name] < right[name] - 4 for name in right)
