"""Files of head models, `.npz` or FLAME's own pickles, as validated arrays."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, read_npz, reason, sha256_of_file
from flame_fitting.head.model import HeadData
from flame_fitting.head.pickle_values import SparseColumns
from flame_fitting.head.pickles import read_pickle

FLAME_COUNTS = (5023, 9976)
"""Vertices and triangles of FLAME."""
FLAME_WITH_TEETH = (5143, 10144)
"""The same with VHAP's teeth, which GaussianAvatars binds splats to."""
FLAME_N_SHAPE = 300
"""Identity components in FLAME's shapedirs; the expression components follow."""

_REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
_CACHE_REVISION = 1
_MAX_NPZ_BYTES = 2**31


def read_flame(path: Path | str, name: str | None = None) -> HeadData:
    """A FLAME-format head model from `.pkl` (as FLAME is downloaded) or `.npz`, with the same keys.

    Keys: v_template (V, 3) m, shapedirs (V, 3, S+E) m, posedirs (V, 3, 36) m, J_regressor (5, V) or (V, 5), sparse in
    pickles, weights (V, 5), kintree_table (2, 5) whose root is -1 or 4294967295, f (F, 3). Optional: n_shape, n_expr
    (default 300 and the rest), and in `.npz` uv (VT, 2), uv_faces (F, 3), region_<name> (n,), texture_png (bytes),
    metadata_json. A pickle is converted once and kept in the cache. `name` defaults to the file's.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such head-model file. {assets.HEAD_CHOICES}")
    digest = sha256_of_file(path)
    arrays = _pickled_arrays(path, digest) if path.suffix.lower() == ".pkl" else _npz_arrays(path)
    missing = [key for key in _REQUIRED if key not in arrays]
    if missing:
        raise InputError(f"{path}: not a FLAME-format head model, it lacks {', '.join(missing)}. {assets.HEAD_CHOICES}")
    try:
        data = _head_data(name or path.stem, digest, arrays)
        _check(data)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: not a usable head model: {error}. {assets.HEAD_CHOICES}") from error
    return data


def read_masks(path: Path | str) -> dict[str, np.ndarray]:
    """Vertex ids by region name from `FLAME_masks.pkl` (or an `.npz` with the same names)."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such masks file. Give the path of FLAME_masks.pkl with --flame-masks.")
    content = _npz_arrays(path) if path.suffix.lower() == ".npz" else read_pickle(path)
    masks = {}
    for key, ids in content.items() if isinstance(content, dict) else ():
        ids = np.asarray(ids) if isinstance(ids, (list, tuple, np.ndarray)) else None
        if ids is None or ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise InputError(f"{path}: {key} is no list of vertex ids. Give the path of FLAME_masks.pkl.")
        masks[_text(key)] = ids.astype(np.int64)
    if not masks or any(ids.size and not 0 <= ids.min() <= ids.max() < FLAME_COUNTS[0] for ids in masks.values()):
        raise InputError(f"{path}: holds no vertex masks of FLAME. Give the path of FLAME_masks.pkl.")
    return masks


def has_flame_topology(data: HeadData) -> bool:
    """Whether the mesh has as many vertices and triangles as FLAME."""
    return (len(data.v_template), len(data.faces)) == FLAME_COUNTS


def _npz_arrays(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _MAX_NPZ_BYTES:
            raise ValueError(f"it unpacks to {size / 2**30:.1f} GiB")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"{path}: not a readable .npz file ({reason(error)}). Copy or download it again.") from error
    return read_npz(path, "Copy or download it again.")


def _pickled_arrays(path: Path, digest: str) -> dict[str, Any]:
    """The arrays of a pickle, from the cache where it was converted before."""
    key = hashlib.sha256(f"{_CACHE_REVISION} {digest}".encode()).hexdigest()[:24]
    cached = assets.cache_dir() / "heads" / f"{key}.npz"
    if cached.is_file():
        try:
            return _npz_arrays(cached)
        except InputError:
            cached.unlink(missing_ok=True)
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a FLAME-format head model, it holds no arrays by name. {assets.HEAD_CHOICES}")
    arrays = {_text(key): value for key, value in content.items()}
    arrays = {key: arrays[key] for key in (*_REQUIRED, "n_shape", "n_expr") if key in arrays}
    try:
        for key, value in arrays.items():
            arrays[key] = value.toarray() if isinstance(value, SparseColumns) else np.asarray(value)
            if arrays[key].dtype.kind not in "biuf":
                raise ValueError(f"{key} holds no numbers")
            if key in ("shapedirs", "posedirs"):
                arrays[key] = arrays[key].astype(np.float32)
    except ValueError as error:
        raise InputError(f"{path}: not a usable head model: {error}. {assets.HEAD_CHOICES}") from error
    try:
        with atomic_write(cached) as temporary:
            np.savez(temporary, **arrays)
    except OSError:
        pass  # a cache that cannot be written costs a second next time, no more
    return arrays


