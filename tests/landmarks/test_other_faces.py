"""Which of several faces is the head's, and how the others are kept."""

import numpy as np
import pytest

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.errors import InputError
from flame_fitting.landmarks.detector import FacesSeen, LandmarkDetector
from flame_fitting.landmarks.files import (
    Landmarks2D,
    landmarks_path,
    read_landmarks,
    read_whole_landmarks,
    write_landmarks,
)
from flame_fitting.landmarks.other_faces import OtherFaces, choose_over_time, choose_over_views
from flame_fitting.landmarks.searching import nothing_found, search
from tests.bare_capture import bare_capture


def face(rng, size: float = 0.04) -> np.ndarray:
    return rng.normal(0, size, (68, 3)) * (1, 1, 0.5)


def of_views(count: int = 5):
    rng = np.random.default_rng(0)
    angles = np.linspace(-0.6, 0.6, count)
    cameras = np.stack([look_at([np.sin(a), 0.1, np.cos(a)], [0, 0, 0], [0, 1, 0]) for a in angles])
    K = np.tile(intrinsics_from_fov(40.0, 512, 512), (count, 1, 1))
    return K, cameras, face(rng), face(rng)


def seen(points, K, camera) -> np.ndarray:
    return np.concatenate([project(points, K, camera)[:, :2], np.ones((len(points), 1))], axis=1)


def test_the_face_that_all_views_agree_on_is_taken_though_others_are_larger():
    K, cameras, head, _ = of_views()
    rng = np.random.default_rng(1)
    faces, right = [], []
    for view in range(5):
        own = seen(head, K[view], cameras[view])
        # somebody at another place in each picture: a poster, a mirror, a passer-by
        stranger = seen(1.5 * face(rng) + rng.uniform(-0.25, 0.25, 3), K[view], cameras[view])
        first = view in (1, 3)
        faces.append(np.stack([stranger, own] if first else [own, stranger]))
        right.append(1 if first else 0)
    faces[4] = faces[4][:0]
    assert choose_over_views(faces, K, cameras) == [*right[:4], -1]


def test_of_two_people_in_all_views_the_more_prominent_one_is_taken():
    K, cameras, head, other = of_views()
    other = other + (0.3, 0, 0)
    faces = [np.stack([seen(head, K[v], cameras[v]), seen(other, K[v], cameras[v])]) for v in range(5)]
    faces[2] = faces[2][::-1]
    assert choose_over_views(faces, K, cameras) == [0, 0, 1, 0, 0]


def test_over_time_the_face_that_moves_on_steadily_is_taken():
    rng = np.random.default_rng(3)
    shape = np.concatenate([rng.normal(0, 25, (68, 2)), np.ones((68, 1))], axis=1)
    frames = []
    for frame in range(12):
        own = shape + (200 + 3 * frame, 150, 0)
        frames.append(own[None])
    # a larger face comes by for three frames, and is all that is found in one
    for frame in (4, 5, 6):
        frames[frame] = np.stack([1.6 * shape * (1, 1, 1 / 1.6) + (420, 160, 0), frames[frame][0]])
    frames[8] = frames[8][:0]
    assert choose_over_time(frames) == [0, 0, 0, 0, 1, 1, 1, 0, -1, 0, 0, 0]
    assert choose_over_time([frames[8]]) == [-1]


class Crowd(LandmarkDetector):
    """Two people: the second one walks past close to the camera in the third frame. Nobody is there in the last."""

    name, scheme, version = "crowd", "ibug68", "1"
    score_names = ("smile",)

    def detect(self, images):
        return np.stack([one.landmarks[0] for one in self.look(images)])

    def look(self, images, most_faces=1):
        rng = np.random.default_rng(5)
        shape = np.concatenate([rng.normal(0, 3, (68, 2)), np.ones((68, 1))], axis=1).astype(np.float32)
        out = []
        for image in images:
            frame = int(image[0, 0, 0])
            faces = [shape + np.float32([20 + frame, 20, 0])]
            if frame == 2:
                faces = [shape * np.float32([2, 2, 1]) + np.float32([45, 20, 0]), *faces]
            count = 0 if frame == 5 else most_faces
            scores = np.array([[0.1 * len(faces)]] * len(faces), np.float32)
            out.append(FacesSeen(np.stack(faces)[:count], scores[:count]))
        return out


def test_a_search_keeps_all_faces_and_takes_the_steady_one(tmp_path):
    from PIL import Image

    capture = bare_capture(tmp_path, 6, 1, kind="monocular")
    (tmp_path / "images").mkdir()
    for frame in range(6):
        Image.fromarray(np.full((48, 64, 3), frame, np.uint8)).save(tmp_path / f"images/{frame:05d}_00.png")
    detector = Crowd()
    made = nothing_found(capture, detector)
    done = []
    search(capture, capture.views, detector, made, done.append)
    middle = made.landmarks[:5, 0, :, 0].mean(1)
    np.testing.assert_allclose(np.diff(middle), 1, atol=1e-3)
    assert len(made.others) == 1 and made.others.at.tolist() == [[2, 0]] and sum(done) == 6
    assert made.found[:, 0].tolist() == [True] * 5 + [False]
    np.testing.assert_allclose(made.scores[:5, 0, 0], [0.1, 0.1, 0.2, 0.1, 0.1], atol=1e-6)

    write_landmarks(capture, made)
    again = read_whole_landmarks(capture, "crowd")
    np.testing.assert_array_equal(again.landmarks, made.landmarks)
    np.testing.assert_array_equal(again.scores, made.scores)
    assert again.score_names == ("smile",)
    np.testing.assert_array_equal(again.others.landmarks, made.others.landmarks)
    assert read_landmarks(capture, "crowd").scores.shape == (6, 1, 1)


@pytest.mark.parametrize("damage", ["place", "shape"])
def test_further_faces_that_do_not_fit_are_refused(tmp_path, damage):
    capture = bare_capture(tmp_path, 2, 1)
    points = np.zeros((2, 1, 68, 3), np.float32)
    at = np.array([[7, 0]]) if damage == "place" else np.array([[0, 0]])
    others = OtherFaces(np.zeros((1, 60 if damage == "shape" else 68, 3), np.float32), np.zeros((1, 0), np.float32), at)
    write_landmarks(capture, Landmarks2D(points, "ibug68", "toy", others=others))
    with pytest.raises(InputError, match=r"toy\.npz: further faces"):
        read_landmarks(capture, "toy")


def test_scores_without_names_are_refused(tmp_path):
    path = landmarks_path(tmp_path, "toy")
    path.parent.mkdir()
    np.savez(path, landmarks=np.zeros((1, 2, 68, 3)), scores=np.zeros((1, 2, 5)))
    with pytest.raises(InputError, match=r"toy\.npz: scores"):
        read_landmarks(bare_capture(tmp_path), "toy")
