"""Which detectors names stand for."""

import subprocess
import sys

import pytest

from flame_fitting.errors import InputError
from flame_fitting.landmarks import registry
from flame_fitting.landmarks.registry import DETECTORS, Settings, choose_detectors, make_detector, settings_of
from flame_fitting.shared_options import DetectorWeights

WEIGHTS = DetectorWeights()


@pytest.fixture
def ready(monkeypatch):
    """Names of the detectors that are there; mediapipe alone at first."""
    there = {"mediapipe"}
    monkeypatch.setattr(registry, "is_ready", lambda name, weights=None: name in there)
    return there


def test_a_static_avatar_takes_mediapipe_and_a_video_star_where_it_is(ready):
    assert choose_detectors(("auto",), WEIGHTS).names == ("mediapipe",)
    tracking = choose_detectors(("auto",), WEIGHTS, tracking=True)
    assert tracking.names == ("mediapipe",)
    assert all(part in tracking.why for part in ("300W_STARLoss_NME_2_87.pkl", "246 MB", "mediapipe"))
    ready.add("star")
    assert choose_detectors(("auto",), WEIGHTS, tracking=True).names == ("star",)
    assert choose_detectors(("auto",), WEIGHTS).names == ("mediapipe",)


def test_stars_landmarks_serve_a_video_without_its_weights(ready):
    assert choose_detectors(("auto",), WEIGHTS, tracking=True, present=("STAR",)).names == ("star",)


def test_both_is_all_that_are_there(ready):
    with pytest.raises(InputError, match="only mediapipe is there"):
        choose_detectors(("both",), WEIGHTS)
    ready |= {"dlib", "star"}
    assert choose_detectors(("both",), WEIGHTS).names == ("mediapipe", "star", "dlib")
    assert choose_detectors(("both",), WEIGHTS, present=("face-alignment",)).names == DETECTORS


def test_what_is_named_is_taken_as_it_is(ready):
    assert choose_detectors(("star", "mine"), WEIGHTS).names == ("star", "mine")
    assert choose_detectors(("mine",), WEIGHTS).why == ""
    with pytest.raises(InputError, match="stand alone"):
        choose_detectors(("auto", "mine"), WEIGHTS)


def test_a_detector_that_is_named_and_missing_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("FLAME_FITTING_OFFLINE", "1")
    monkeypatch.delenv("FLAME_FITTING_STAR_WEIGHTS", raising=False)
    assert not registry.is_ready("star", WEIGHTS) and registry.version_now("star", WEIGHTS) is None
    with pytest.raises(InputError, match=r"300W_STARLoss_NME_2_87\.pkl.*246 MB.*--star-weights.*mediapipe"):
        make_detector("star")
    with pytest.raises(InputError, match=r"stars: no such landmark detector.*star, face-alignment, dlib"):
        make_detector("stars")


def test_each_detector_has_weights_of_its_own(tmp_path):
    weights = DetectorWeights(
        model_path=tmp_path / "a",
        star_weights=tmp_path / "b",
        face_alignment_weights=tmp_path / "c",
        dlib_weights=tmp_path / "d",
        detector_device="cpu",
        detector_half=True,
    )
    assert [settings_of(name, weights).path for name in DETECTORS] == [tmp_path / name for name in "abcd"]
    assert settings_of("star", weights) == Settings(tmp_path / "b", "cpu", True)
    assert settings_of("mine", weights).path is None


def test_looking_for_stars_weights_does_not_load_torch(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("FLAME_FITTING_STAR_WEIGHTS", raising=False)
    code = (
        "import sys\n"
        "from flame_fitting.landmarks.registry import choose_detectors\n"
        "from flame_fitting.shared_options import DetectorWeights\n"
        "assert choose_detectors(('auto',), DetectorWeights(), tracking=True).names == ('mediapipe',)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
