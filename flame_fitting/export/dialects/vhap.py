"""VHAP, GaussianAvatars and this program's own fits.

`tracked_flame_params.npz` holds a sequence, `flame_param/<t:05d>.npz` and `canonical_flame_param.npz` one timestep.
Keys: shape (300,), expr (T, 100), rotation, translation, neck_pose, jaw_pose (T, 3), eyes_pose (T, 6), static_offset
(1, V, 3), dynamic_offset (T, V, 3). The rotation is about the root joint, the translation is added after posing.
Fits of this program may have eyelids (T, 2) beside them, in metrical-tracker's order, which others ignore.

VHAP has no scale; where there is one it is written as `scale` (1,), which this program reads and others ignore.
Fits of this program also have head_from_world (4, 4), which leads from the avatar to these parameters' world, and
head_model (name, SHA-256).

The conventions are this project's own (docs/conventions.md), which follow VHAP's files.
"""

from pathlib import Path

import numpy as np

from flame_fitting.export.dialects.dialect import npz_dialect
from flame_fitting.export.dialects.npz import Arrays, write_npz
from flame_fitting.export.dialects.parameters import FlameParams, checked_eyelids, make_params
from flame_fitting.fit.parameters import POSES

_BOOKKEEPING = {"timestep_id", "n_processed_frames", "image_size", "head_model", "head_identity", "scale_source"}
_KNOWN = {"shape", "expr", "scale", "static_offset", "dynamic_offset", "eyelids", *POSES, *_BOOKKEEPING}
CANONICAL_JAW = 0.3
"""rad: the mouth of the canonical head is slightly open."""


def read(arrays: Arrays) -> FlameParams:
    """See the module."""
    scale, model, ids = arrays.get("scale"), arrays.get("head_model"), arrays.get("timestep_id")
    identity = arrays.get("head_identity")
    params = make_params(
        str(arrays.path),
        shape=arrays["shape"],
        expr=arrays["expr"],
        poses={name: arrays.get(name) for name in POSES},
        scale=1.0 if scale is None else float(scale.reshape(-1)[0]),
        static_offset=arrays.offsets("static_offset"),
        dynamic_offset=arrays.offsets("dynamic_offset"),
        eyelids=checked_eyelids(str(arrays.path), arrays.get("eyelids")),
        head_model=None if model is None else (str(model[0]), str(model[1])),
        head_identity=str(identity) if identity is not None else "",
        extras={name: arrays[name] for name in sorted(arrays.names - _KNOWN)},
    )
    # VHAP lists every timestep of the data set there, also those that it left out
    if ids is not None and len(np.atleast_1d(ids)) == params.count:
        params.timestep_id = [str(name) for name in np.atleast_1d(ids)]
    return params


def write(params: FlameParams, path: Path) -> None:
    """A sequence as one file."""
    arrays = _arrays(params)
    if params.timestep_id:
        arrays["timestep_id"] = np.array(params.timestep_id)
        arrays["n_processed_frames"] = np.array(len(params.timestep_id))
    write_npz(path, arrays)


def write_folder(params: FlameParams, folder: Path) -> None:
    """`flame_param/<t:05d>.npz` and `canonical_flame_param.npz`, as GaussianAvatars reads them."""
    for timestep in range(params.count):
        arrays = _arrays(params.at(timestep))
        arrays.pop("head_from_world", None)
        write_npz(folder / "flame_param" / f"{timestep:05d}.npz", arrays)
    first = _arrays(params.at(0))
    canonical = {name: np.zeros_like(first[name]) for name in (*POSES, "expr")}
    canonical |= {
        name: first[name] for name in ("shape", "static_offset", "head_model", "head_identity") if name in first
    }
    canonical["jaw_pose"] = np.array([[CANONICAL_JAW, 0.0, 0.0]])
    write_npz(folder / "canonical_flame_param.npz", canonical)


def _arrays(params: FlameParams) -> dict[str, np.ndarray]:
    arrays = {name: getattr(params, name) for name in ("shape", "expr", *POSES)}
    for name in ("static_offset", "dynamic_offset", "eyelids"):
        value = getattr(params, name)
        if value is not None:
            arrays[name] = value
    if params.scale != 1:
        arrays["scale"] = np.array([params.scale])
    if params.head_model is not None:
        arrays["head_model"] = np.array(params.head_model)
    if params.head_identity:
        arrays["head_identity"] = np.array(params.head_identity)
    return arrays | params.extras


DIALECT = npz_dialect(
    "vhap",
    read,
    write,
    {"rotation", "translation", "neck_pose", "scale", "static_offset", "dynamic_offset", "eyelids"},
    [{"shape", "expr", *POSES}],
    knows=_BOOKKEEPING,
    n_shape=300,
    n_expr=100,
    flame="flame2023",
)
