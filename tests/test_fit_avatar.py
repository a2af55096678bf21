"""`fit` as a whole on a small capture of a head of known truth, with landmarks that a user brings."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import fit_avatar, progress
from flame_fitting.assets import shipped_embedding_path
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, move_camera, project, transform_points
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.errors import InputError
from flame_fitting.fit import driver
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.intersections import crossing_pairs
from flame_fitting.fit.presets import preset
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.solvers.interface import Diverged
from flame_fitting.fit_avatar import fit
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.embedding_schemes import for_scheme
from flame_fitting.maths.normals import vertex_normals
from flame_fitting.report.drawing import head_avatar
from flame_fitting.report.metrics import evaluate_fit
from flame_fitting.report.truth import Truth, truth_metrics
from flame_fitting.stopping import how_to_go_on
from tests.synthetic import add_rendered, similarity

HEAD_FROM_WORLD = similarity(0.01)  # centimetres
YAWS = (-90, -50, -25, 0, 25, 50, 90, 180)


@pytest.fixture(scope="module")
def truth():
    """The open head, and its vertices (V, 3), world, with a shape of its own."""
    head = load_head("open")
    shape = torch.zeros(head.n_shape)
    shape[:6] = torch.tensor([1.0, -1.0, 0.7, 0.5, -0.8, 0.6])
    with torch.no_grad():
        vertices = head(shape=shape).vertices[0].double().numpy()
    return head, transform_points(np.linalg.inv(HEAD_FROM_WORLD), vertices)


@pytest.fixture(scope="module")
def capture(truth, tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """Pictures of several sizes with geometry, and landmarks2d/mine.npz in iBUG-68's order, made from the truth."""
    head, vertices = truth
    avatar = head_avatar(head, vertices, head.texture)
    cameras = np.arange(len(YAWS))
    with CaptureWriter(tmp_path_factory.mktemp("user") / "capture", (1.0, 1.0, 1.0), "unlit") as writer:
        for camera, yaw in zip(cameras, np.radians(YAWS), strict=True):
            eye = [0.9 * np.sin(yaw), 0.05 * (-1.0) ** camera, 0.9 * np.cos(yaw)]
            matrix = move_camera(look_at(eye, [0, 0, 0], [0, 1, 0]), np.linalg.inv(HEAD_FROM_WORLD))
            width, height = (160, 128) if camera == 2 else (192, 192)
            K = intrinsics_from_fov(26.0, width, height)
            add_rendered(writer, avatar, int(camera), "fit", K, matrix)
    written = writer.capture
    embedding = for_scheme(LandmarkEmbedding.load(shipped_embedding_path("mediapipe", "textured")), "ibug68", head)
    points = embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy()
    normals = vertex_normals(vertices, head.faces.numpy())[head.faces.numpy()[embedding.face_index, 0]]
    landmarks = np.full((1, len(YAWS), 68, 3), np.nan, dtype=np.float32)
    for view in written.views:
        toward = np.linalg.inv(view.world_to_camera)[:3, 3] - points
        seen = (normals * toward).sum(1) / np.linalg.norm(toward, axis=1) > 0.3
        landmarks[0, view.camera, seen] = project(points, view.K, view.world_to_camera)[seen]
        landmarks[0, view.camera, seen, 2] = 1.0
    (written.root / "landmarks2d").mkdir()
    np.savez(written.root / "landmarks2d" / "mine.npz", landmarks=landmarks, scheme="ibug68")
    return written


def without_detector(patch: pytest.MonkeyPatch) -> None:
    """A machine without MediaPipe and its weights."""

    def none(*_: object, **__: object) -> None:
        raise AssertionError("a detector was loaded")

    patch.setitem(sys.modules, "mediapipe", None)
    patch.setattr("flame_fitting.landmarks.registry.make_detector", none)
    patch.setattr("flame_fitting.avatar.head_calibration.make_detector", none)


@pytest.fixture
def no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for one test."""
    without_detector(monkeypatch)


def small(name: str, capture: Path, output: Path) -> FitConfig:
    """A preset with the user's landmarks, a small texture and few steps."""
    config = preset(name, capture)
    config.output, config.head, config.device = output, "open", "cpu"
    config.data.landmark_source = ("mine",)
    config.model.tex_resolution = 64
    config.log.overlays = config.log.tensorboard = False
    for _, stage in config.pipeline.items():
        stage.num_steps = min(stage.num_steps, 8 if stage.solver == "gauss_newton" else 2)
        stage.num_epochs = 0
    return config


