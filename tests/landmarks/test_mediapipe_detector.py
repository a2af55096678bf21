"""The MediaPipe detector on renders of the open head."""

import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.landmarks import eyes
from flame_fitting.landmarks.mediapipe_detector import (
    MODEL_FILE,
    MODEL_VARIABLE,
    MediaPipeConfig,
    MediaPipeDetector,
    find_model,
)
from flame_fitting.landmarks.mediapipe_faces import FaceBoxes
from flame_fitting.landmarks.schemes import SCHEMES


def quick(jitter: int = 2) -> MediaPipeDetector:
    return MediaPipeDetector(config=MediaPipeConfig(jitter=jitter))


def test_finds_the_face_where_it_is(head_pictures):
    landmarks = quick().detect(head_pictures.images)
    inner = SCHEMES["mediapipe478"].inner
    # against the calibration for unlit pictures; a head is 230 px high, a pixel 1 mm
    shift = (landmarks[..., :2] - head_pictures.calibrated)[:, inner]
    error = np.linalg.norm(shift, axis=-1)
    front, side, above = error
    assert np.median(front) < 0.8 and np.percentile(front, 95) < 2.0
    assert np.median(above) < 1.5 and np.percentile(above, 95) < 3.5
    # from the side a nose of one colour stands out little against the cheek behind it
    assert np.median(side) < 3.0 and np.percentile(side, 95) < 8.0
    assert np.abs(shift[0].mean(0)).max() < 0.25, "half a pixel off would show"
    assert np.isfinite(landmarks).all() and landmarks[..., 2].min() >= 0 and landmarks[..., 2].max() <= 1


def test_parts_of_the_face_are_where_the_model_has_them(head_pictures):
    """Without the calibration, which is made with the detector itself."""
    front = quick(6).detect(head_pictures.images[:1])[0, :, :2]
    found = {
        "right_iris": front[SCHEMES["mediapipe478"].groups["right_iris"]].mean(0),
        "left_iris": front[SCHEMES["mediapipe478"].groups["left_iris"]].mean(0),
        "lips_tight": front[SCHEMES["mediapipe478"].groups["outer_lips"]].mean(0),
    }
    for name, place in found.items():
        assert np.linalg.norm(place - head_pictures.parts[name][0]) < 3.0, name
    assert found["right_iris"][0] < found["left_iris"][0], "the subject's right eye is on the picture's left"
    # picture and mirror image have their points around the middle column on average, whatever the face: half a pixel
    # off would show
    image = head_pictures.images[:1]
    mirrored = quick(6).detect(np.ascontiguousarray(image[:, :, ::-1]))[0, :, :2]
    inner = SCHEMES["mediapipe478"].inner
    assert abs(0.5 * (front[inner, 0].mean() + mirrored[inner, 0].mean()) - 0.5 * image.shape[2]) < 0.2


def test_nothing_on_a_blank_picture():
    detector = quick()
    blank = np.full((2, 128, 128, 3), 200, np.uint8)
    assert np.isnan(detector.detect(blank)).all() and np.isnan(detector.detect_quickly(blank)).all()


def test_same_picture_gives_same_points(head_pictures):
    first, second = quick().detect(head_pictures.images[:1]), quick().detect(head_pictures.images[:1])
    np.testing.assert_array_equal(first, second)


def test_quick_detection_is_near_the_precise_one(head_pictures):
    image = head_pictures.images[:1]
    apart = np.linalg.norm((quick().detect_quickly(image) - quick(6).detect(image))[0, :, :2], axis=1)
    assert 0 < np.median(apart) < 2.0


def test_points_move_with_the_picture(head_pictures):
    image = head_pictures.images[:1]
    shifted = np.roll(image, (24, -16), axis=(1, 2))
    a, b = quick(6).detect(image)[0], quick(6).detect(shifted)[0]
    moved = b[:, :2] - a[:, :2]
    assert np.abs(np.median(moved, axis=0) - [-16, 24]).max() < 0.1
    assert np.percentile(np.abs(moved - [-16, 24]), 95) < 1.0


