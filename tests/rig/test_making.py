"""What the rig writes is what its truth says: poses, events, cameras, colours, landmarks, videos, tracks."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import binary_fill_holes

from flame_fitting.capture.camera import project, transform_points
from flame_fitting.capture.color_correction import AffineCorrection, PolynomialCorrection
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz
from flame_fitting.fit.result import load_fit
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.render.shading import sh_basis
from scripts.rig import colours
from scripts.rig.cameras import aligned_from_world, calibrated_cameras, monocular_camera
from scripts.rig.course import EVENTS, make_course
from scripts.rig.making import CLIPS, OTHER_CAMERAS, Rig, RigConfig, make_rig
from scripts.rig.sequences import picture_name
from scripts.rig.tracks import RUN_NAME, turned_light
from tests.rig.comparing import decibels, picture

EYES = ((37, 41), (38, 40), (43, 47), (44, 46))


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open").double()


def posed(head: HeadModel, parameters: dict[str, np.ndarray]) -> np.ndarray:
    """(T, V, 3)."""
    names = ("shape", "expr", "rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose", "static_offset")
    with torch.no_grad():
        return head(**{name: torch.as_tensor(parameters[name]).double() for name in names}).vertices.numpy()


# The course


@pytest.mark.parametrize("frames", [8, 24, 300])
def test_events_happen_when_they_are_said_to(frames: int) -> None:
    lids = np.zeros(60)
    lids[3] = 2.0
    course = make_course(frames, 25.0, 60, lids, np.random.default_rng(0))
    assert len(set(course.events.values())) == len(EVENTS) and course.events["blink"] > 0
    assert course.jaw_pose[:, 0].argmax() == course.events["open"] and course.jaw_pose[:, 0].max() > 0.3
    turn = rotation_matrix(torch.as_tensor(course.rotation)) @ rotation_matrix(torch.as_tensor(course.neck_pose))
    yaw = np.degrees(np.arctan2(*turn.numpy()[:, [0, 2], 2].T))
    assert abs(yaw.argmax() - course.events["turn"]) <= frames // 50 and 55 < yaw.max() < 66
    assert np.flatnonzero(~course.present).tolist() == [course.events["absent"]]
    # it moves like a head: no leaps but those of the events
    steps = np.abs(np.diff(course.translation, axis=0)).max()
    assert 0 < steps < 0.01 and np.abs(course.translation).max() < 0.03


def test_absence() -> None:
    away, none = (make_course(12, 25.0, 5, np.zeros(5), np.random.default_rng(0), kind) for kind in ("away", "none"))
    assert not away.blank.any() and not away.present[away.events["absent"]] and none.present.all()
    assert np.abs(away.translation - none.translation).max() > 1
    with pytest.raises(InputError, match="--frames 5"):
        make_course(5, 25.0, 5, np.zeros(5), np.random.default_rng(0))


def test_eyes_shut_and_mouth_opens(rig: Rig) -> None:
    truth = rig.truth("monocular")
    points, t = truth["landmarks2d"][:, 0], rig.events
    gap = np.mean([np.linalg.norm(points[:, a] - points[:, b], axis=-1) for a, b in EYES], axis=0)
    assert abs(gap[: t["open"]].argmin() - t["blink"]) <= 1 and gap[t["blink"]] < 0.4 * gap[0]
    mouth = np.linalg.norm(points[:, 62] - points[:, 66], axis=-1)
    assert mouth.argmax() == t["open"] and mouth.max() > 1.5 * np.median(mouth)


# Tracks


@pytest.mark.parametrize("clip", CLIPS)
def test_tracks_are_the_truth_in_their_worlds(clip: str, rig: Rig, head: HeadModel) -> None:
    truth = rig.truth(clip)
    kept = truth["vertices_timestep"]
    assert np.abs(posed(head, truth)[kept] - truth["vertices"]).max() < 1e-6
    fit = load_fit(rig.fit(clip))
    assert np.array_equal(fit.head_from_world, np.eye(4)) and fit.timestep_id == truth["timestep_id"].tolist()
    assert np.abs(posed(head, fit.parameters)[kept] - truth["vertices"]).max() < 1e-6
    run = read_npz(rig.run(clip) / RUN_NAME / "tracked_flame_params_30.npz", "")
    world = np.eye(4) if clip == "monocular" else truth["aligned_from_world"]
    wanted = transform_points(world, truth["vertices"].astype(np.float64))
    assert np.abs(posed(head, run)[kept] - wanted).max() < 1e-6
    early = read_npz(rig.run(clip) / RUN_NAME / "tracked_flame_params_0.npz", "")
    assert not np.allclose(early["expr"], run["expr"])
    assert ("focal_length" in run) == (clip == "monocular")
    assert np.allclose(run["lights"], turned_light(truth["lights"], world[:3, :3]), atol=1e-6)


def test_light_turns_with_the_world() -> None:
    rng = np.random.default_rng(0)
    lights, turn = rng.normal(size=(9, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    normals = rng.normal(size=(50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    before, after = (sh_basis(torch.as_tensor(points)).numpy() for points in (normals, normals @ turn.T))
    assert np.abs(before @ lights - after @ turned_light(lights, turn)).max() < 1e-9


def test_the_rigs_own_world_is_turned_and_alignment_undoes_it(rig: Rig) -> None:
    truth = rig.truth("nersemble")
    mean = np.mean(truth["world_to_camera"][:, :3, :3].transpose(0, 2, 1), axis=0)
    assert np.abs(mean.T @ mean - np.diag(np.diag(mean.T @ mean))).max() < 1e-9  # any order of axes gives the same
    assert np.degrees(np.arccos((np.trace(truth["aligned_from_world"][:3, :3]) - 1) / 2)) > 10
    level = aligned_from_world(calibrated_cameras(128))
    assert np.abs(level - np.eye(4)).max() < 1e-9
    assert monocular_camera(128).world_to_camera[:3, 3].tolist() == [0, 0, 1]


def test_config_is_what_python_writes_and_no_safe_loader_reads(rig: Rig) -> None:
    text = (rig.run("nersemble") / RUN_NAME / "config.yml").read_text()
    with pytest.raises(yaml.constructor.ConstructorError):
        yaml.safe_load(text)
    for tag in ("python/object:", "python/name:", "python/tuple", "python/object/apply:pathlib.PosixPath"):
        assert tag in text
    assert "align_cameras_to_axes: true" in text and "sequence: EMO-1" in text


# Landmarks


def test_landmarks_are_projections_and_visibility_is_geometry(rig: Rig, head: HeadModel) -> None:
    truth, t = rig.truth("nersemble"), rig.events
    seen = truth["landmarks2d_visible"]
    assert not seen[t["absent"]].any() and (seen[0].sum(1) > 45).all()
    # turned to its left, the head shows the cameras on its right little of its left eye
    assert seen[t["turn"], :2, 42:48].sum() < seen[t["turn"], 2:, 42:48].sum()
    nose = truth["vertices"][list(truth["vertices_timestep"]).index(0)][head.regions["nose"].numpy()]
    for index in range(4):
        pixels = project(nose, truth["K"][index], truth["world_to_camera"][index])[:, :2]
        tip = truth["landmarks2d"][0, index, 30]
        assert np.linalg.norm(pixels - tip, axis=1).min() < 1.5


def test_landmark_files_are_vhaps(rig: Rig) -> None:
    for clip, name in (("monocular", "STAR.npz"), ("nersemble_v2", "STAR/221501007.npz")):
        truth, file = rig.truth(clip), read_npz(rig.sequence(clip) / "landmark2d" / name, "")
        index = 0 if clip == "monocular" else 1
        lost = np.flatnonzero((file["face_landmark_2d"] == -1).all((1, 2)))
        assert rig.events["absent"] in lost and len(lost) < 8
        assert np.array_equal(lost, np.flatnonzero((file["bounding_box"] == -1).all(1)))
        found = np.setdiff1d(np.arange(16), lost)
        pixels = file["face_landmark_2d"][found, :, :2] * truth["size"][index]
        assert np.abs(pixels - truth["landmarks2d"][found, index]).max() < 1e-3


# Pictures


@pytest.mark.parametrize("clip", CLIPS)
def test_heads_have_no_holes(clip: str, rig: Rig) -> None:
    """Mouth, eyes and the neck's end are closed: alpha has no hole, whatever the head does."""
    from PIL import Image

    folder = rig.sequence(clip) / "alpha_maps"
    paths = sorted(folder.iterdir())
    assert len(paths) == 16 * len(rig.truth(clip)["camera_id"])
    for path in paths:
        alpha = np.asarray(Image.open(path)) > 128
        absent = path.stem.endswith(f"{rig.events['absent']:06d}")
        assert alpha.any() != absent
        assert binary_fill_holes(alpha).sum() - alpha.sum() <= 2, path.name