def _text(key: Any) -> str:
    """Keys of pickles that were read with encoding="bytes" and written again are bytes."""
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _head_data(name: str, digest: str, arrays: dict[str, Any]) -> HeadData:
    directions = np.asarray(arrays["shapedirs"], dtype=np.float32)
    if directions.ndim != 3:
        raise ValueError(f"shapedirs has shape {directions.shape}, (V, 3, components) is expected")
    held = directions.shape[-1]
    n_shape = int(arrays.get("n_shape", min(FLAME_N_SHAPE, held)))
    n_expr = int(arrays.get("n_expr", held - n_shape))
    if n_shape < 0 or n_expr < 0 or n_shape + n_expr > held:
        raise ValueError(f"n_shape {n_shape} and n_expr {n_expr} for {held} components")
    vertices = np.asarray(arrays["v_template"], dtype=np.float64)
    regressor = np.asarray(arrays["J_regressor"], dtype=np.float64)
    if regressor.ndim == 2 and regressor.shape[0] == len(vertices) != regressor.shape[1]:
        regressor = regressor.T
    metadata = json.loads(str(arrays["metadata_json"])) if "metadata_json" in arrays else {}
    return HeadData(
        name=name,
        file_hash=digest,
        v_template=vertices,
        faces=_indices(arrays["f"], "f"),
        shapedirs=directions[..., :n_shape],
        exprdirs=directions[..., n_shape : n_shape + n_expr],
        posedirs=np.asarray(arrays["posedirs"], dtype=np.float32),
        J_regressor=np.ascontiguousarray(regressor),
        parents=_parents(arrays["kintree_table"]),
        weights=np.asarray(arrays["weights"], dtype=np.float64),
        uv=np.asarray(arrays["uv"], dtype=np.float32) if "uv" in arrays else None,
        uv_faces=_indices(arrays["uv_faces"], "uv_faces") if "uv_faces" in arrays else None,
        regions={key[7:]: _indices(arrays[key], key) for key in arrays if key.startswith("region_")},
        texture=_decode_texture(arrays["texture_png"]) if "texture_png" in arrays else None,
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def _indices(array: Any, name: str) -> np.ndarray:
    array = np.asarray(array)
    if array.size and (array.dtype.kind not in "iuf" or not np.array_equal(array, np.round(array))):
        raise ValueError(f"{name} holds no indices")
    return array.astype(np.int64)


def _parents(table: Any) -> list[int]:
    """Parent of every joint, -1 for the root: FLAME has 2^32 - 1 there."""
    table = np.asarray(table)
    if table.ndim != 2 or len(table) != 2:
        raise ValueError(f"kintree_table has shape {table.shape}, (2, joints) is expected")
    parents = [int(parent) for parent in table[0]]
    if not parents or parents[0] not in (-1, 2**32 - 1, 2**64 - 1, 0):
        raise ValueError("kintree_table does not begin with the root")
    parents[0] = -1
    if not all(0 <= parent < joint for joint, parent in enumerate(parents) if joint):
        raise ValueError("kintree_table names a parent that does not come before its joint")
    return parents


def _decode_texture(encoded: np.ndarray) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded.tobytes())) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"its texture cannot be read ({error})") from error


def _check(data: HeadData) -> None:
    joint_count = len(data.parents)
    if joint_count != 5:
        raise ValueError(f"{joint_count} joints; a head model has 5 (root, neck, jaw, left and right eye)")
    if data.v_template.ndim != 2 or data.v_template.shape[1] != 3 or not len(data.v_template):
        raise ValueError(f"v_template has shape {data.v_template.shape}, (V, 3) is expected")
    vertex_count = len(data.v_template)
    wanted = {
        "shapedirs": (data.shapedirs.shape[:2], (vertex_count, 3)),
        "posedirs": (data.posedirs.shape, (vertex_count, 3, 9 * (joint_count - 1))),
        "J_regressor": (data.J_regressor.shape, (joint_count, vertex_count)),
        "weights": (data.weights.shape, (vertex_count, joint_count)),
    }
    for name, (found, expected) in wanted.items():
        if tuple(found) != expected:
            raise ValueError(f"{name} has shape {tuple(found)}, {expected} is expected for this head model")
    for name in ("v_template", "shapedirs", "exprdirs", "posedirs", "J_regressor", "weights"):
        if not np.isfinite(getattr(data, name)).all():
            raise ValueError(f"{name} holds values that are not finite")
    if np.abs(data.weights.sum(1) - 1).max() > 1e-2:
        raise ValueError("the skinning weights of a vertex do not add up to 1")
    if np.abs(data.J_regressor.sum(1) - 1).max() > 1e-2:
        raise ValueError("a row of J_regressor does not add up to 1")
    if (data.uv is None) != (data.uv_faces is None):
        raise ValueError("it has only one of uv and uv_faces")
    triangle_lists = [("f", data.faces, vertex_count)]
    if data.uv is not None and data.uv_faces is not None:
        triangle_lists.append(("uv_faces", data.uv_faces, len(data.uv)))
        if data.uv_faces.shape != data.faces.shape or data.uv.shape != (len(data.uv), 2):
            raise ValueError("uv and uv_faces do not belong to its triangles")
    for name, triangles, count in triangle_lists:
        if triangles.ndim != 2 or triangles.shape[1] != 3:
            raise ValueError(f"{name} has shape {triangles.shape}, (F, 3) is expected")
        if triangles.size and (triangles.min() < 0 or triangles.max() >= count):
            raise ValueError(f"{name}: triangles name vertices that do not exist")
    for name, ids in data.regions.items():
        if ids.size and (ids.min() < 0 or ids.max() >= vertex_count):
            raise ValueError(f"region {name} names vertices that do not exist")
