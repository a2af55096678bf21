"""Head-model files: FLAME-format `.npz` in, `HeadModel` out."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file
from flame_fitting.head.model import HeadData, HeadModel

_REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")


def resolve_head(spec: str) -> tuple[str, Path]:
    """Name and file of a head model: `open`, or the path of a FLAME-format .npz file."""
    if spec == "open":
        return "open", assets.open_head_path()
    path = Path(spec)
    if path.suffix != ".npz":
        raise InputError(f"{spec}: not a known head model. Use --head open or the path of a FLAME-format .npz file.")
    return path.stem, path


def head_identity(spec: str) -> dict[str, str]:
    """Name and file hash of a head model, without reading its arrays."""
    name, path = resolve_head(spec)
    if not path.is_file():
        raise InputError(f"{path}: no such head-model file. Give --head open or the path of a FLAME-format .npz file.")
    return {"name": name, "sha256": sha256_of_file(path)}


def load_head(spec: str = "open") -> HeadModel:
    """The head model `spec` (see `resolve_head`), float32, on the CPU."""
    name, path = resolve_head(spec)
    return HeadModel(read_head_file(path, name))


def read_head_file(path: Path, name: str) -> HeadData:
    """Reads and checks a FLAME-format .npz file.

    Keys: v_template (V, 3), shapedirs (V, 3, S+E), posedirs (V, 3, P), J_regressor (J, V), weights (V, J),
    kintree_table (2, J), f (F, 3); optional n_shape, n_expr (default 300 and the rest), uv (VT, 2), uv_faces (F, 3),
    region_<name> (n,), texture_png (bytes), metadata_json.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such head-model file. Give --head open or the path of a FLAME-format .npz file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable .npz file ({error}).") from error
    missing = [key for key in _REQUIRED if key not in arrays]
    if missing:
        raise InputError(f"{path}: not a FLAME-format head model, it lacks {', '.join(missing)}.")

    vertex_count = len(arrays["v_template"])
    directions = arrays["shapedirs"].astype(np.float32)
    n_shape = int(arrays.get("n_shape", min(300, directions.shape[-1])))
    n_expr = int(arrays.get("n_expr", directions.shape[-1] - n_shape))
    parents = arrays["kintree_table"][0].astype(np.int64)
    parents[0] = -1
    data = HeadData(
        name=name,
        file_hash=sha256_of_file(path),
        v_template=arrays["v_template"].astype(np.float64),
        faces=arrays["f"].astype(np.int64),
        shapedirs=directions[..., :n_shape],
        exprdirs=directions[..., n_shape : n_shape + n_expr],
        posedirs=arrays["posedirs"].astype(np.float32),
        J_regressor=arrays["J_regressor"].astype(np.float64),
        parents=[int(p) for p in parents],
        weights=arrays["weights"].astype(np.float64),
        uv=arrays["uv"].astype(np.float32) if "uv" in arrays else None,
        uv_faces=arrays["uv_faces"].astype(np.int64) if "uv_faces" in arrays else None,
        regions={key[7:]: arrays[key].astype(np.int64) for key in arrays if key.startswith("region_")},
        texture=_decode_texture(path, arrays["texture_png"]) if "texture_png" in arrays else None,
        metadata=json.loads(str(arrays["metadata_json"])) if "metadata_json" in arrays else {},
    )
    _check(path, data, vertex_count)
    return data


def _decode_texture(path: Path, encoded: np.ndarray) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded.tobytes())) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise InputError(f"{path}: its texture cannot be read ({error}).") from error


def _check(path: Path, data: HeadData, vertex_count: int) -> None:
    joint_count = len(data.parents)
    wanted = {
        "shapedirs": (data.shapedirs.shape[:2], (vertex_count, 3)),
        "posedirs": (data.posedirs.shape, (vertex_count, 3, 9 * (joint_count - 1))),
        "J_regressor": (data.J_regressor.shape, (joint_count, vertex_count)),
        "weights": (data.weights.shape, (vertex_count, joint_count)),
    }
    for name, (found, expected) in wanted.items():
        if tuple(found) != expected:
            raise InputError(f"{path}: {name} has shape {tuple(found)}, {expected} is expected for this head model.")
    if joint_count != 5:
        raise InputError(f"{path}: {joint_count} joints; a head model has 5 (root, neck, jaw, left and right eye).")
    if data.faces.size and (data.faces.min() < 0 or data.faces.max() >= vertex_count):
        raise InputError(f"{path}: triangles name vertices that do not exist.")
    for name, ids in data.regions.items():
        if ids.size and (ids.min() < 0 or ids.max() >= vertex_count):
            raise InputError(f"{path}: region {name} names vertices that do not exist.")
