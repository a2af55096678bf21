"""What is said of a video that will not track well, and what is not."""

import numpy as np
import pytest

from flame_fitting.video.resampling import RateCounts
from flame_fitting.video.watching import Watcher, is_blank, warnings_about, warnings_about_faces

FACE = (0.35, 0.25, 0.7, 0.65)


def scene(seed: int, shift: int = 0) -> np.ndarray:
    """A picture of coloured patches, moved to the right by some pixels."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return np.roll(np.kron(patches, np.ones((20, 20, 1), np.uint8)), shift, axis=1)


def watched(pictures: list[np.ndarray]) -> Watcher:
    watcher = Watcher()
    for number, picture in enumerate(pictures):
        watcher.look(range(number, number + 1), picture)
    return watcher


def test_blank_beginning_is_counted_and_is_no_cut() -> None:
    noise = np.random.default_rng(0).integers(-2, 3, (120, 160, 3))
    blank = (np.full((120, 160, 3), 128) + noise).astype(np.uint8)
    watcher = watched([blank, blank, *[scene(1, n) for n in range(10)]])
    assert watcher.blank_start == 2
    assert watcher.cuts == []
    text = warnings_about(watcher, RateCounts(), 25.0, 0.04)
    assert len(text) == 1
    assert "first 2 pictures are blank" in text[0]


def test_a_dark_scene_is_not_blank() -> None:
    dark = np.full((120, 160, 3), 16, np.uint8)
    assert is_blank(dark)
    dark[30:60, 40:90] = 24
    assert not is_blank(dark)


def test_a_cut_is_found_where_it_is() -> None:
    watcher = watched([*[scene(1, n) for n in range(12)], *[scene(2, n) for n in range(12)]])
    assert watcher.cuts == [12]
    assert "the shot changes at picture 12:" in warnings_about(watcher, RateCounts(), 25.0, 0.04)[0]


@pytest.mark.parametrize("speed", [0, 2, 9])
def test_motion_and_light_are_no_cuts(speed: int) -> None:
    pictures = [
        np.clip(scene(1, speed * n).astype(float) * (0.6 + 0.02 * n), 0, 255).astype(np.uint8) for n in range(20)
    ]
    assert watched(pictures).cuts == []


def test_a_sudden_move_is_no_cut() -> None:
    """The colours stay, they are elsewhere."""
    assert watched([*[scene(1)] * 10, *[scene(1, 40)] * 10]).cuts == []


def test_gaps_and_repeats_are_said_with_what_helps() -> None:
    gaps = RateCounts(decoded=100, used=100, written=101, longest_gap=0.59)
    assert "590 ms" in warnings_about(Watcher(), gaps, 25.0, 0.04)[0]
    slow = RateCounts(decoded=90, used=90, written=150, longest_gap=1 / 15)
    text = warnings_about(Watcher(), slow, 25.0, 1 / 15)
    assert len(text) == 1
    assert "60 of 150" in text[0]
    assert "--target-fps 15 " in text[0]
    assert warnings_about(Watcher(), RateCounts(100, 100, 100, 0.04), 25.0, 0.04) == []


def test_faces() -> None:
    assert warnings_about_faces([[FACE]] * 12) == []
    assert "no face was found in any of 12" in warnings_about_faces([[]] * 12)[0]
    second = [[FACE, (0.9, 0.4, 1.0, 0.55)]] * 5 + [[FACE]] * 7
    text = warnings_about_faces(second)
    assert "second face in 5 of 12" in text[0]
    assert "right edge" in text[0]
    assert warnings_about_faces([[FACE, FACE]] + [[FACE]] * 11) == [], "once may be a mistake of the detector"
    assert "in 8 of 12" in warnings_about_faces([[]] * 8 + [[FACE]] * 4)[0]


def test_a_video_whose_frames_have_hardly_a_time_is_said() -> None:
    """Twelve frames in a millisecond make one picture: somebody wrote the file without times."""
    counts = RateCounts(decoded=12, used=1, written=1)
    assert "--target-fps None" in warnings_about(Watcher(), counts, 25.0, 0.001 / 12)[0]
    fast = RateCounts(decoded=240, used=25, written=25)
    assert warnings_about(Watcher(), fast, 25.0, 1 / 240) == []
    assert warnings_about(Watcher(), RateCounts(decoded=12, used=12, written=12), None, 0.001 / 12) == []
