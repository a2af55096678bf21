"""Curves of a fit over time against sequences whose errors are known."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from flame_fitting import progress
from flame_fitting.capture.camera import project
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.choosing import with_options
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from flame_fitting.evaluate import VideoOptions, evaluate_in_place
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import Landmarks2D, write_landmarks
from flame_fitting.report.drawing import head_avatar
from flame_fitting.report.metrics import evaluate_fit
from flame_fitting.report.over_time import pose_jitter, second_turn, vertex_jitter
from flame_fitting.report.sampling import ALL_VIEWS, MOST_TIMESTEPS, drawn_views, spread
from flame_fitting.report.swimming import swimming
from tests.export.sequences import STEPS, moving_fit, neck_head, rig_cameras

Case = tuple[FitResult, Capture, HeadModel]
ABSENT, WORST, HELDOUT = 1, 3, 4


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Five timesteps; nothing was detected in the second one, the fourth one's landmarks are 5 px off."""
    folder = tmp_path_factory.mktemp("moving")
    head = neck_head()
    fit = moving_fit(head, with_dynamic_offset=False)
    capture = _pictures(folder / "render", head, fit)
    model = fit.vertices_world(head)[:, head.regions["face"].numpy()[::10]]
    found = np.full((STEPS, len(capture.cameras), model.shape[1], 3), np.nan, np.float32)
    for view in capture.views:
        if view.timestep != ABSENT:
            found[view.timestep, view.camera] = project(model[view.timestep], view.K, view.world_to_camera)
            found[view.timestep, view.camera, :, 0] += 5.0 if view.timestep == WORST else 1.0
            found[view.timestep, view.camera, :, 2] = 1
    write_landmarks(capture, Landmarks2D(found, "toy", "toy"))
    used = np.ones(model.shape[:2], bool)
    used[[ABSENT, HELDOUT]] = False
    marks = {
        "points": model,
        "model": model,
        "spread_mm": np.zeros(model.shape[:2]),
        "used": used,
        "scheme": np.array("toy"),
        "detector": np.array("toy"),
    }
    fit.folder = folder / "fit"
    fit.folder.mkdir()
    return replace(fit, landmarks3d=marks), capture, head


def _pictures(folder: Path, head: HeadModel, fit: FitResult) -> Capture:
    """The fit itself before a white background, by every camera of the rig."""
    with CaptureWriter(folder) as writer:
        for t, vertices in enumerate(fit.vertices_world(head)):
            for index, (K, world_to_camera, (width, height)) in enumerate(rig_cameras()):
                avatar = head_avatar(head, vertices, fit.texture)
                seen = avatar.draw(K[None], world_to_camera[None], width, height, outputs=("image", "alpha"))
                assert seen.image is not None and seen.alpha is not None
                placed = {"K": K, "world_to_camera": world_to_camera, "image": seen.image[0], "alpha": seen.alpha[0]}
                writer.add(timestep=t, camera=index, role="fit", **placed)
    return writer.capture


