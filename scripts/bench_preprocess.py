"""Preprocessing a video: frames per second with and without matting, how good the matting is, and peak memory.

    python scripts/bench_preprocess.py VIDEO                    a person before a white background
    python scripts/bench_preprocess.py VIDEO --pictures DIR     also writes some alpha maps, enlarged at the borders

The white background is found by a flood fill from the picture's border. The person is put before a second, cluttered
background, drawn here, and that video is preprocessed with `--matting-method selfie`. Printed is the intersection over
union of alpha above one half with the flood fill's outline, and how much alpha flickers: its mean change along
the motion where it is neither 0 nor 1. Peak memory is that of a process of its own, at the video's length
and with the video three times in a row. CPU milliseconds hold the start of the process and the loading of models;
unlike pictures per second they say little of who else works on the machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from flame_fitting import progress
from flame_fitting.video.decoding import VideoFile

HALO = 4
"""How far, in px, the near-white rim that compression leaves around a person goes in."""


def outline(picture: np.ndarray, tolerance: int = 8) -> np.ndarray:
    """Where a picture (H, W, 3) does not show the white background, bool (H, W): a flood fill from the border."""
    bordered = cv2.copyMakeBorder(picture, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    mask = np.zeros((bordered.shape[0] + 2, bordered.shape[1] + 2), np.uint8)
    steps = (tolerance,) * 3
    cv2.floodFill(bordered, mask, (0, 0), 0, steps, steps, 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY)
    return mask[2:-2, 2:-2] == 0


def without_halo(picture: np.ndarray) -> np.ndarray:
    """The outline less the near-white rim around it, bool (H, W). A white collar stays."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * HALO + 1, 2 * HALO + 1))
    near = cv2.dilate((~outline(picture)).astype(np.uint8), kernel) > 0
    return outline(picture, 40) | ~near


