"""Videos that are written open again: codec, size, rate, colours."""

from pathlib import Path

import av
import numpy as np
import pytest

from flame_fitting.manifest import Manifest
from flame_fitting.video.encoding import VideoWriter
from flame_fitting.video.rates import pictures_per_second


def test_pictures_come_back_in_order_and_in_colour(tmp_path: Path) -> None:
    path, pictures = tmp_path / "a.mp4", []
    for number in range(12):
        picture = np.zeros((48, 96, 3), dtype=np.uint8)
        picture[:, :32], picture[:, 32:64], picture[:, 64:] = (200, 30, 40), (30, 180, 60), (40, 60, 220)
        picture[8:24, 8 * (number // 2) : 8 * (number // 2) + 16] = 20 * number
        pictures.append(picture)
    with VideoWriter(path, 96, 48, 24.0, crf=10) as writer:
        for picture in pictures:
            writer.add(picture)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 24)
        assert (context.colorspace, context.color_range) == (1, 1)  # said, so that players need not guess
        back = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(back) == len(pictures)
    for want, got in zip(pictures, back, strict=True):
        assert np.median(np.abs(want.astype(int) - got)) <= 3
        assert abs(int(got[30, 80, 2]) - 220) < 8 and abs(int(got[40, 10, 0]) - 200) < 8


def test_after_an_error_no_half_file_is_taken_for_whole(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / "a.mp4", 32, 32, 25.0):
        raise ZeroDivisionError
    with pytest.raises(Exception), av.open(str(tmp_path / "a.mp4")) as container:  # noqa: B017
        list(container.decode(video=0))


def test_rate_is_the_recordings_over_the_step(tmp_path: Path) -> None:
    assert pictures_per_second(tmp_path, [0, 1, 2]) == 25
    Manifest(stage="preprocess", config={"target_fps": 30.0}, inputs={}).write(tmp_path)
    assert pictures_per_second(tmp_path, [0, 1, 2]) == 30
    assert pictures_per_second(tmp_path, [4, 9, 14]) == 6
    assert pictures_per_second(tmp_path, [3]) == 30