@pytest.mark.parametrize("clip", CLIPS)
def test_videos_and_pictures_are_the_same(clip: str, rig: Rig) -> None:
    """H.264 and JPEG, before any correction of colours."""
    av = pytest.importorskip("av")

    truth = rig.truth(clip)
    for index, camera in enumerate(truth["camera_id"]):
        place = {"nersemble": "", "nersemble_v2": "images/"}.get(clip)
        path = rig.video if place is None else rig.sequence(clip) / f"{place}cam_{camera}.mp4"
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264" and float(stream.average_rate) == 25
            frames = [frame.to_ndarray(format="rgb24") / 255 for frame in container.decode(stream)]
        assert len(frames) == 16 and frames[0].shape[1::-1] == tuple(truth["size"][index])
        for timestep, frame in enumerate(frames):
            image = picture(rig.sequence(clip) / "images" / f"{picture_name(str(camera), timestep)}.jpg")
            assert decibels(frame, image) > 35


def test_two_cameras_of_v2_are_smaller(rig: Rig) -> None:
    truth, other = rig.truth("nersemble_v2"), rig.truth("nersemble")
    for index in range(4):
        factor = 0.5 if index in OTHER_CAMERAS else 1.0
        assert np.allclose(truth["size"][index], factor * other["size"][index])
        assert np.allclose(truth["K"][index][:2], factor * other["K"][index][:2])
        assert np.allclose(truth["landmarks2d"][:, index], factor * other["landmarks2d"][:, index], atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_corrections_take_recorded_colours_to_true_ones(seed: int) -> None:
    """By the readers' own formulas; nothing is clipped on the way, and the correction is no trifle."""
    rng = np.random.default_rng(seed)
    true = 0.65 * rng.uniform(0, 1, (8, 8, 1)) + 0.35 * rng.uniform(0, 1, (8, 8, 3))
    true[0, 0], true[0, 1] = 0, 1
    affine, polynomial = colours.draw_affine(rng), colours.draw_polynomial(rng)
    kinds = (
        (colours.before_affine(true, affine), AffineCorrection(affine[:, :3], affine[:, 3])),
        (colours.before_polynomial(true, polynomial), PolynomialCorrection(polynomial)),
    )
    for recorded, correct in kinds:
        assert recorded.min() >= -1e-9 and recorded.max() <= 1
        assert np.abs(correct(recorded.astype(np.float32)) - true).max() < 1e-3
        assert decibels(recorded, true) < 30


# The whole


def test_seeds_decide_everything(tmp_path: Path) -> None:
    def hashes(name: str, seed: int) -> dict[str, str]:
        clips = ("monocular",)
        rig = make_rig(RigConfig(tmp_path / name, 8, 64, seed=seed, texture_size=64, clips=clips, landmarks=True))
        files = [path for path in rig.root.rglob("*") if path.is_file() and path.name not in ("config.yml",)]
        return {str(p.relative_to(rig.root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert hashes("a", 1) == hashes("b", 1)
    courses = [make_course(8, 25.0, 5, np.zeros(5), np.random.default_rng(seed)) for seed in (1, 2)]
    assert not np.allclose(courses[0].expr, courses[1].expr)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"frames": 5}, "--frames 5"), ({"size": 100}, "--size 100"), ({"clips": ("film",)}, "--clips film")],
)
def test_impossible_rigs_are_refused(options: dict, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=text):
        make_rig(RigConfig(tmp_path / "rig", **options))
    assert not (tmp_path / "rig").exists()


def test_command_line_refuses_as_others_do(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "scripts/make_rig.py", "--output", str(tmp_path / "rig"), "--frames", "3"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("make_rig: --frames 3") and "Traceback" not in done.stderr
