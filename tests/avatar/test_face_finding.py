"""Faces are found in any frame and unit, and only faces."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.face_finding import FaceFinding, find_face
from flame_fitting.avatar.head_calibration import head_avatar
from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.mesh_avatar import MeshAvatar, avatar_from_arrays
from flame_fitting.avatar.probes import nearest_axis, probes_of, turned_camera
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.capture.similarity import decompose_similarity, invert_similarity, similarity_matrix
from flame_fitting.errors import NoFaceError
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.mediapipe_detector import MediaPipeConfig, MediaPipeDetector


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def detector():
    return MediaPipeDetector(config=MediaPipeConfig(jitter=2))


def placed(head, world_from_head: np.ndarray, kind: str = "textured") -> MeshAvatar:
    vertices = head.v_template.numpy().astype(np.float64)
    return head_avatar(head, vertices @ world_from_head[:3, :3].T + world_from_head[:3, 3], kind)


def check(finding: FaceFinding, world_from_head: np.ndarray, degrees: float = 2.0) -> None:
    scale, rotation, shift = decompose_similarity(finding.head_from_world @ world_from_head)
    angle = np.degrees(Rotation.from_matrix(rotation).magnitude())
    assert angle < degrees and abs(np.log(scale)) < 0.02 and np.linalg.norm(shift) < 0.004


def rotation_to(up: str, forward: str) -> np.ndarray:
    from flame_fitting.avatar.probes import AXES

    y, z = np.array(AXES[up], float), np.array(AXES[forward], float)
    return np.stack([np.cross(y, z), y, z], axis=1)


def test_y_up(head, detector):
    truth = similarity_matrix(1.0, np.eye(3), np.array([0.0, 1.6, 0.0]))
    finding = find_face(placed(head, truth), detector, head)
    check(finding, truth)
    assert finding.shading == "unlit" and finding.n_probes == 1
    assert finding.residual_relative < 0.02 and finding.n_views >= 6
    record = finding.record(finding.head_from_world)
    assert record.up.axis == "+Y" and record.forward.axis == "+Z"
    assert abs(record.mm_per_unit - 1000) < 20


def test_z_up_in_millimetres_without_colour(head, detector):
    truth = similarity_matrix(1000.0, rotation_to("+Z", "-Y"), np.array([4000.0, -200.0, 1700.0]))
    finding = find_face(placed(head, truth, "clay"), detector, head)
    check(finding, truth)
    assert finding.shading == "clay"
    assert nearest_axis(finding.up) == "+Z" and nearest_axis(finding.forward) == "-Y"


def test_a_mouth_that_is_wide_open(head, detector):
    """The jaw alone takes this face beyond what a closed one may depart by."""
    truth = similarity_matrix(100.0, np.eye(3), np.array([0.0, 160.0, 0.0]))
    vertices = head(jaw_pose=torch.tensor([[0.42, 0.0, 0.0]])).vertices[0].detach().numpy().astype(np.float64)
    finding = find_face(head_avatar(head, vertices @ truth[:3, :3].T + truth[:3, 3], "clay"), detector, head)
    check(finding, truth, degrees=4.0)
    assert finding.n_probes < 10


@pytest.mark.parametrize("pitch", [-15, 0, 15])
def test_upside_down(head, detector, pitch):
    """The detector draws an upright face over one that stands on its head, in all views and within the limits."""
    truth = similarity_matrix(1.0, Rotation.from_euler("zx", [180, pitch], degrees=True).as_matrix(), np.zeros(3))
    finding = find_face(placed(head, truth), detector, head)
    check(finding, truth)
    assert finding.n_probes == 1


def test_axes_between_the_axes(head, detector):
    truth = similarity_matrix(0.05, Rotation.from_euler("yxz", [140, 35, 50], degrees=True).as_matrix(), np.ones(3))
    check(find_face(placed(head, truth), detector, head), truth)


def test_head_of_a_figure_with_stretched_arms(head, detector):
    import trimesh

    truth = similarity_matrix(1.0, np.eye(3), np.array([0.0, 1.6, 0.0]))
    figure = placed(head, truth)
    for extents, center in (([0.4, 1.35, 0.22], [0, 0.7, -0.03]), ([1.7, 0.1, 0.1], [0, 1.35, -0.03])):
        box = trimesh.creation.box(extents=extents).subdivide().subdivide()
        figure.parts.append(avatar_from_arrays(np.asarray(box.vertices) + center, np.asarray(box.faces)).parts[0])
    finding = find_face(figure, detector, head)
    check(finding, truth)
    assert finding.n_probes < 40


def test_found_frame_turns_with_the_avatar(head, detector):
    """Two placements of one head: the same frame on it, whatever probe found it."""
    frames = []
    for up, forward, unit in (("+Y", "+Z", 1.0), ("-X", "+Y", 100.0)):
        truth = similarity_matrix(unit, rotation_to(up, forward), np.zeros(3))
        frames.append(find_face(placed(head, truth), detector, head).head_from_world @ truth)
    scale, rotation, shift = decompose_similarity(frames[0] @ invert_similarity(frames[1]))
    assert np.degrees(Rotation.from_matrix(rotation).magnitude()) < 0.5
    assert abs(np.log(scale)) < 0.005 and np.linalg.norm(shift) < 0.001


def test_probes_cover_all_parts_and_begin_with_the_usual_axes():
    box = avatar_from_arrays(np.random.default_rng(0).uniform(-1, 1, (500, 3)) * [0.3, 0.9, 0.2], np.array([[0, 1, 2]]))
    probes = probes_of(box)
    parts = {probe.part for probe in probes}
    assert "whole" in parts
    assert all(f"{s}{a} {p}%" in parts for s in "+-" for a in "XYZ" for p in (50, 35, 25, 18))
    np.testing.assert_array_equal(probes[0].direction, [0, 0, 1])
    np.testing.assert_array_equal(probes[0].up, [0, 1, 0])
    whole = [p for p in probes if p.part == "whole" and len(p.turns) == 4]
    assert len({tuple(np.round(p.direction, 6)) for p in whole}) == 26


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_turned_picture_has_aturned_camera(turn):
    size = 8
    K = intrinsics_from_fov(40.0, size, size)
    camera = look_at([0.3, 0.5, 2.0], [0, 0, 0], [0, 1, 0])
    point = np.array([[0.2, 0.1, -0.1]])
    image = np.zeros((size, size))
    x, y = project(point, K, camera)[0, :2]
    image[int(y), int(x)] = 1
    row, column = np.argwhere(np.rot90(image, turn))[0]
    turned = project(point, K, turned_camera(camera, turn))[0, :2]
    assert (int(turned[1]), int(turned[0])) == (row, column)
    assert np.linalg.det(turned_camera(camera, turn)[:3, :3]) == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, up, forward",
    [
        ("lps_head/lps_textured.glb", "+Y", "+Z"),
        ("lps_head/lps_zup_mm.obj", "+Z", "-Y"),
        ("lps_head/lps_untextured.stl", "+Y", "+Z"),
        ("valid_avatars/Asian_F_2_Casual_head.glb", "+Y", "+Z"),
        ("valid_avatars/Black_M_1_Casual_head_mouthopen.glb", "+Y", "+Z"),
        ("valid_avatars/White_M_1_Casual_fullbody.glb", "+Y", "+Z"),
        ("makehuman_cc0/mh_male_young_fullbody.obj", "+Y", "+Z"),
        ("makehuman_cc0/mh_female_african_young_head.obj", "+Y", "+Z"),
        ("ict_facekit/sample_1.ply", "+Y", "+Z"),
    ],
)
def test_real_avatars(test_data, head, detector, name, up, forward):
    finding = find_face(load_avatar(test_data / "avatars" / name), detector, head)
    assert nearest_axis(finding.up) == up and nearest_axis(finding.forward) == forward
    assert finding.n_probes < 60


@pytest.mark.slow
def test_animal_is_refused(test_data, head, detector):
    avatar = load_avatar(test_data / "avatars" / "negative_goathead" / "goathead.obj")
    with pytest.raises(NoFaceError, match="no human face found") as error:
        find_face(avatar, detector, head)
    assert "goathead.obj" in str(error.value)