def test_mirrored_picture_gives_mirrored_points(head_pictures):
    image = head_pictures.images[:1]
    plain, mirrored = quick(6).detect(image)[0], quick(6).detect(np.ascontiguousarray(image[:, :, ::-1]))[0]
    back = mirrored[SCHEMES["mediapipe478"].mirror]
    back[:, 0] = image.shape[2] - back[:, 0]
    assert np.median(np.linalg.norm(back[:, :2] - plain[:, :2], axis=1)) < 0.5


def test_confidence_falls_on_the_side_turned_away(head_pictures):
    turned = quick().detect(head_pictures.images[1:2])[0]  # the camera stands on the subject's left
    assert turned[454, 2] > turned[234, 2] and turned[234, 2] < 0.4
    assert np.median(quick().detect(head_pictures.images[:1])[0, :, 2]) > 0.8


def start_one(which):
    from mediapipe.tasks.python import vision

    if which == "faces":
        return vision.FaceDetector, FaceBoxes()
    detector = quick()
    detector.detect_quickly(np.zeros((1, 64, 64, 3), np.uint8))
    return vision.FaceLandmarker, detector


@pytest.mark.parametrize("which", ["landmarks", "faces"])
def test_garbage_collection_leaves_networks_to_who_starts_the_next_one(which, monkeypatch):
    """MediaPipe's destructor waits for its thread pool, which is no longer there when garbage is collected."""
    start_one(which)  # what mediapipe's import has raised keeps the frame that imported it
    kind, owner = start_one(which)
    closed = []

    def close(network, mediapipes=kind.close):
        if network._handle:
            closed.append(len(closed))
        mediapipes(network)

    start_one(which)
    monkeypatch.setattr(kind, "close", close)
    gone, itself = weakref.ref(owner), [owner]
    itself.append(itself)
    del owner, itself
    assert gone() is not None
    gc.collect()
    assert gone() is None and closed == []
    start_one(which)
    assert closed


def test_libraries_print_nothing():
    code = (
        "import numpy as np\nfrom flame_fitting.landmarks.registry import make_detector\n"
        "make_detector().detect(np.zeros((1, 64, 64, 3), np.uint8))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout == ""


def test_python_errors_stay_visible_while_libraries_are_silenced(tmp_path):
    code = (
        "import os, sys\nfrom flame_fitting.log import quiet_native_stderr\n"
        f"with quiet_native_stderr({str(tmp_path / 'log.txt')!r}):\n"
        "    os.write(2, b'native')\n    print('python', file=sys.stderr)\nos.write(2, b'after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "python\nafter" and (tmp_path / "log.txt").read_text() == "native"


def test_missing_model_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--model-path"):
        find_model(tmp_path / "absent.task")
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    assert find_model() == assets.asset_dir() / "mediapipe" / MODEL_FILE
    monkeypatch.setattr(assets, "asset_dir", lambda: tmp_path)
    with pytest.raises(InputError, match="install it again"):
        find_model()


def test_wrong_model_is_named(tmp_path):
    path = tmp_path / "model.task"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model\.task"):
        MediaPipeDetector(path).detect(np.zeros((1, 64, 64, 3), np.uint8))


def test_the_version_covers_the_weights_of_both_networks(tmp_path, monkeypatch):
    """Evidence that an older network of the eyes found must not be used again."""
    before = quick().version
    assert quick().version == before
    other = tmp_path / "eyes.npz"
    other.write_bytes(b"other weights")
    monkeypatch.setattr(eyes, "network_path", lambda: other)
    assert quick().version != before
    monkeypatch.undo()
    model = tmp_path / "other.task"
    model.write_bytes(b"other weights")
    assert MediaPipeDetector(model, MediaPipeConfig(jitter=2)).version != before
