"""Contact sheets of a head model: turns, identity and expression components, poses, regions. Any head file.

python scripts/show_head.py --head open --output output/head_sheets
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.mesh import render_mesh

LIGHT = np.array([0.3, 0.5, 0.8]) / np.linalg.norm([0.3, 0.5, 0.8])
FOV = 14.0


class Sheet:
    """Pictures in rows, each with a label."""

    def __init__(self, head: HeadModel, size: int) -> None:
        self.head, self.size = head, size
        self.rasterizer = make_rasterizer("cpu")
        self.pictures: list[Image.Image] = []
        self.texture = None
        if head.texture is not None and head.has_uv:
            self.texture = torch.as_tensor(head.texture / 255.0, dtype=torch.float32)[None]

    def add(
        self,
        label: str,
        yaw: float = 0.0,
        pitch: float = 0.0,
        width: float = 0.36,
        center: tuple[float, float, float] = (0.0, -0.03, -0.05),
        region: str | None = None,
        **parameters: object,
    ) -> None:
        """Renders one picture; yaw and pitch in degrees, width of the view in metres."""
        tensors = {k: torch.as_tensor(np.asarray(v), dtype=torch.float32) for k, v in parameters.items()}
        vertices = self.head(**tensors).vertices
        target = np.array(center)
        y, p = np.radians([yaw, pitch])
        away = np.array([np.sin(y) * np.cos(p), np.sin(p), np.cos(y) * np.cos(p)])
        distance = width / 2 / np.tan(np.radians(FOV / 2))
        camera = look_at(target + distance * away, target, np.array([0.0, 1.0, 0.0]))
        double = 2 * self.size
        options: dict = {}
        if region is not None:
            color = torch.full((1, self.head.n_vertices, 3), 0.8)
            color[0, self.head.regions[region]] = torch.tensor([0.9, 0.15, 0.15])
            options = {"vertex_colors": color}
        elif self.texture is not None:
            options = {"uv": self.head.uv, "uv_faces": self.head.uv_faces, "texture": self.texture}
        else:
            options = {"vertex_colors": torch.full((1, self.head.n_vertices, 3), 0.8)}
        with torch.no_grad():
            buffers = render_mesh(
                self.rasterizer,
                vertices,
                self.head.faces,
                torch.as_tensor(intrinsics_from_fov(FOV, double, double), dtype=torch.float32)[None],
                torch.as_tensor(camera, dtype=torch.float32)[None],
                (double, double),
                cull=False,
                filter_mode="linear",
                **options,
            )
        shade = 0.35 + 0.65 * np.abs(buffers["normal"][0].numpy() @ LIGHT)[..., None]
        alpha = buffers["alpha"][0].numpy()
        picture = buffers["color"][0].numpy() * shade + (1 - alpha)
        picture = picture.reshape(self.size, 2, self.size, 2, 3).mean((1, 3))
        image = Image.fromarray(to_uint8(picture))
        ImageDraw.Draw(image).text((4, 3), label, fill=(0, 0, 0))
        self.pictures.append(image)

    def save(self, path: Path, columns: int) -> None:
        """Writes the pictures as one PNG and forgets them."""
        rows = -(-len(self.pictures) // columns)
        sheet = Image.new("RGB", (columns * self.size, rows * self.size), "white")
        for i, picture in enumerate(self.pictures):
            sheet.paste(picture, ((i % columns) * self.size, (i // columns) * self.size))
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
        self.pictures = []
        print(path)


def one(count: int, k: int, value: float) -> np.ndarray:
    out = np.zeros(count)
    out[k] = value
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", default="open", help="open, or the path of a FLAME-format .npz file")
    parser.add_argument("--output", type=Path, default=Path("output/head_sheets"))
    parser.add_argument("--size", type=int, default=220, help="px of one picture")
    parser.add_argument("--components", type=int, default=10, help="identity components shown")
    args = parser.parse_args()
    head = load_head(args.head)
    sheet = Sheet(head, args.size)

    for yaw, pitch in ((0, 0), (35, 0), (60, 0), (90, 0), (180, 0), (0, -30)):
        sheet.add(f"yaw {yaw} pitch {pitch}", yaw, pitch)
    sheet.save(args.output / "turns.png", 3)
    for k in range(min(args.components, head.n_shape)):
        for value in (-2.0, 2.0):
            for yaw in (0, 70):
                sheet.add(f"shape {k}: {value:+.0f}", yaw, shape=one(head.n_shape, k, value))
    sheet.save(args.output / "shape.png", 8)
    for k in range(head.n_expr):
        for value in (-2.0, 2.0):
            sheet.add(f"expr {k}: {value:+.0f}", 15, width=0.24, expr=one(head.n_expr, k, value)[None])
    sheet.save(args.output / "expression.png", 12)
    for angle in (0.1, 0.2, 0.35):
        for yaw in (0, 60):
            sheet.add(f"jaw {angle}", yaw, width=0.26, jaw_pose=[[angle, 0, 0]])
    close = {"width": 0.13, "center": (0.0, 0.035, 0.0)}
    for x, y in ((0, 0.4), (0, -0.4), (-0.3, 0), (0.3, 0)):
        sheet.add(f"eyes {x} {y}", eyes_pose=[[x, y, 0, x, y, 0]], **close)  # type: ignore[arg-type]
    for neck in ((0.4, 0, 0), (-0.4, 0, 0), (0, 0.6, 0), (0, 0, 0.4)):
        sheet.add(f"neck {neck}", 30, neck_pose=[neck])
    sheet.save(args.output / "pose.png", 7)
    for name in sorted(head.regions):
        yaw = 110 if name in ("scalp", "hair") else 180 if name.startswith("back") else -60 if "right" in name else 35
        near = any(word in name for word in ("lip", "eye", "iris", "sclera", "nose"))
        opened = {"jaw_pose": [[0.2, 0, 0]]} if "inside" in name or "tight" in name else {}
        place = (0.0, -0.04, 0.0) if "lip" in name else (0.0, 0.02, 0.0)
        view = {"width": 0.13, "center": place} if near else {}
        label = f"{name} {len(head.regions[name])}"
        sheet.add(label, 15 if near else yaw, region=name, **view, **opened)  # type: ignore[arg-type]
    sheet.save(args.output / "regions.png", 8)


if __name__ == "__main__":
    main()
