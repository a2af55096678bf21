"""A contact sheet of a rig: every camera at the timesteps whose pictures are kept, with the visible landmarks."""

from pathlib import Path

import numpy as np

from .making import Rig


def write_sheet(rig: Rig, clips: tuple[str, ...], marks: bool = False) -> Path:
    """contact_sheet.png in the rig's folder: a row for every camera; `marks` draws the landmarks."""
    from PIL import Image, ImageDraw

    rows = []
    for clip in clips:
        truth = rig.truth(clip)
        for index, camera in enumerate(truth["camera_id"]):
            row = []
            for timestep in truth["vertices_timestep"]:
                picture = Image.fromarray(
                    np.round(255 * rig.true_picture(clip, timestep, str(camera))).astype(np.uint8)
                )
                if marks:
                    draw = ImageDraw.Draw(picture)
                    seen = truth["landmarks2d_visible"][timestep, index]
                    for x, y in truth["landmarks2d"][timestep, index][seen]:
                        draw.ellipse([x - 1, y - 1, x + 1, y + 1], fill=(40, 255, 60))
                row.append(np.asarray(picture))
            rows.append(np.concatenate(row, axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    path = rig.root / "contact_sheet.png"
    Image.fromarray(np.concatenate(padded)).save(path)
    return path
