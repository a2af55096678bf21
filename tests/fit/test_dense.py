"""Dense observations: written with a capture, read back by view, asked for by batch."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.capture.capture import Capture
from flame_fitting.capture.dense import DENSE
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from flame_fitting.fit.dense import DenseMaps

H, W = 8, 12


def maps_of(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {name: (H, W, kind.channels) if kind.channels else (H, W) for name, kind in DENSE.items()}
    return {
        name: rng.normal(size=shape).astype(np.float32) if len(shape) == 3 else rng.integers(-1, 9, shape)
        for name, shape in shapes.items()
    }


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    """Two timesteps of two cameras; camera 1 has no maps."""
    with CaptureWriter(tmp_path / "c") as writer:
        for timestep in range(2):
            for camera in range(2):
                dense = None if camera else maps_of(timestep)
                image = np.zeros((H, W, 3), np.uint8)
                pose = {"K": np.diag([20.0, 20.0, 1.0]), "world_to_camera": np.eye(4)}
                writer.add(timestep=timestep, camera=camera, role="fit", image=image, dense=dense, **pose)
    return open_capture(tmp_path / "c")


def dense_of(capture: Capture, resolution: tuple[int, int] = (H, W)) -> DenseMaps:
    return DenseMaps(capture, tuple(capture.views), tuple(view.timestep for view in capture.views), resolution)


def test_maps_come_back_by_batch_and_say_where_nothing_is_known(capture: Capture) -> None:
    dense = dense_of(capture)
    for name, kind in DENSE.items():
        batch = dense.batch(name, [2, 1])
        np.testing.assert_array_equal(batch[0], maps_of(1)[name])
        assert bool((batch[1].isnan() if kind.channels else batch[1] == -1).all())
    later = dense.of_frames([1])
    assert later.rows() == [0, 1] and later.frames == (0, 0)
    np.testing.assert_array_equal(later.batch("region", [0])[0], maps_of(1)["region"])


def test_smaller_pictures_have_the_nearest_pixels(capture: Capture) -> None:
    half = open_capture(capture.root, ReadOptions(n_downsample_rgb=2))
    expected = maps_of(0)["region"][1::2, 1::2]
    np.testing.assert_array_equal(half.dense(half.views[0])["region"], expected)
    np.testing.assert_array_equal(dense_of(capture, (H // 2, W // 2)).batch("region", [0])[0], expected)


@pytest.mark.parametrize(
    "wrong", [{"uv": np.zeros((H, W, 3))}, {"region": np.zeros((H, W))}, {"uv": np.zeros((4, W, 2))}]
)
def test_maps_of_another_kind_are_refused(capture: Capture, wrong: dict[str, np.ndarray]) -> None:
    np.savez(capture.root / "dense" / "00000_00.npz", **wrong)
    with pytest.raises(InputError, match="00000_00"):
        capture.dense(capture.views[0])
