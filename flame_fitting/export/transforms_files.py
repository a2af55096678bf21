"""transforms.json and its parts for training, validation and test, as VHAP, nerfstudio and instant-ngp read them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_fitting.capture.files import INTRINSIC_KEYS
from flame_fitting.export.splits import SPLITS, Split

Entry = dict[str, Any]
EYELIDS_NAME = "eyelid_blendshapes.npz"
"""The blendshapes that the key `eyelids` of FLAME parameters belongs to, where they have it."""
POINTS_NAME = "points3d.ply"
"""Where nerfstudio is told to begin; 3D Gaussian Splatting looks for this name by itself, and for normals in it."""
DATASET_ENTRIES = (
    EYELIDS_NAME,
    POINTS_NAME,
    *("images", "fg_masks", "flame_param", "canonical_flame_param.npz", "canonical.obj", "meshes", "flame"),
    *("transforms.json", "transforms_train.json", "transforms_val.json", "transforms_test.json"),
    *("sequences_trainval.txt", "sequences_test.txt"),
)
"""What an export or a union may leave in its folder."""


def transforms_name(split: Split | None) -> str:
    """The file of a split; None: of all."""
    return f"transforms_{split}.json" if split else "transforms.json"


def write_transforms(
    folder: Path,
    entries: Sequence[Entry],
    splits: Sequence[Split],
    up: Sequence[float],
    provenance: Mapping[str, Any],
    points: str | None = None,
) -> None:
    """Writes the four files for pictures `entries`, whose splits stand row for row in `splits`.

    `up` (3,) is the world's upward direction; `provenance` says where the data come from, `points` names a file
    of points in the same world.
    """
    by_split = {split: [e for e, s in zip(entries, splits, strict=True) if s == split] for split in SPLITS}
    shared = {}
    # A key at the top level hides the frames' own from nerfstudio, so it must hold for every frame of the dataset.
    for key in (*INTRINSIC_KEYS, "camera_angle_x", "camera_angle_y"):
        if entries and all(key in entry and entry[key] == entries[0].get(key) for entry in entries):
            shared[key] = entries[0][key]
    for split, chosen in ((None, list(entries)), *by_split.items()):
        data: dict[str, Any] = {"camera_model": "PINHOLE", "up": list(up), **shared}
        data["timestep_indices"] = sorted({entry["timestep_index"] for entry in chosen})
        data["camera_indices"] = sorted({entry["camera_index"] for entry in chosen})
        if split is None:
            names = {name: [entry["file_path"] for entry in part] for name, part in by_split.items()}
            # nerfstudio wants some of each
            names = {name: part or names["test"] or names["train"] or names["val"] for name, part in names.items()}
            data |= {f"{name}_filenames": part for name, part in names.items()}
        data |= {"ply_file_path": points} if points is not None else {}
        data["provenance"] = dict(provenance)
        data["frames"] = chosen
        (folder / transforms_name(split)).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
