"""Texture coordinates of a FLAME head: from a file of FLAME's own layout, or made, once.

FLAME's pickles hold none. A head of FLAME's kind is laid out in a few charts (`flat_map`), any other mesh by xatlas.
The origin is at the picture's bottom left, as in OBJ files.
"""

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, read_npz, reason
from flame_fitting.head.flat_map import flat_map
from flame_fitting.head.model import HeadData

REVISION = 2
"""Of the unwrapping: another number makes cached layouts void."""
RESOLUTION, PADDING = 1024, 6
"""Texels that charts are packed for, and between them."""
USED = 0.95
"""Share of the picture's edge that unwrapped charts fill; teeth have their strip above."""


def flame_uv(
    data: HeadData, template_obj: Path | None = None, texture_npz: Path | None = None
) -> tuple[Float[ndarray, "VT 2"], Int[ndarray, "F 3"]]:
    """UV (VT, 2) and its triangles, row for row with the head's.

    template_obj: `head_template_mesh.obj` or another OBJ with the head's triangles; texture_npz: `FLAME_texture.npz`.
    The first one given is used; without any, the head's own UV, or else one that is made and kept in the cache.
    """
    if template_obj is not None:
        return _from_obj(Path(template_obj), data.faces)
    if texture_npz is not None:
        return _from_texture_file(Path(texture_npz), data.faces)
    if data.uv is not None and data.uv_faces is not None and len(data.uv):
        return data.uv, data.uv_faces
    return _cached(data)


def _from_obj(path: Path, faces: ndarray) -> tuple[ndarray, ndarray]:
    uv: list[list[float]] = []
    corners: list[list[str]] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                word, _, rest = line.partition(" ")
                if word == "vt":
                    uv.append([float(number) for number in rest.split()[:2]])
                elif word == "f":
                    corners.append(rest.split())
        numbers = [[corner.split("/")[:2] for corner in triangle] for triangle in corners]
        if any(len(triangle) != 3 for triangle in numbers):
            raise InputError(f"{path}: not all of its faces are triangles. Give FLAME's own head_template_mesh.obj.")
        table = np.array(numbers, dtype=np.int64).reshape(-1, 3, 2) - 1
        coordinates = np.array(uv, dtype=np.float32).reshape(-1, 2)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(
            f"{path}: an OBJ file with texture coordinates on every triangle is needed ({error}). "
            "Give FLAME's own head_template_mesh.obj."
        ) from error
    if table.shape[:2] != faces.shape or not np.array_equal(table[..., 0], faces):
        raise InputError(
            f"{path}: its {len(table)} triangles are not the head model's {len(faces)}. "
            "Give the head_template_mesh.obj of this model, or take it away: UV is then made."
        )
    return _checked(path, coordinates, table[..., 1], faces)


def _from_texture_file(path: Path, faces: ndarray) -> tuple[ndarray, ndarray]:
    advice = "Give FLAME_texture.npz of FLAME's site."
    arrays = read_npz(path, advice, ("vt", "ft"))
    try:
        uv, uv_faces = arrays["vt"].astype(np.float32), arrays["ft"].astype(np.int64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: vt and ft hold no numbers ({reason(error)}). {advice}") from error
    return _checked(path, uv, uv_faces, faces)


def _checked(path: Path, uv: ndarray, uv_faces: ndarray, faces: ndarray) -> tuple[ndarray, ndarray]:
    """Refuses layouts that cannot belong to these triangles: a UV vertex lies on one vertex of the head."""
    problem = None
    if uv.ndim != 2 or uv.shape[1] != 2 or uv_faces.shape != faces.shape:
        problem = f"UV of shape {uv.shape} on triangles {uv_faces.shape} where the head has {faces.shape}"
    elif uv_faces.size and (uv_faces.min() < 0 or uv_faces.max() >= len(uv)):
        problem = "triangles name texture coordinates that do not exist"
    elif not np.isfinite(uv).all():
        problem = "texture coordinates are not finite"
    else:
        owner = np.full(len(uv), -1)
        owner[uv_faces] = faces
        if (owner[uv_faces] != faces).any():
            problem = "its triangles are not in the order of the head model's"
    if problem is not None:
        raise InputError(f"{path}: {problem}. Give the file of this head model, or take it away: UV is then made.")
    return uv, uv_faces


def _cached(data: HeadData) -> tuple[ndarray, ndarray]:
    shape = np.ascontiguousarray(data.v_template, dtype=np.float32)
    faces = np.ascontiguousarray(data.faces, dtype=np.int64)
    digest = hashlib.sha256(f"{REVISION} {RESOLUTION} {PADDING} {USED} {shape.shape} {faces.shape}".encode())
    digest.update(shape.tobytes())
    digest.update(faces.tobytes())
    path = assets.cache_dir() / "uv" / f"{digest.hexdigest()[:24]}.npz"
    if path.is_file():
        try:
            arrays = read_npz(path, "", ("uv", "uv_faces"))
            return _checked(path, arrays["uv"], arrays["uv_faces"], faces)
        except InputError:
            path.unlink(missing_ok=True)
    uv, uv_faces = flat_map(shape.astype(np.float64), faces) or unwrap(shape, faces)
    try:
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, uv=uv, uv_faces=uv_faces)
    except OSError:
        pass  # It is made again next time.
    return uv, uv_faces


def unwrap(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]
) -> tuple[Float[ndarray, "VT 2"], Int[ndarray, "F 3"]]:
    """Charts by xatlas (https://github.com/jpcy/xatlas) that do not overlap and are not mirrored, in metres."""
    try:
        import xatlas
    except ImportError as error:
        raise InputError(
            "This head model has no texture coordinates and the package xatlas, which makes them, is not installed. "
            "Install it with: pip install xatlas; or give head_template_mesh.obj or FLAME_texture.npz."
        ) from error

    atlas = xatlas.Atlas()
    # In metres its test for empty triangles would drop small ones.
    atlas.add_mesh((1000 * vertices).astype(np.float32), faces.astype(np.uint32))
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.fix_winding = True
    packing.resolution, packing.padding = RESOLUTION, PADDING
    # It rotates by exchanging u and v, which mirrors.
    packing.rotate_charts = False
    atlas.generate(charts, packing)
    origin, uv_faces, uv = atlas[0]
    uv_faces = uv_faces.astype(np.int64)
    if not np.array_equal(origin.astype(np.int64)[uv_faces], faces):
        raise RuntimeError("xatlas changed the order of triangles")
    # One scale for both axes: it divides each by its own length.
    extent = np.array([atlas.width, atlas.height], dtype=np.float64)
    return (uv * (USED * extent / extent.max())).astype(np.float32), uv_faces
