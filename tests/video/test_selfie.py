"""The person segmenter's alpha: its border follows the picture, it is steady, and other things stay out of it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from flame_fitting.video.decoding import VideoFile
from flame_fitting.video.selfie import RefineConfig, SelfieMatting, full_size, reduced, refined_alpha, trimap
from flame_fitting.video.steadying import RADIUS, Moment, motion, steadied
from scripts import bench_preprocess as bench

CONFIG = RefineConfig()


def clutter(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A colourful background."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (10, 10, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def disc(size: int, softness: float, shift: float = 0.0) -> np.ndarray:
    """Alpha of a disc with a soft edge, (size, size)."""
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(x - size / 2 - shift, y - size / 2)
    return np.clip((0.3 * size - distance) / softness + 0.5, 0, 1).astype(np.float32)


def test_the_border_is_solved_for_from_colours() -> None:
    true = disc(192, 4.0)
    person, behind = np.array([235.0, 235.0, 225.0]), np.array([30.0, 60.0, 90.0])
    noise = np.random.default_rng(0).normal(0, 2, (192, 192, 3))
    picture = true[..., None] * person + (1 - true[..., None]) * behind + noise
    coarse = cv2.GaussianBlur(disc(192, 4.0, shift=1.5), (0, 0), 3)  # off and blurred, as the segmenter's
    found = refined_alpha(np.clip(picture, 0, 255).astype(np.uint8), coarse, CONFIG)
    assert np.abs(found - true).mean() < 0.3 * np.abs(coarse - true).mean()
    assert np.abs(found - true).max() < 0.2


def test_what_touches_no_person_is_background() -> None:
    probability = disc(192, 4.0)
    probability[5:15, 5:15] = 0.6  # unsure
    probability[175:187, 5:20] = 1.0  # sure, and small
    known = trimap(probability, CONFIG)
    assert (known[:20, :20] == 0).all()
    assert (known[165:, :30] == 0).all()
    assert known[96, 96] == 1
    assert 0.02 < (known == 0.5).mean() < 0.2


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_nothing_to_solve_for(value: float) -> None:
    probability = np.full((64, 64), value, np.float32)
    found = refined_alpha(clutter(64, 64), probability, CONFIG)
    assert np.isfinite(found).all()
    assert found.max() <= value


def test_a_large_picture_is_solved_for_in_a_smaller_one() -> None:
    true = disc(900, 9.0)
    picture = (true[..., None] * 230 + (1 - true[..., None]) * 40 + np.zeros(3)).astype(np.uint8)
    small = reduced(picture, CONFIG.longest_side)
    assert small.shape == (640, 640, 3)
    coarse = cv2.resize(cv2.GaussianBlur(true, (0, 0), 7), (640, 640))
    found = full_size(refined_alpha(small, coarse, CONFIG), picture.shape[:2])
    assert found.shape == (900, 900)
    assert np.abs(found / 255.0 - true).max() < 0.1


def moments(count: int, step: float, flicker: float) -> tuple[list[Moment], list[np.ndarray]]:
    """Frames of a textured disc that moves over a background, with alpha whose edge jitters, and the true alpha."""
    rng = np.random.default_rng(1)
    texture = clutter(160, 160, seed=5)
    made, truth = [], []
    for n in range(count):
        shifted = cv2.warpAffine(
            texture, np.array([[1.0, 0, step * n], [0, 1, 0]]), (160, 160), borderMode=cv2.BORDER_WRAP
        )
        true = disc(160, 6.0, shift=step * n)
        picture = true[..., None] * shifted + (1 - true[..., None]) * (40, 45, 50)
        jitter = np.where((true > 0) & (true < 1), rng.normal(0, flicker, true.shape), 0)
        alpha = np.clip(true + jitter, 0, 1).astype(np.float32)
        made.append(Moment(n, picture.astype(np.uint8), alpha))
        truth.append(true)
    return made, truth


def test_alpha_is_steadied_along_the_motion() -> None:
    made, truth = moments(5, 2.0, 0.2)
    center = made[2]
    found = steadied(center, [made[i] for i in (0, 1, 3, 4)])
    before, after = (np.abs(alpha - truth[2]).mean() for alpha in (center.alpha, found))
    assert after < 0.7 * before


def test_another_shot_has_no_say() -> None:
    made, _ = moments(3, 0.0, 0.0)
    others = [Moment(n, 255 - made[n].picture, 1 - made[n].alpha) for n in (0, 2)]
    np.testing.assert_array_equal(steadied(made[1], others), made[1].alpha)


def test_motion_is_in_pixels_of_the_alpha_map() -> None:
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8), (0, 0), 3)
    flow = motion(texture[:160, :160], texture[:160, 6:166], (320, 320))
    assert np.median(flow[..., 0]) == pytest.approx(-12, abs=0.6)
    assert np.median(flow[..., 1]) == pytest.approx(0, abs=0.3)


@pytest.fixture(scope="module")
def frames(test_data: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures of a person before a cluttered background, and the person's outline."""
    path = test_data / "video" / "obama_512.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    pictures, outlines = [], []
    for number, frame in enumerate(VideoFile(path).frames()):
        if number == 7:
            break
        picture = cv2.resize(frame.picture(), (320, 320), interpolation=cv2.INTER_AREA)
        pictures.append(bench.before(picture, bench.clutter(320, 320)))
        outlines.append(bench.without_halo(picture))
    return pictures, outlines


def test_a_person_before_clutter(frames: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    pictures, outlines = frames
    matting = SelfieMatting(workers=2)
    matting.begin(None)
    found = [done for n, picture in enumerate(pictures) for done in matting.push(n, picture)]
    found += matting.finish()
    assert [tag for tag, _ in found] == list(range(len(pictures)))
    for (_, alpha), outline in zip(found, outlines, strict=True):
        assert bench.iou(alpha > 127, outline) > 0.97

    # pushed from so few frames before, the rest comes out the same: what resuming relies on
    assert matting.lookback == RADIUS
    matting.begin(None)
    start = 4
    again = [done for n in range(start - RADIUS, 7) for done in matting.push(n, pictures[n])] + matting.finish()
    for (_, alpha), (_, same) in zip(found[start:], again[RADIUS:], strict=True):
        np.testing.assert_array_equal(alpha, same)
    matting.close()
