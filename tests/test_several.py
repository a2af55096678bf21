"""Several captures of one person, and an avatar's morph targets: fitted together as moments in no order."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import cli, progress
from flame_fitting.assets import shipped_embedding_path
from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, move_camera, project, transform_points, unproject
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.similarity import decompose_similarity, similarity_matrix
from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.detected_sources import detected_sources
from flame_fitting.fit.joining import join, plan_of
from flame_fitting.fit.morphs import MORPHS_NAME
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.quality import different_persons
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.sources import open_fit
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit_avatar import fit, plan
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.embedding_schemes import for_scheme
from flame_fitting.landmarks.joining import shared_detectors
from flame_fitting.maths.normals import vertex_normals
from flame_fitting.report.drawing import head_avatar
from flame_fitting.report.metrics import evaluate_fit
from tests.fit.known_truth import cloud_of
from tests.synthetic import add_rendered, similarity
from tests.test_fit_avatar import small, without_detector

HEAD_FROM_WORLD = similarity(0.01)  # centimetres
JAW = 0.2
YAWS = (-90, -50, -25, 0, 25, 50, 90, 180)


@pytest.fixture(scope="module")
def head():
    return load_head("open")


def posed(head, jaw: float = 0.0, expr: float = 0.0) -> np.ndarray:
    """(V, 3) head space: one identity with an open jaw and the second expression."""
    shape, expression = torch.zeros(head.n_shape), torch.zeros(1, head.n_expr)
    shape[:6] = torch.tensor([1.0, -1.0, 0.7, 0.5, -0.8, 0.6])
    expression[0, 1] = expr
    with torch.no_grad():
        out = head(shape=shape, expr=expression, jaw_pose=torch.tensor([[jaw, 0.0, 0.0]]))
    return out.vertices[0].double().numpy()


def add_moment(
    writer: CaptureWriter, head, vertices: np.ndarray, head_from_world: np.ndarray, timestep: int, name: str
):
    """Views of a moment, and the landmarks (C, 68, 3) of it."""
    world = transform_points(np.linalg.inv(head_from_world), vertices)
    avatar, rows = head_avatar(head, world, head.texture), []
    embedding = for_scheme(LandmarkEmbedding.load(shipped_embedding_path("mediapipe", "textured")), "ibug68", head)
    points = embedding.points(torch.as_tensor(world)[None], head.faces)[0].numpy()
    normals = vertex_normals(world, head.faces.numpy())[head.faces.numpy()[embedding.face_index, 0]]
    for camera, yaw in enumerate(np.radians(YAWS)):
        eye = [0.9 * np.sin(yaw), 0.05 * (-1.0) ** camera, 0.9 * np.cos(yaw)]
        matrix = move_camera(look_at(eye, [0, 0, 0], [0, 1, 0]), np.linalg.inv(head_from_world))
        K = intrinsics_from_fov(26.0, 160, 160)
        add_rendered(writer, avatar, camera, "fit", K, matrix, timestep, name)
        toward = np.linalg.inv(matrix)[:3, 3] - points
        seen = (normals * toward).sum(1) / np.linalg.norm(toward, axis=1) > 0.3
        marks = np.full((68, 3), np.nan, dtype=np.float32)
        marks[seen] = np.column_stack([project(points, K, matrix)[:, :2], np.ones(68)])[seen]
        rows.append(marks)
    return np.stack(rows)


def captured(root: Path, head, vertices: np.ndarray, head_from_world: np.ndarray, file: str = "", **look) -> Capture:
    """A capture of one moment, with landmarks2d/mine.npz."""
    record = AvatarRecord(file=file or None)
    with CaptureWriter(root, look.get("background", (1.0, 1.0, 1.0)), look.get("shading", "unlit"), record) as writer:
        landmarks = add_moment(writer, head, vertices, head_from_world, 0, "")
    (root / "landmarks2d").mkdir()
    np.savez(root / "landmarks2d" / "mine.npz", landmarks=landmarks[None], scheme="ibug68")
    return writer.capture


@pytest.fixture(scope="module")
def pair(head, tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Capture]:
    """A face at rest in centimetres; the same one with an open mouth, turned, in millimetres, on black."""
    root = tmp_path_factory.mktemp("pair")
    turn = similarity_matrix(1.0, decompose_similarity(similarity(1.0, seed=8))[1], np.array([0.3, -0.2, 0.1]))
    other = HEAD_FROM_WORLD @ turn @ np.diag([0.1, 0.1, 0.1, 1.0])
    rest = captured(root / "a", head, posed(head), HEAD_FROM_WORLD, "x/rest.glb")
    mouth = captured(root / "b", head, posed(head, JAW, 1.5), other, "x/mouth.glb", background=(0.0, 0.0, 0.0))
    return rest, mouth


def several(first: Path, others: tuple[Path, ...], output: Path) -> FitConfig:
    config = small("fast", first, output)
    config.others, config.same_identity = others, True
    return config


@pytest.fixture(scope="module")
def together(pair, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    output = tmp_path_factory.mktemp("together") / "fit"
    with pytest.MonkeyPatch.context() as patch, progress.silent():
        without_detector(patch)
        return fit(several(pair[0].root, (pair[1].root,), output), evaluate=False)


def test_one_shape_and_an_expression_each(head, pair, together: FitResult) -> None:
    p = together.parameters
    assert together.timestep_id == ["rest", "mouth"]
    assert p["shape"].shape == (head.n_shape,) and p["static_offset"].shape == (1, head.n_vertices, 3)
    assert p["jaw_pose"][1, 0] - p["jaw_pose"][0, 0] == pytest.approx(JAW, abs=0.06)
    assert p["expr"][1, 1] - p["expr"][0, 1] == pytest.approx(1.5, abs=0.5)
    assert abs(p["jaw_pose"][0, 0]) < 0.05 and np.abs(p["expr"][0]).max() < 0.4
    # both moments lie on their own surface, in the world of the first capture
    world = together.vertices_world(head)
    face = head.region_mask("face").numpy()
    for row, true in enumerate((posed(head), posed(head, JAW, 1.5))):
        aim = transform_points(np.linalg.inv(HEAD_FROM_WORLD), true)
        apart = 10 * np.linalg.norm(world[row] - aim, axis=1)[face]  # mm, by vertices that slide on the skin
        assert np.median(apart) < 2.0
    assert together.mm_per_unit == pytest.approx(10.0, rel=0.05)


def test_the_joined_capture_opens_as_any_other(head, pair, together: FitResult) -> None:
    assert together.folder is not None
    found, opened_head, capture = open_fit(together.folder)
    assert capture.root.resolve() == (together.folder / "capture").resolve() and not capture.ordered
    assert capture.moments == ("rest", "mouth") and opened_head.identity == head.identity
    metrics = evaluate_fit(found, capture, head)
    assert set(metrics["moments"]) == {"rest", "mouth"} and "over_time" not in metrics
    for one in metrics["moments"].values():
        assert one["face_to_avatar_mm"]["median"] < 0.5
    parts = capture.avatar.parts
    assert parts is not None and [part.timesteps for part in parts] == [("rest",), ("mouth",)]
    scale, _, _ = decompose_similarity(parts[1].world_from_own)
    assert scale == pytest.approx(0.1, rel=1e-9)


def test_what_a_move_leaves_is_linked_and_what_it_changes_is_moved(pair, together: FitResult) -> None:
    first, second = pair
    capture = open_capture(together.folder / "capture")
    for view in capture.views_of(timestep=0):
        for name in (view.file_path, view.mask_path, view.geometry_path):
            assert (capture.root / name).samefile(first.root / name)
    world_from_own = capture.avatar.parts[1].world_from_own
    own = {view.camera: view for view in second.views}
    for view in capture.views_of(timestep=1):
        before = own[view.camera]
        assert (capture.root / view.mask_path).samefile(second.root / before.mask_path)
        # the same pixels show the same points, in the world of the first
        old, new = second.geometry(before), capture.geometry(view)
        hit = old[0] > 0
        pixels = np.argwhere(hit)[::97][:, ::-1] + 0.5
        depth = [g[0][hit][::97].astype(float) for g in (old, new)]
        there = unproject(pixels, depth[1], view.K, view.world_to_camera)
        here = transform_points(world_from_own, unproject(pixels, depth[0], before.K, before.world_to_camera))
        assert np.abs(there - here).max() < 1e-3  # cm
        turned = old[1][hit] @ decompose_similarity(world_from_own)[1].T
        assert np.abs(new[1][hit] - turned).max() < 2e-3
        # on the first one's background
        assert capture.image(view)[:, ~hit & (capture.alpha(view) == 0)].min() > 0.99


def test_a_plan_names_every_capture_and_a_second_join_takes_the_first(pair, together: FitResult, capsys) -> None:
    config = several(pair[0].root, (pair[1].root,), together.folder)
    assert {"capture 1", "capture 2", "landmarks mine 1", "landmarks mine 2"} <= set(plan(config).inputs)
    made = (together.folder / "capture" / "manifest.json").stat().st_mtime_ns
    join([pair[0].root, pair[1].root], together.folder)
    assert (together.folder / "capture" / "manifest.json").stat().st_mtime_ns == made


def test_landmarks_of_clay_and_of_colours_are_read_by_their_own_calibration(head, pair, together: FitResult) -> None:
    capture = open_capture(together.folder / "capture")
    kinds = ("unlit", "clay")
    parts = tuple(replace(part, landmark_shading=kind) for part, kind in zip(capture.avatar.parts, kinds, strict=True))
    mixed = replace(capture, avatar=replace(capture.avatar, parts=parts))
    config = small("fast", capture.root, Path("unused"))
    config.w.evidence = 0.0
    one, two = detected_sources(config, mixed, head, lambda _: None)
    assert one.detected.found.any(1).tolist() == [True, False] and two.detected.found.any(1).tolist() == [False, True]
    assert not np.array_equal(one.embedding.barycentric, two.embedding.barycentric)
    assert len(detected_sources(config, capture, head, lambda _: None)) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{a}", "{b}"), "add --same-identity"),
        (("{a}", "--same-identity", "--output", "{out}"), "one capture is given"),
        (("{a}", "{a}/", "--same-identity", "--output", "{out}"), "is given twice"),
        (("{a}", "{copy}", "--same-identity", "--output", "{out}"), "{a} and {copy} are the same, byte for byte"),
        (("{a}", "{joined}", "--same-identity", "--output", "{out}"), "{a} and {joined} hold the same capture"),
        (("{joined}", "{a}", "--same-identity", "--output", "{out}"), "{joined} and {a} hold the same capture"),
        (("{a}", "{b}", "--same-identity"), "--output"),
        (("{a}", "{none}", "--same-identity", "--output", "{out}"), "no such folder"),
        (("{a}", "{b}", "--same-identity", "--neutral", "--output", "{out}"), "contradict"),
        (("{a}", "{bare}", "--same-identity", "--no-detect", "--output", "{out}"), "mine.npz: no such file"),
        (("{a}", "{b}", "--same-identity", "--output", "{a}/fit"), "lies in"),
    ],
)
def test_what_cannot_be_fitted_together_is_refused(arguments, said, pair, head, tmp_path: Path, capsys) -> None:
    places = {"a": pair[0].root, "b": pair[1].root, "out": tmp_path / "out", "none": tmp_path / "none"}
    if "{bare}" in arguments:
        places["bare"] = captured(tmp_path / "bare", head, posed(head), HEAD_FROM_WORLD).root
        (tmp_path / "bare" / "landmarks2d" / "mine.npz").unlink()
    if "{copy}" in arguments:
        places["copy"] = shutil.copytree(pair[0].root, tmp_path / "copy")
    if "{joined}" in arguments:
        places["joined"] = shutil.copytree(pair[1].root, tmp_path / "joined" / "capture")
        plan_of([pair[0].root, pair[1].root], tmp_path / "joined").write(places["joined"])
    given = [argument.format(**places) for argument in arguments]
    assert cli.main(["fit", *given, "--head", "open", "--data.landmark-source", "mine"]) == 2
    assert said.format(**places) in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_captures_without_a_detector_in_common_are_refused(pair, head, tmp_path: Path) -> None:
    other = captured(tmp_path / "other", head, posed(head), HEAD_FROM_WORLD)
    path = other.root / "landmarks2d" / "mine.npz"
    path.rename(path.with_name("theirs.npz"))
    with pytest.raises(InputError, match="common to all captures"):
        shared_detectors([pair[0], open_capture(other.root)])


def test_two_persons_are_told_by_what_one_identity_leaves(head) -> None:
    shapes = torch.zeros(2, head.n_shape, dtype=torch.float64)
    shapes[0, :6], shapes[1, :6] = 1.0, torch.tensor([-1.0, 1.0, -1.0, 1.0, 1.0, -1.0])
    double = load_head("open").double()
    own = [replace(FitParameters.neutral(double), shape=shape) for shape in shapes]
    faces = double.faces.numpy()
    targets = [FrameTarget((), cloud_of(p.vertices(double)[0].numpy(), faces, 20000)) for p in own]
    both = replace(FitParameters.neutral(double, 2), shape=shapes[0])
    both.static_offset[0, 0, 0] = 1e-5
    assert different_persons(double, both, [targets[0]] * 2, ("a", "b")) is None
    said = different_persons(double, both, targets, ("a", "b"))
    assert said is not None and "a 0.0" in said and "b " in said
    assert different_persons(double, replace(both, static_offset=0 * both.static_offset), targets, ("a", "b")) is None


@pytest.fixture(scope="module")
def morphed(head, tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """A capture as `render --morphs` writes it: the avatar as it is, then two morph targets."""
    root = tmp_path_factory.mktemp("morphs") / "capture"
    record, rows = AvatarRecord(morphs=("open", "grin")), []
    with CaptureWriter(root, shading="unlit", avatar=record) as writer:
        writer.ordered = False
        for step, (name, jaw, expr) in enumerate((("default", 0.0, 0.0), ("open", JAW, 0.0), ("grin", 0.0, 1.5))):
            rows.append(add_moment(writer, head, posed(head, jaw, expr), HEAD_FROM_WORLD, step, name))
    (root / "landmarks2d").mkdir()
    np.savez(root / "landmarks2d" / "mine.npz", landmarks=np.stack(rows), scheme="ibug68")
    return writer.capture


@pytest.fixture(scope="module")
def of_morphs(morphed: Capture, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    with pytest.MonkeyPatch.context() as patch, progress.silent():
        without_detector(patch)
        return fit(small("fast", morphed.root, tmp_path_factory.mktemp("morphs") / "fit"), evaluate=False)


def test_morph_targets_become_the_head_models_expressions(head, of_morphs: FitResult) -> None:
    found = json.loads((of_morphs.folder / MORPHS_NAME).read_text(encoding="utf-8"))
    assert list(found) == ["open", "grin"]
    for one in found.values():
        assert [len(one[key]) for key in ("expr", "jaw_pose", "eyes_pose")] == [head.n_expr, 3, 6]
    assert found["open"]["jaw_pose"][0] == pytest.approx(JAW, abs=0.05)
    assert found["grin"]["expr"][1] == pytest.approx(1.5, abs=0.5) and abs(found["grin"]["jaw_pose"][0]) < 0.05
    p = of_morphs.parameters
    assert found["grin"]["expr"] == pytest.approx(p["expr"][2] - p["expr"][0], abs=1e-5)


def test_moments_are_no_recording(morphed: Capture, tmp_path: Path, capsys) -> None:
    assert cli.main(["track", str(morphed.root), "--exp.output-folder", str(tmp_path / "out")]) == 2
    assert "flame-fitting fit" in capsys.readouterr().err
