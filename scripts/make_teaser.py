"""Makes asset/teaser.png from a fit: avatar, landmarks, fitted head over the avatar, error map, a new view.

    python scripts/make_teaser.py output/demo/fit

The picture in the README shows the demo avatar, so that no licence but the project's own is on it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from flame_fitting.capture.camera import look_at, project, transform_points
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import picture_as_uint8, to_uint8
from flame_fitting.files import atomic_write
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.sources import open_fit
from flame_fitting.landmarks.files import read_landmarks
from flame_fitting.report.drawing import draw_fit
from flame_fitting.report.error_maps import error_panels
from flame_fitting.report.figures import blend_mesh
from flame_fitting.report.surfaces import visible_surface

ROOT = Path(__file__).resolve().parent.parent
SIDE = 320
CAPTION = 30


def front_view(capture: Capture, fit: FitResult, role: str | None = None) -> View:
    """The view that looks at the face most straight on."""
    views = capture.views_of(role) if role else capture.views  # type: ignore[arg-type]
    centers = np.stack([np.linalg.inv(view.world_to_camera)[:3, 3] for view in views])
    seen = centers @ fit.head_from_world[:3, :3].T + fit.head_from_world[:3, 3]
    return views[int(np.argmax(seen[:, 2] / np.linalg.norm(seen, axis=1)))]


def novel_view(front: View, fit: FitResult, center: ndarray) -> View:
    """A camera of no capture: a bit to the side and above, looking at `center` (3,) in head space."""
    world_from_head = np.linalg.inv(fit.head_from_world)
    eye = transform_points(fit.head_from_world, np.linalg.inv(front.world_to_camera)[:3, 3])
    yaw, pitch = np.radians(38.0), np.radians(8.0)
    toward = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    place = transform_points(world_from_head, center + toward * np.linalg.norm(eye - center)).reshape(3)
    target = transform_points(world_from_head, center).reshape(3)
    return replace(front, world_to_camera=look_at(place, target, world_from_head[:3, 1]))


def landmark_panel(capture: Capture, view: View, detector: str) -> ndarray:
    """The detected points on their picture, (H, W, 3) uint8."""
    found = read_landmarks(capture, detector)
    row, column = capture.timesteps.index(view.timestep), capture.cameras.index(view.camera)
    picture = Image.fromarray(picture_as_uint8(capture.image(view))).convert("RGB")
    draw = ImageDraw.Draw(picture)
    radius = view.width / 320
    for x, y, _ in found.landmarks[row, column]:
        if np.isfinite(x):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(40, 190, 80))
    return np.asarray(picture)


def head_crop(view: View, vertices: ndarray) -> tuple[int, int, int, int]:
    """A square around the head in a view: left, top, right, bottom px."""
    pixels = project(vertices, view.K, view.world_to_camera)[:, :2]
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    half, middle = 0.55 * float((high - low).max()), 0.5 * (low + high)
    left, top = (round(float(value)) for value in middle - half)
    return left, top, left + int(2 * half), top + int(2 * half)


def panel(picture: ndarray, crop: tuple[int, int, int, int] | None, caption: str) -> Image.Image:
    """One captioned square."""
    image = Image.fromarray(picture).convert("RGB")
    if crop is not None:
        canvas = Image.new("RGB", (crop[2] - crop[0], crop[3] - crop[1]), "white")
        canvas.paste(image, (-crop[0], -crop[1]))
        image = canvas
    out = Image.new("RGB", (SIDE, SIDE + CAPTION), "white")
    out.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (0, 0))
    draw, font = ImageDraw.Draw(out), ImageFont.load_default(size=15)
    draw.text((SIDE / 2, SIDE + CAPTION / 2), caption, fill=(40, 40, 40), font=font, anchor="mm")
    return out


def make_teaser(folder: Path) -> Image.Image:
    """The row of panels for a fit."""
    fit, head, capture = open_fit(folder)
    vertices = fit.vertices_world(head)[0]
    head_space = fit.vertices_head(head)[0]
    marked, front = front_view(capture, fit, "landmark"), front_view(capture, fit, "fit")
    side = novel_view(front, fit, 0.5 * (head_space.min(axis=0) + head_space.max(axis=0)))
    over, new = (draw_fit(fit, head, capture, [view])[0] for view in (front, side))
    seen = visible_surface(capture, fit.head_from_world, capture.timesteps[0])
    assert seen is not None, "the capture has no geometry"
    errors = seen.surface.distance(head_space) * 1000
    middle = error_panels(head, head_space, errors, size=SIDE, sides=("front",))["front"]
    panels = [
        panel(picture_as_uint8(capture.image(front)), head_crop(front, vertices), "the avatar"),
        panel(landmark_panel(capture, marked, "mediapipe"), head_crop(marked, vertices), "landmarks"),
        panel(to_uint8(blend_mesh(capture.image(front), over, front)), head_crop(front, vertices), "the head over it"),
        panel(middle, None, "distance, blue 0 to red 3 mm"),
        panel(picture_as_uint8(new.image[0]), head_crop(side, vertices), "the fit in a new view"),
    ]
    row = Image.new("RGB", (len(panels) * SIDE, SIDE + CAPTION), "white")
    for number, part in enumerate(panels):
        row.paste(part, (number * SIDE, 0))
    return row


def main() -> None:
    """Reads the command line and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fit", type=Path, nargs="?", default=ROOT / "output" / "demo" / "fit")
    parser.add_argument("--output", type=Path, default=ROOT / "asset" / "teaser.png")
    arguments = parser.parse_args()
    picture = make_teaser(arguments.fit)
    with atomic_write(arguments.output) as temporary:
        picture.quantize(192).save(temporary, "PNG", optimize=True)
    print(arguments.output)


if __name__ == "__main__":
    main()