@pytest.fixture(scope="module")
def whole(capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A short fit with the user's landmarks, on a machine without MediaPipe and its weights."""
    with pytest.MonkeyPatch.context() as patch, progress.silent():
        without_detector(patch)
        return fit(small("fast", capture.root, tmp_path_factory.mktemp("whole") / "fit"), evaluate=False)


def test_landmarks_in_ibugs_order_fit_without_a_detector(truth, capture: Capture, whole: FitResult) -> None:
    (head, vertices), result = truth, whole
    used = result.landmarks3d["used"][0]
    assert str(result.landmarks3d["scheme"]) == "ibug68" and used.sum() > 40 and not used[:17].any()
    errors = truth_metrics(head, result.vertices_world(head)[0], Truth(vertices, 10.0))["face"]
    assert errors["to_truth_surface_mm"]["median"] < 0.3 and errors["to_truth_mm"]["median"] < 2.0
    names = [stage.name for stage in result.stages]
    assert names[:3] == ["lmk_init_rigid", "lmk_init_all", "geo_init_all"] and len(set(names)) == len(names)
    metrics = evaluate_fit(result, capture, head)
    assert metrics["landmarks"]["reprojection_px"]["median"] < 1.0
    lips = metrics["regions"]["lips"]
    triangles = np.flatnonzero(head.face_mask("lips").numpy())
    crossing = crossing_pairs(result.vertices_head(head)[0], head.faces.numpy(), triangles, triangles)
    assert len(crossing) == 0, "lips pass through each other"
    assert any(region.get("hidden") for region in metrics["regions"].values())
    assert lips["to_avatar_mm"]["p95"] < 2.0 and metrics["regions"]["forehead"]["hidden"] == 0


@pytest.mark.parametrize("stage", ["lmk_init_all", "geo_init_all"])
def test_a_fit_that_was_stopped_goes_on_and_comes_to_the_same(
    stage: str, whole: FitResult, capture: Capture, tmp_path: Path, no_detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the stage after `stage`; the next run does not do that one again."""
    config, ran, solve = small("fast", capture.root, tmp_path / "fit"), [], dict(driver.SOLVERS)

    def solver(state, seen, now, shown):
        ran.append(now.name)
        if stopping and state.records and state.records[-1].name == stage:
            raise KeyboardInterrupt
        return solve[now.settings.solver](state, seen, now, shown)

    for name in solve:
        monkeypatch.setitem(driver.SOLVERS, name, solver)
    stopping = True
    with progress.silent():
        with pytest.raises(KeyboardInterrupt) as stop:
            fit(config, evaluate=False)
        assert f"last checkpoint is kept ({tmp_path / '.fit.resume'}). Run" in how_to_go_on(stop.value)
        assert not (tmp_path / "fit").exists() and [p.name for p in tmp_path.iterdir()] == [".fit.resume"]
        done, stopping = ran[:-1], False
        ran.clear()
        result = fit(config, evaluate=False)
    assert done[-1] == stage and not set(done) & set(ran) and ran
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]
    assert [record.name for record in result.stages] == [record.name for record in whole.stages]
    for name, value in whole.parameters.items():
        np.testing.assert_array_equal(result.parameters[name], value)
    np.testing.assert_array_equal(result.head_from_world, whole.head_from_world)
    assert whole.texture is not None and result.texture is not None
    np.testing.assert_array_equal(result.texture, whole.texture)


def test_a_fit_that_was_stopped_before_its_first_stage_finished_leaves_nothing(
    capture: Capture, tmp_path: Path, no_detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(driver.SOLVERS, "closed_form", stopped)
    with progress.silent(), pytest.raises(KeyboardInterrupt) as stop:
        fit(small("fast", capture.root, tmp_path / "fit"))
    assert how_to_go_on(stop.value).startswith("Nothing has finished that could be kept.")
    assert not list(tmp_path.iterdir())


def test_a_fit_that_was_stopped_while_it_was_measured_is_only_measured(
    capture: Capture, tmp_path: Path, no_detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small("fast", capture.root, tmp_path / "fit")
    config.exp.photometric = config.model.use_static_offset = False

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with progress.silent():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as stop:
            patch.setattr("flame_fitting.evaluate.evaluate_in_place", stopped)
            fit(config)
        said = f"The fit is finished ({tmp_path / 'fit'}), but not measured. Run the same command"
        assert how_to_go_on(stop.value).startswith(said)
        assert [path.name for path in tmp_path.iterdir()] == ["fit"]
        made = (tmp_path / "fit" / "manifest.json").read_bytes()
        monkeypatch.setattr(fit_avatar, "_fitted", stopped)
        for other in ({"force": True}, {"neutral": True}):
            with pytest.raises(KeyboardInterrupt):
                fit(dataclasses.replace(config, **other))
        result = fit(config)
        assert (tmp_path / "fit" / "manifest.json").read_bytes() == made
        measured = json.loads((tmp_path / "fit" / "metrics.json").read_text())
        assert measured["landmarks"]["reprojection_px"] == result.metrics["landmarks"]["reprojection_px"]
        assert result.stages and measured["regions"]["face"]["to_avatar_mm"]["median"] < 0.5
        with pytest.raises(KeyboardInterrupt):  # one that was measured is made again
            fit(config)


def test_vhaps_stages_are_recorded_once(capture: Capture, tmp_path: Path, no_detector) -> None:
    config = small("vhap", capture.root, tmp_path / "fit")
    config.neutral, config.model.n_shape = True, 20
    with progress.silent():
        result = fit(config, evaluate=False)
    names = [stage.name for stage in result.stages]
    assert names[0] == "lmk_init_rigid" and len(set(names)) == len(names) > 4
    assert (result.parameters["expr"] == 0).all() and (result.parameters["jaw_pose"] == 0).all()
    assert (result.parameters["shape"][20:] == 0).all() and (result.parameters["shape"][:20] != 0).any()


def test_a_fit_names_its_stages_and_tells_every_warning_once(
    capture: Capture, tmp_path: Path, no_detector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(result: FitResult, *_: object, **__: object) -> dict:
        return {"landmarks": {"reprojection_px": {"median": 1.25}}, "warnings": [*result.warnings, "the ears are off"]}

    def worse(state, seen, now, shown):
        raise Diverged("the loss went up")

    monkeypatch.setattr("flame_fitting.evaluate.evaluate_in_place", measured)
    monkeypatch.setitem(driver.SOLVERS, "closed_form", worse)
    config = small("fast", capture.root, tmp_path / "fit")
    config.exp.photometric = False
    fit(config)
    lines = capsys.readouterr().err.splitlines()
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert warnings == ["warning: stage lmk_init_rigid was rolled back: the loss went up", "warning: the ears are off"]
    ended = [line.split() for line in lines if line.startswith("  ") and not line.endswith(" ...")]
    (last,) = (line for line in lines if line.startswith("fit ") and not line.endswith(" ..."))
    assert [words[0] for words in ended[:3]] == ["lmk_init_rigid", "lmk_init_all", "geo_init_all"]
    assert all(words[2] == "s" for words in ended) and ended[0][3:5] == ["taken", "back:"]
    assert ended[1][3] == "face" and ended[1][6] == "landmarks" and ended[1][-1] == "mm"
    assert ended[-1][0] == "evaluate" and ended[-1][3:] == ["landmarks", "1.25", "px", "(median)"]
    assert lines.index(last) == len(lines) - 2  # what was measured is told after it


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((1, len(YAWS), 70, 3)), r"mine\.npz: .*70 points.*ibug68 \(68"),
        (np.zeros((1, 3, 68, 3)), r"mine\.npz: has 1 timesteps and 3 cameras, the capture 1 and 8"),
        (np.zeros((2, len(YAWS), 68, 3)), r"mine\.npz: has 2 timesteps"),
        (np.zeros((len(YAWS), 68, 3)), r"mine\.npz: landmarks have shape"),
    ],
)
def test_landmarks_that_fit_nothing_are_refused(
    capture: Capture, landmarks: np.ndarray, message: str, tmp_path: Path, no_detector
) -> None:
    copy = tmp_path / "capture"
    copy.mkdir()
    for entry in capture.root.iterdir():
        if entry.name != "landmarks2d":
            (copy / entry.name).symlink_to(entry)
    (copy / "landmarks2d").mkdir()
    np.savez(copy / "landmarks2d" / "mine.npz", landmarks=landmarks)
    with progress.silent(), pytest.raises(InputError, match=message):
        fit(small("fast", copy, tmp_path / "fit"))
    assert not (tmp_path / "fit").exists()


def test_landmarks_that_are_not_there_are_asked_for(capture: Capture, tmp_path: Path) -> None:
    config = small("fast", capture.root, tmp_path / "fit")
    config.data.landmark_source = ("yours",)
    with progress.silent(), pytest.raises(InputError, match=r"yours\.npz: no such file"):
        fit(config)


def test_a_capture_over_time_is_refused(capture: Capture, tmp_path: Path, no_detector) -> None:
    with CaptureWriter(tmp_path / "moving") as writer:
        for view in capture.views[:2]:
            for timestep in range(2):
                image, K, camera = capture.image(view), view.K, view.world_to_camera
                writer.add(timestep=timestep, camera=view.camera, role="fit", K=K, world_to_camera=camera, image=image)
    with progress.silent(), pytest.raises(InputError, match="moving: has 2 timesteps"):
        fit(small("fast", tmp_path / "moving", tmp_path / "fit"))
    assert not (tmp_path / "fit").exists()
