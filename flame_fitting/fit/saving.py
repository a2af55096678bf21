"""A fit's own files: parameters, texture, landmarks, checkpoint, configuration."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.files import atomic_write
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.prepare import Start
from flame_fitting.fit.result import FitResult, StageRecord, save_parameters
from flame_fitting.fit.stages import FitState


def make_result(state: FitState, start: Start, capture: Capture, config: FitConfig) -> FitResult:
    """The finished fit in memory: the placement is folded into `head_from_world`."""
    parameters = {name: value.detach().cpu().numpy() for name, value in state.parameters.items().items()}
    del parameters["placement"]
    head_from_world = state.head_from_world
    view = (capture.views_of("fit") or capture.views)[0]
    vertices = state.parameters.vertices(state.head).detach()
    world_from_reference = np.linalg.inv(start.reference_from_world)
    count = len(start.landmarks[0].points)
    model = np.full((len(start.targets), count, 3), np.nan)
    used = np.zeros((len(start.targets), count), dtype=bool)
    for t, target in enumerate(start.targets):
        points = target.landmarks.model_points(vertices[t]).numpy()
        model[t, target.landmarks.index] = transform_points(world_from_reference, points)
        used[t, target.landmarks.index] = True
    texture = None
    if state.texture is not None:
        texture = to_uint8(state.texture.detach().numpy())
    result = FitResult(
        head_name=state.head.name,
        head_hash=state.head.file_hash,
        head_identity=dict(state.head.identity),
        parameters=parameters,
        head_from_world=head_from_world,
        image_size=(view.height, view.width),
        timestep_id=[f"{t:05d}" for t in capture.timesteps],
        texture=texture,
        lights=None if state.lights is None else state.lights.numpy(),
        stages=state.records,
        warnings=list(state.warnings),
        scale_source=state.scale.source,
        scale_by_face=state.scale.estimate,
    )
    result.landmarks3d = {
        "points": np.stack([marks.points for marks in start.landmarks]),
        "spread_mm": np.stack([marks.spread for marks in start.landmarks]) * result.mm_per_unit,
        "n_views": np.stack([marks.n_views for marks in start.landmarks]),
        "source": np.stack([marks.source for marks in start.landmarks]),
        "model": model,
        "used": used,
        "scheme": np.array(start.landmarks[0].scheme),
    }
    return result


def save_fit(folder: Path, result: FitResult, state: FitState, config: FitConfig) -> None:
    """Writes everything but pictures, meshes and metrics."""
    import yaml
    from PIL import Image

    from flame_fitting.manifest import config_as_dict

    save_parameters(folder / "tracked_flame_params.npz", result)
    if result.texture is not None:
        with atomic_write(folder / "texture.png") as temporary:
            Image.fromarray(result.texture).save(temporary)
    with atomic_write(folder / "landmarks3d.npz") as temporary:
        np.savez_compressed(temporary, **result.landmarks3d)  # type: ignore[arg-type]  # one of its keywords is a bool
    with atomic_write(folder / "config.yml") as temporary:
        temporary.write_text(yaml.safe_dump(config_as_dict(config), sort_keys=False), encoding="utf-8")
    save_checkpoint(folder, result, state)


def save_checkpoint(folder: Path, result: FitResult, state: FitState) -> None:
    """`checkpoint.safetensors` and `checkpoint.json`: the optimiser's state, and what every stage left behind."""
    from safetensors.torch import save_file

    tensors = {f"parameters/{name}": value.detach().contiguous() for name, value in state.parameters.items().items()}
    tensors["reference_from_world"] = torch.as_tensor(state.reference_from_world)
    for record in state.records:
        # double: the avatar's coordinates may lie far from their origin
        vertices = torch.as_tensor(record.vertices_world, dtype=torch.float64).contiguous()
        tensors[f"stages/{record.name}/vertices_world"] = vertices
    with atomic_write(folder / "checkpoint.safetensors") as temporary:
        save_file(tensors, temporary)
    stages = [{k: v for k, v in asdict(record).items() if k != "vertices_world"} for record in state.records]
    content = {"stages": stages, "warnings": result.warnings, "seconds": result.seconds, "scale": result.scale_source}
    content["scale_by_face"] = result.scale_by_face
    with atomic_write(folder / "checkpoint.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_tensorboard(folder: Path, records: list[StageRecord]) -> None:
    """One event file with what every stage measured, where TensorBoard is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with SummaryWriter(str(folder)) as writer:
        for step, record in enumerate(records):
            for name, value in record.summary.items():
                writer.add_scalar(f"train/{name}", value, step)
            writer.add_scalar("train/seconds", record.seconds, step)