def clutter(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A background (H, W, 3) with colours, edges and texture everywhere."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32) + rng.uniform(60, 200, 3).astype(np.float32)
    for cells in (4, 8, 16, 32, 64):
        noise = rng.normal(0, 28, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(120):
        color = [int(v) for v in rng.integers(0, 255, 3)]
        x, y, x2, y2 = (int(v) for v in rng.integers(0, (width, height, width, height)))
        w, h, kind = int(rng.integers(5, width // 5)), int(rng.integers(5, height // 5)), rng.integers(3)
        if kind == 0:
            cv2.rectangle(picture, (x, y), (x + w, y + h), color, -1, cv2.LINE_AA)
        elif kind == 1:
            cv2.circle(picture, (x, y), w // 2, color, -1, cv2.LINE_AA)
        else:
            cv2.line(picture, (x, y), (x2, y2), color, int(rng.integers(1, 5)), cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), 0.8)


def before(picture: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The person of a picture with a white background, before another one."""
    soft = cv2.GaussianBlur(without_halo(picture).astype(np.float32), (0, 0), 0.7)[..., None]
    return (soft * picture + (1 - soft) * background).astype(np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / max(1, (a | b).sum()))


def write_cluttered(video: Path, path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Writes the video with another background; returns both outlines of every frame."""
    outlines = []
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        for number, frame in enumerate(VideoFile(video).frames()):
            picture = frame.picture()
            if number == 0:
                background = clutter(*picture.shape[:2])
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "16", "preset": "veryfast"}
            outlines.append((outline(picture), without_halo(picture)))
            made = av.VideoFrame.from_ndarray(before(picture, background), format="rgb24")
            made.pts, made.time_base = number, Fraction(1, 25)
            for packet in stream.encode(made):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return outlines


def write_repeated(video: Path, path: Path, times: int) -> None:
    """The video so many times in a row, encoded as it is."""
    with av.open(str(path), "w") as out:
        copy, offset = None, 0
        for _ in range(times):
            with av.open(str(video)) as given:
                stream = given.streams.video[0]
                copy = copy or out.add_stream_from_template(stream)
                end = offset
                for packet in given.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, copy
                    end = max(end, packet.pts + (packet.duration or 0))
                    out.mux(packet)
                offset = end


def measured(video: Path, *flags: str) -> tuple[float, float, float, int]:
    """Seconds without loading models, CPU seconds of the process, peak MiB and pictures; in a process of its own."""
    code = (
        "import json, resource, sys\n"
        "from flame_fitting.manifest import read_manifest\n"
        "from flame_fitting import cli\n"
        "from flame_fitting.video.sources import find_sequence\n"
        f"assert cli.main(['preprocess', '--quiet', '--input', {str(video)!r}, *{list(flags)!r}]) == 0\n"
        f"manifest = read_manifest(find_sequence({str(video)!r}).folder)\n"
        "pictures = sum(clip['pictures'] for clip in manifest.result['clips'].values())\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024\n"
        "print(json.dumps([manifest.seconds['total'], cpu, peak, pictures]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, cpu, peak, pictures = json.loads(done.stdout.splitlines()[-1])
    return seconds, cpu, peak, pictures


def flicker(pictures: list[np.ndarray], alphas: list[np.ndarray]) -> float:
    """Mean change of alpha along the motion, in 1/255, where it is neither 0 nor 1."""
    from flame_fitting.video.steadying import motion

    changes = []
    grays = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    for n in range(1, len(alphas)):
        flow = motion(grays[n], grays[n - 1], grays[n].shape)
        y, x = np.mgrid[: grays[n].shape[0], : grays[n].shape[1]].astype(np.float32)
        carried = cv2.remap(alphas[n - 1].astype(np.float32), x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
        border = (alphas[n] > 5) & (alphas[n] < 250)
        changes.append(np.abs(alphas[n] - carried)[border].mean())
    return float(np.mean(changes))


def matting_table(cluttered: Path, outlines: list[tuple[np.ndarray, np.ndarray]], pictures: Path | None) -> list[str]:
    """Lines about the alpha maps that were written beside a video."""
    from flame_fitting.files import read_picture

    folder = cluttered.with_suffix("")
    alphas = [read_picture(path, "L", "") for path in sorted((folder / "alpha_maps").glob("*.png"))]
    shown = [read_picture(path, "RGB", "") for path in sorted((folder / "images").glob("*.jpg"))]
    assert len(alphas) == len(shown) == len(outlines)
    lines = []
    for name, which in (("flood fill", 0), ("flood fill less its white rim", 1)):
        values = [iou(alpha > 127, both[which]) for alpha, both in zip(alphas, outlines, strict=True)]
        lines.append(f"IoU, {name:<30} mean {np.mean(values):.4f}  worst {np.min(values):.4f}")
    lines.append(f"flicker of alpha at the border, 1/255          {flicker(shown, alphas):.2f}")
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for number in np.linspace(0, len(alphas) - 1, 4).astype(int):
            write_enlarged(pictures / f"alpha_{number:04d}.png", shown[number], alphas[number])
    return lines


def write_enlarged(path: Path, picture: np.ndarray, alpha: np.ndarray, side: int = 150, times: int = 3) -> None:
    """Picture, alpha and picture on white, enlarged at the top of the head and at a shoulder."""
    share = alpha[..., None] / 255.0
    white = (picture * share + 255 * (1 - share)).astype(np.uint8)
    columns = np.nonzero((alpha > 127).any(axis=0))[0]
    rows = np.nonzero((alpha > 127).any(axis=1))[0]
    middle = (columns.min() + columns.max()) // 2
    corners = [(max(0, rows.min() - 20), max(0, middle - 120)), (int(0.6 * len(alpha)), max(0, columns.max() - side))]
    strips = []
    for y, x in corners:
        parts = [p[y : y + side, x : x + side] for p in (picture, np.repeat(alpha[..., None], 3, 2), white)]
        size = (times * side, times * side)
        strips.append(np.hstack([cv2.resize(p, size, interpolation=cv2.INTER_NEAREST) for p in parts]))
    cv2.imwrite(str(path), np.vstack(strips)[..., ::-1])


def main() -> None:
    """Runs everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder for enlarged alpha maps")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it begins; {arguments.video.name}")
    with tempfile.TemporaryDirectory() as folder, progress.quiet():
        cluttered = Path(folder) / "cluttered.mp4"
        started = time.perf_counter()
        outlines = write_cluttered(arguments.video, cluttered)
        print(f"{len(outlines)} frames put before clutter in {time.perf_counter() - started:.0f} s\n", flush=True)
        three = Path(folder) / "three_times.mp4"
        write_repeated(cluttered, three, 3)
        print(f"{'':<34}{'pictures':>9}{'per second':>12}{'CPU ms each':>13}{'peak MiB':>10}")
        for name, video, flags in (
            ("pictures alone", cluttered, ()),
            ("pictures alone, three times", three, ()),
            ("pictures, and at half the size", cluttered, ("--downsample-scales", "2")),
            ("pictures and selfie", cluttered, ("--matting-method", "selfie")),
            ("pictures and selfie, three times", three, ("--matting-method", "selfie")),
        ):
            seconds, cpu, peak, count = measured(video, *flags)
            print(f"{name:<34}{count:>9}{count / seconds:>12.1f}{1000 * cpu / count:>13.0f}{peak:>10.0f}", flush=True)
        print("\n" + "\n".join(matting_table(cluttered, outlines, arguments.pictures)))


if __name__ == "__main__":
    main()