def test_a_tracked_sequence_is_measured_by_timestep_and_filmed(case: Case) -> None:
    fit, capture, head = case
    assert fit.folder is not None
    views = [replace(view, role="heldout") if view.timestep == HELDOUT else view for view in capture.views]
    apart = replace(capture, views=views)
    with progress.silent():
        metrics = evaluate_in_place(fit, head, apart, video=VideoOptions(cameras=("1", "0"), fps=12.5))
    found = metrics["over_time"]
    assert found["landmark_px"] == [1.0, None, 1.0, 5.0, 1.0]
    assert found["no_face"] == ["00001"] and found["heldout_timesteps"] == ["00004"]
    assert found["worst"][0] == "00003" and "00001" not in found["worst"]
    assert found["heldout"]["views_held_out"]["landmark_px"]["median"] == pytest.approx(1, abs=1e-3)
    assert min(found["iou"]) > 0.99 and min(found["psnr_db"]) > 40  # the pictures are of this very fit
    assert found["drawn"]["views"] == found["drawn"]["of_views"] == len(views)
    second = np.diff(fit.vertices_head(head)[:, head.region_mask("face").numpy()], n=2, axis=0)
    wanted = 1000 * np.sqrt((second**2).sum(-1).mean(-1))
    assert found["jitter_mm"][0] is found["jitter_mm"][-1] is None
    np.testing.assert_allclose(found["jitter_mm"][1:-1], wanted, rtol=1e-3)
    assert found["jitter_rms"]["vertices_mm"] == pytest.approx(float(np.sqrt(np.mean(wanted**2))), rel=1e-3)
    # the same fit at all timesteps: nothing swims but what pixels are too coarse for
    assert found["swimming"]["regions"]["face"]["detail_std_median"] < 3

    text = (fit.folder / "metrics.json").read_text()
    assert json.loads(text)["over_time"] == found
    assert '"landmark_px": [1.0, null, 1.0, 5.0, 1.0]' in text  # a line an array
    page = (fit.folder / "report.html").read_text()
    assert page.index("Timestep 00003") < page.index("Timestep 00001") and "no face found" in page
    assert {p.name for p in fit.folder.glob("*.mp4")} == {"overlay.mp4", "overlay_00.mp4"}
    with av.open(str(fit.folder / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        shown = [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(stream)]
        assert float(stream.average_rate or 0) == 12.5
    assert len(shown) == STEPS and shown[0].shape[0] % 2 == 0 and shown[0].shape[1] % 6 == 0
    third = shown[0].shape[1] // 3
    for frame in shown:  # the fit's panel shows what the picture's does, the mesh's is tinted
        picture, drawn, mesh = (frame[28:, k * third : (k + 1) * third] for k in range(3))
        assert np.abs(picture - drawn).mean() < 4 < np.abs(picture - mesh).mean()


def test_the_animation_is_of_the_first_timestep_with_a_face(case: Case) -> None:
    fit, capture, head = case
    for rows, shown in (([0, 1, 2], "00000"), ([1, 2, 3], "00002")):
        some = replace(capture, views=[view for view in capture.views if view.timestep in rows])
        with progress.silent():
            metrics = evaluate_fit(fit.of_rows(rows), some, head)
        assert metrics["animation"]["timestep"] == shown


def test_without_video_none_is_written(case: Case, tmp_path: Path) -> None:
    fit, capture, head = case
    with progress.silent():
        evaluate_in_place(replace(fit, folder=tmp_path), head, capture, figures=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json"]


def test_a_fit_that_lags_swims(case: Case) -> None:
    fit, capture, head = case
    with progress.silent():
        right = swimming(fit, capture, head)
        lagging = fit.parameters["translation"] + [[0.004 * (-1) ** t, 0.0, 0.0] for t in range(STEPS)]
        wrong = swimming(replace(fit, parameters=fit.parameters | {"translation": lagging}), capture, head)
    assert right is not None and wrong is not None and wrong.timesteps == STEPS
    a, b = (one.regions["face"]["detail_std_median"] for one in (right, wrong))
    assert b > 1.5 * a


def test_jitter_of_known_motion() -> None:
    t = np.arange(6.0)[:, None]
    steady = t * [[0.0, 0.1, 0.0]]
    assert second_turn(steady).max() < 1e-12  # an even turn does not tremble, nor across half a turn
    assert second_turn(steady * 20).max() < 1e-9
    np.testing.assert_allclose(second_turn(0.01 * (t % 2) * [[1.0, 0.0, 0.0]]), 0.02, rtol=1e-9)
    head = neck_head()
    fit = moving_fit(head)
    still = {key: np.repeat(fit.parameters[key][:1], STEPS, axis=0) for key in fit.parameters if key not in ("shape",)}
    still |= {"shape": fit.parameters["shape"], "static_offset": fit.parameters["static_offset"]}
    still["translation"] = np.zeros((STEPS, 3))
    still["translation"][:, 2] = 0.001 * np.arange(STEPS) ** 2  # a second difference of 2 mm
    moved = replace(fit, parameters=still)
    np.testing.assert_allclose(vertex_jitter(moved, head)[1:-1], 2.0, rtol=1e-4)  # type: ignore[arg-type]
    found = pose_jitter(moved)
    np.testing.assert_allclose(found["translation_mm"][1:-1], 2.0, rtol=1e-6)  # type: ignore[arg-type]
    assert found["jaw_deg"][2] == pytest.approx(0, abs=1e-9) and found["jaw_deg"][0] is None


@pytest.mark.parametrize(("steps", "cameras"), [(1000, 16), (5000, 1), (300, 16), (400, 3)])
def test_of_long_captures_some_views_are_drawn(case: Case, steps: int, cameras: int) -> None:
    fit, capture, _ = case
    some = [capture.views[k % len(capture.cameras)] for k in range(cameras)]
    views = [
        replace(v, timestep=t, camera=c, timestep_id="", camera_id="") for t in range(steps) for c, v in enumerate(some)
    ]
    views = [replace(v, timestep_id=f"{v.timestep:05d}", camera_id=f"{v.camera:02d}") for v in views]
    long = replace(capture, views=views, timestep_ids={}, camera_ids={})
    chosen = drawn_views(fit, long)
    assert len(chosen.views) <= max(MOST_TIMESTEPS, ALL_VIEWS) and 1 <= len(chosen.cameras) <= 3
    assert (chosen.timesteps[0], chosen.timesteps[-1]) == (0, steps - 1)
    assert np.ptp(np.diff(chosen.timesteps)) <= 1  # evenly spread
    assert {view.camera for view in chosen.views} == set(chosen.cameras)
    assert drawn_views(fit, long, ["0"]).cameras == [0]
    with pytest.raises(InputError, match="--video-cameras 99"):
        drawn_views(fit, long, ["99"])


def test_spread_has_both_ends() -> None:
    assert spread(5, 9) == [0, 1, 2, 3, 4] and spread(9, 3) == [0, 4, 8] and spread(0, 3) == []


def test_views_are_held_out(case: Case) -> None:
    _, capture, _ = case
    found = with_options(capture, ReadOptions(heldout_every=3, heldout_cameras=("00",)))
    apart = {(view.timestep, view.camera) for view in found.views_of("heldout")}
    assert {t for t, c in apart if c != 0} == {1, 4} and {t for t, c in apart if c == 0} == set(range(STEPS))
    with pytest.raises(InputError, match="heldout-cameras 77"):
        with_options(capture, ReadOptions(heldout_cameras=("77",)))
    with pytest.raises(InputError, match="left to fit"):
        with_options(capture, ReadOptions(heldout_cameras=tuple(capture.camera_ids.values())))
