"""Textured OBJ files that keep the head model's vertices, their order, and its own texture index."""

from pathlib import Path

import numpy as np

from flame_fitting.avatar.normals import angle_weighted_normals
from flame_fitting.capture.pictures import write_png
from flame_fitting.files import atomic_write


def write_obj(
    path: Path | str,
    vertices: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray | None = None,
    uv_faces: np.ndarray | None = None,
    texture: np.ndarray | str | None = None,
    material: str = "head",
    mtl: str | None = None,
) -> list[Path]:
    """Writes an OBJ with normals, smooth throughout, and a MTL where there is a texture; returns the files written.

    Args:
        vertices: (V, 3), written in this order.
        faces: (F, 3).
        uv: (VT, 2), origin at the picture's bottom left; left out together with `uv_faces`.
        uv_faces: (F, 3), row for row with `faces`.
        texture: (R, R, 3) uint8 sRGB, written beside the OBJ as <stem>.png; or the file name of a picture that is
            already there.
        mtl: file name of a MTL that is already there, or will be: none is written.
    """
    path = Path(path)
    lines = ["# flame-fitting"]
    written = []
    has_uv = uv is not None and uv_faces is not None and len(uv) > 0
    if texture is not None and has_uv:
        picture = texture if isinstance(texture, str) else f"{path.stem}.png"
        if not isinstance(texture, str):
            with atomic_write(path.with_name(picture)) as temporary:
                write_png(temporary, np.ascontiguousarray(texture))
            written.append(path.with_name(picture))
        if mtl is None:
            mtl = f"{path.stem}.mtl"
            write_mtl(path.with_name(mtl), picture, material)
            written.append(path.with_name(mtl))
        lines += [f"mtllib {mtl}"]
    points = np.asarray(vertices, dtype=np.float64)
    number = f"{{:.{_digits(points)}g}}"
    lines += [f"v {number} {number} {number}".format(*row) for row in points.tolist()]
    lines += [
        "vn {:.6f} {:.6f} {:.6f}".format(*row) for row in angle_weighted_normals(points, np.asarray(faces)).tolist()
    ]
    corners = np.asarray(faces, dtype=np.int64) + 1
    if has_uv:
        lines += ["vt {:.7g} {:.7g}".format(*row) for row in np.asarray(uv, dtype=np.float64).tolist()]
        lines += [f"usemtl {material}"] if texture is not None else []
        lines += ["s 1"]
        both = np.stack([corners, np.asarray(uv_faces, dtype=np.int64) + 1, corners], axis=-1).reshape(-1, 9)
        lines += ["f {}/{}/{} {}/{}/{} {}/{}/{}".format(*row) for row in both.tolist()]
    else:
        lines += ["s 1"]
        both = np.stack([corners, corners], axis=-1).reshape(-1, 6)
        lines += ["f {}//{} {}//{} {}//{}".format(*row) for row in both.tolist()]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path, *written]


def write_mtl(path: Path, picture: str, material: str = "head") -> None:
    """Writes the material that an OBJ refers to: a texture without gloss."""
    with atomic_write(path) as temporary:
        text = f"newmtl {material}\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd {picture}\n"
        temporary.write_text(text, encoding="utf-8")


def _digits(points: np.ndarray) -> int:
    """Significant digits that keep nine of the mesh's own extent, however far from the origin it lies."""
    extent, reach = np.ptp(points, axis=0).max(initial=0.0), np.abs(points).max(initial=0.0)
    return 9 if extent <= 0 else min(17, 9 + max(0, int(np.ceil(np.log10(reach / extent)))))
