"""Videos as people have them: each frame once, in order, upright, at the time at which it is to be shown."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from flame_fitting.errors import InputError
from flame_fitting.video.decoding import VideoFile, orientation_from_matrix
from tests.video import making
from tests.video.making import number_in, numbered, times_at, write_video

COUNT = 12


def read(path: Path) -> tuple[VideoFile, list[int], list[float]]:
    """The video, the numbers of its frames and their times in ms."""
    video = VideoFile(path)
    found = [(number_in(frame.picture()), float(1000 * frame.time)) for frame in video.frames()]
    return video, [number for number, _ in found], [time for _, time in found]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h264.mp4", {}),
        ("b_frames.mp4", {"codec_options": {"preset": "medium", "bf": "3"}}),
        ("vp9.webm", {"codec": "libvpx-vp9"}),
        ("h264.webm", {"container": "matroska"}),
        ("h264.mkv", {}),
        ("matroska_named.mp4", {"container": "matroska"}),
        ("audio_first.mp4", {"audio": True}),
        ("audio_first.webm", {"codec": "libvpx-vp9", "audio": True}),
        ("mpeg4.mov", {"codec": "mpeg4", "codec_options": {"b": "3000000"}}),
    ],
)
@pytest.mark.parametrize("rate", [15, Fraction(24000, 1001), Fraction(30000, 1001), 60])
def test_every_frame_comes_once_and_in_time(tmp_path: Path, name: str, options: dict, rate: Fraction | int) -> None:
    times = times_at(rate, COUNT)
    video, numbers, found = read(write_video(tmp_path / name, times, rate=rate, **options))
    assert numbers == list(range(COUNT))
    np.testing.assert_allclose(found, times, atol=1.0)
    assert float(video.end) == pytest.approx(COUNT / float(rate), abs=0.01)
    assert not video.damaged
    assert not video.cut_short


def test_variable_rate_with_gaps(tmp_path: Path) -> None:
    times = [0, 40, 130, 170, 760, 800, 840, 1200]
    _, numbers, found = read(write_video(tmp_path / "a.mp4", times))
    assert numbers == list(range(len(times)))
    assert found == times


@pytest.mark.parametrize("audio", [False, True])
def test_times_begin_with_the_first_frame(tmp_path: Path, audio: bool) -> None:
    _, numbers, found = read(write_video(tmp_path / "a.mp4", times_at(25, COUNT, start=480), audio=audio))
    assert numbers == list(range(COUNT))
    assert found == times_at(25, COUNT)


@pytest.mark.parametrize("codec_options", [{}, {"preset": "medium", "bf": "3"}])
def test_frames_that_an_edit_list_hides_are_not_shown(tmp_path: Path, codec_options: dict[str, str]) -> None:
    whole = write_video(tmp_path / "whole.mp4", times_at(25, 40), codec_options=codec_options)
    path = making.hide_beginning(whole, tmp_path / "hidden.mp4", 9)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 40, "the file still counts them"
    _, numbers, found = read(path)
    assert numbers == list(range(9, 40))
    assert found == times_at(25, 31)


def test_a_file_that_says_neither_length_nor_frames(tmp_path: Path) -> None:
    pipe = making.Pipe()
    write_video(pipe, times_at(25, COUNT), container="matroska", options={"live": "1"})
    path = tmp_path / "live.mkv"
    path.write_bytes(pipe.data)
    video, numbers, _ = read(path)
    assert video.seconds() is None
    assert numbers == list(range(COUNT))
    parts = [frame.fraction_read for frame in VideoFile(path).frames()]
    assert all(part is not None for part in parts)
    assert 0 < parts[0] < parts[-1] <= 1, "how far it is can be told from the bytes"  # type: ignore[operator]


@pytest.mark.parametrize(("codec", "name"), [("libvpx-vp9", "a.webm"), ("libx264", "a.mp4")])
def test_odd_sizes(tmp_path: Path, codec: str, name: str) -> None:
    pictures = [numbered(n, 97, 65) for n in range(3)]
    path = write_video(tmp_path / name, times_at(25, 3), pictures, codec=codec, pixels="yuv444p")
    for frame, picture in zip(VideoFile(path).frames(), pictures, strict=True):
        assert frame.picture().shape == (65, 97, 3)
        assert np.abs(frame.picture().astype(int) - picture).mean() < 4


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_rotation_in_the_metadata_is_undone(tmp_path: Path, angle: int) -> None:
    upright = np.full((96, 64, 3), 40, np.uint8) if angle % 180 else np.full((64, 96, 3), 40, np.uint8)
    upright[:20, :20] = (230, 40, 40)  # red: top left
    upright[:20, -20:] = (40, 230, 40)  # green: top right
    stored = np.rot90(upright, -angle // 90)  # what a camera held sideways records
    path = write_video(tmp_path / "a.mp4", [0, 40], [stored, stored], rotation=angle)
    with av.open(str(path)) as container:  # the file says what was meant, in the words of FFmpeg
        assert next(container.decode(video=0)).rotation in (angle, angle - 360)
    found = next(VideoFile(path).frames()).picture()
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 6


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_display_matrices_move_pixels_where_they_say(turns: int, mirrored: bool) -> None:
    picture = np.arange(6).reshape(2, 3)
    made = np.rot90(picture[:, ::-1] if mirrored else picture, turns)
    # the matrix by its definition: where the directions right and down of the stored picture point when shown
    x, y = {0: ((1, 0), (0, 1)), 1: ((0, -1), (1, 0)), 2: ((-1, 0), (0, -1)), 3: ((0, 1), (-1, 0))}[turns]
    if mirrored:
        x = (-x[0], -x[1])
    corner = np.argwhere(made == 0)[0][::-1]
    assert tuple(np.argwhere(made == 1)[0][::-1] - corner) == x
    assert tuple(np.argwhere(made == 3)[0][::-1] - corner) == y
    assert orientation_from_matrix(*x, *y) == (turns, mirrored)


def test_colours_of_a_tagged_video_are_its_own(tmp_path: Path) -> None:
    picture = np.full((64, 96, 3), (200, 60, 40), np.uint8)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.options = {"crf": "4", "colorprim": "bt709", "colormatrix": "bt709"}
        stream.codec_context.colorspace = 1
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    found = next(VideoFile(path).frames()).picture()
    assert np.abs(found.astype(int) - picture).max() <= 4


def _cut(path: Path) -> None:
    pipe = making.Pipe()
    write_video(pipe, times_at(25, COUNT), container="matroska", options={"live": "1"})
    path.write_bytes(pipe.data[: len(pipe.data) // 2])


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=48000)
        sound.layout = "mono"
        making.write_silence(out, sound, 200)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(b""), "not a readable video"),
        (lambda path: path.write_bytes(b"\x00" * 5000), "not a readable video"),
        (lambda path: path.write_text("hello"), "not a readable video"),
        (_audio_only, "no video in it, only audio"),
        (lambda path: None, "not a readable video"),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, write: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "a.mp4"
    write(path)
    with pytest.raises(InputError, match=said) as caught:
        list(VideoFile(path).frames())
    assert str(path) in str(caught.value)


def test_a_file_cut_in_the_middle_gives_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "cut.mkv"
    _cut(path)
    _, numbers, _ = read(path)
    assert numbers == list(range(len(numbers)))
    assert 1 <= len(numbers) < COUNT
