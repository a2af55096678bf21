"""A small model with all that FLAME's files have, for tests of files; and FLAME's counts where they matter."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.toy import toy_head_data


def flame_arrays(n_shape: int = 6, n_expr: int = 4) -> dict[str, Any]:
    """The arrays of a FLAME-format file, of the toy head."""
    data = toy_head_data(n_shape, n_expr)
    return {
        "v_template": data.v_template,
        "f": data.faces.astype(np.uint32),
        "shapedirs": np.concatenate([data.shapedirs, data.exprdirs], axis=2),
        "posedirs": data.posedirs,
        "J_regressor": data.J_regressor,
        "weights": data.weights,
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.uint32),
        "n_shape": np.array(n_shape),
        "n_expr": np.array(n_expr),
    }


def write_npz(path: Path, **changes: Any) -> Path:
    """`flame_arrays` as .npz; None leaves a key out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {key: value for key, value in (flame_arrays() | changes).items() if value is not None}
    np.savez(path, **arrays)
    return path
