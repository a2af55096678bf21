"""Several captures of one subject as one: a timestep for each of theirs, in no order, in the world of the first.

The folder is a capture as `render` writes it. What the move leaves as it is, is linked, and copied where it cannot be.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.camera import move_camera
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.files import AVATAR_NAME, TRANSFORMS_NAME, transforms_of, write_npz
from flame_fitting.capture.layouts.folder import ALPHA_MAPS, IMAGES
from flame_fitting.capture.pictures import picture_as_uint8, to_uint8, write_png
from flame_fitting.capture.similarity import decompose_similarity


@dataclass(frozen=True, eq=False)
class Part:
    """One of the captures."""

    capture: Capture
    """All of its folder; its pictures on the background of the first."""
    names: tuple[str, ...]
    """Of its timesteps in the joined capture, none twice among all parts."""
    world_from_own: Float[ndarray, "4 4"]
    """Similarity from its world to the first one's."""


def part_names(captures: Sequence[Capture]) -> list[tuple[str, ...]]:
    """What the timesteps of each capture are called together: by its avatar, else by its folder, none twice.

    Of a capture with several timesteps the name and their own.
    """
    own: list[str] = []
    for capture in captures:
        stem = Path(capture.avatar.file).stem if capture.avatar.file else capture.root.resolve().name
        count = sum(name == stem or name.startswith(f"{stem} (") for name in own)
        own.append(f"{stem} ({count + 1})" if count else stem)
    return [
        (name,)
        if len(capture.timesteps) == 1
        else tuple(f"{name}/{capture.timestep_ids[t]}" for t in capture.timesteps)
        for name, capture in zip(own, captures, strict=True)
    ]


def joined_views(parts: Sequence[Part]) -> list[list[View]]:
    """The views of each part as they are in the joined capture: files named anew, cameras moved.

    Cameras keep their numbers where views of one number are for the same in all parts; else those of each part follow.
    """
    roles: dict[int, set[str]] = {}
    for part in parts:
        for view in part.capture.views:
            roles.setdefault(view.camera, set()).add(view.role)
    apart = any(len(found) > 1 for found in roles.values())
    out, timestep, camera = [], 0, 0
    for part in parts:
        rows = {t: row for row, t in enumerate(part.capture.timesteps)}
        out.append([_moved(view, part, timestep, rows[view.timestep], camera) for view in part.capture.views])
        timestep += len(rows)
        camera += max(part.capture.cameras) + 1 if apart else 0
    return out


def _moved(view: View, part: Part, first: int, row: int, camera: int) -> View:
    out = replace(
        view,
        timestep=first + row,
        camera=view.camera + camera,
        world_to_camera=move_camera(view.world_to_camera, part.world_from_own),
        timestep_id=part.names[row],
        camera_id="" if camera else view.camera_id,
        making=None,
    )
    suffix = ".png" if view.making is not None else Path(view.file_path).suffix
    return replace(
        out,
        file_path=f"{IMAGES}/{out.key}{suffix}",
        mask_path=view.mask_path and f"{ALPHA_MAPS}/{out.key}.png",
        geometry_path=view.geometry_path and f"geometry/{out.key}.npz",
        dense_path=view.dense_path and f"dense/{out.key}.npz",
    )


def write_joined(folder: Path, parts: Sequence[Part], views: Sequence[Sequence[View]], record: AvatarRecord) -> Capture:
    """Writes the capture of `joined_views` into a folder that is there and empty; `record` becomes its avatar.json."""
    for part, moved in zip(parts, views, strict=True):
        for view, out in zip(part.capture.views, moved, strict=True):
            _write_view(folder, part, view, out)
    every = sorted((view for moved in views for view in moved), key=lambda view: (view.timestep, view.camera))
    first = parts[0].capture
    shadings = {part.capture.shading for part in parts}
    # light that stands still is only told where all pictures show it
    shading = first.shading if len(shadings) == 1 else next(iter(sorted(shadings - {"lit"})))
    transforms = transforms_of(every, first.background_color, shading, ordered=False)
    (folder / TRANSFORMS_NAME).write_text(json.dumps(transforms, indent=2) + "\n", encoding="utf-8")
    (folder / AVATAR_NAME).write_text(json.dumps(record.as_json(), indent=2) + "\n", encoding="utf-8")
    return Capture(folder, every, first.background_color, shading, record, ordered=False)


def _write_view(folder: Path, part: Part, view: View, out: View) -> None:
    capture, root = part.capture, part.capture.root
    for name in (out.file_path, out.mask_path, out.geometry_path, out.dense_path):
        if name is not None:
            (folder / name).parent.mkdir(exist_ok=True)
    if view.making is None:
        _link(root / view.file_path, folder / out.file_path)
    else:
        write_png(folder / out.file_path, picture_as_uint8(capture.image(view)))
    if view.mask_path is not None and out.mask_path is not None:
        as_it_is = view.making is None or view.making.lens is None
        if as_it_is and Path(view.mask_path).suffix == ".png" and view.mask_path != view.file_path:
            _link(root / view.mask_path, folder / out.mask_path)
        else:
            write_png(folder / out.mask_path, to_uint8(capture.alpha(view)))
    scale, rotation, _ = decompose_similarity(part.world_from_own)
    still = scale == 1.0 and bool((rotation == np.eye(3)).all())
    if view.geometry_path is not None and out.geometry_path is not None:
        if still:
            _link(root / view.geometry_path, folder / out.geometry_path)
        else:
            depth, normal = capture.geometry(view)
            turned = normal @ rotation.T.astype(np.float32)
            arrays: dict[str, NDArray[Any]] = {
                "depth": (depth * scale).astype(np.float32),
                "normal": turned.astype(np.float16),
            }
            if (noise := capture.noise(view)) is not None:
                arrays["noise"] = noise * np.float32(scale)
            write_npz(folder / out.geometry_path, arrays)
    if view.dense_path is not None and out.dense_path is not None:
        maps: dict[str, Any] = capture.dense(view)
        if "normal" in maps:
            maps["normal"] = maps["normal"] @ rotation.T.astype(np.float32)
        write_npz(folder / out.dense_path, maps)


def _link(source: Path, target: Path) -> None:
    """A hard link, so that no picture lies there twice; a copy where the file system has none."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
