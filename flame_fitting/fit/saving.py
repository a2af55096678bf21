"""A fit's own files: parameters, texture, landmarks, checkpoint, configuration."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.capture.similarity import decompose_similarity
from flame_fitting.files import atomic_write
from flame_fitting.fit.checkpoint import CHECKPOINT_NAME, Checkpoint, save_checkpoint
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.landmark_sources import PlacedLandmarks
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import in_metric_world
from flame_fitting.fit.prepare import Start, landmark_weights
from flame_fitting.fit.result import FitResult, save_parameters, save_uncertainty
from flame_fitting.fit.state import FitState, StageRecord
from flame_fitting.fit.targets import SourceTarget, trusted
from flame_fitting.head.model import HeadModel


def make_result(state: FitState, seen: Observations, start: Start, capture: Capture) -> FitResult:
    """The finished fit in memory: the placement is folded into `head_from_world`."""
    moved, head_from_world = state.parameters, state.head_from_world
    if seen.is_sequence and not seen.moments and abs(decompose_similarity(head_from_world)[0] - 1) < 1e-6:
        moved, head_from_world = in_metric_world(seen.head, moved, head_from_world), np.eye(4)
    parameters = {name: value.detach().cpu().numpy() for name, value in moved.items().items()}
    del parameters["placement"], parameters["log_focal"]
    if not moved.moves_vertices:
        del parameters["dynamic_offset"]
    if not parameters["eyelids"].size:
        del parameters["eyelids"]
    view = (capture.views_of("fit") or capture.views)[0]
    vertices = state.parameters.vertices(seen.head).detach()
    world_from_reference = np.linalg.inv(state.reference_from_world)
    texture = None
    if state.texture is not None:
        texture = to_uint8(state.texture.detach().numpy())
    result = FitResult(
        head_name=seen.head.name,
        head_hash=seen.head.file_hash,
        head_identity=dict(seen.head.identity),
        parameters=parameters,
        head_from_world=head_from_world,
        image_size=(view.height, view.width),
        timestep_id=[capture.timestep_ids[t] for t in capture.timesteps],
        focal_length=None if capture.calibrated else focal_length(view, float(state.parameters.log_focal[0])),
        texture=texture,
        lights=None if state.lights is None else state.lights.numpy(),
        stages=list(state.records),
        warnings=list(state.warnings),
        active=None if state.active is None else list(state.active),
        scale_source=state.scale.source,
        scale_by_face=state.scale.estimate,
        uncertainty=state.uncertainty,
    )
    for number, source in enumerate(start.landmarks):
        targets = [target.sources[number] for target in seen.targets]
        placed = _landmarks3d(seen.head, source, targets, vertices, world_from_reference, result.mm_per_unit)
        # the first source's by their plain names, as where there is one alone
        result.landmarks3d |= {f"{source.name}/{key}" if number else key: value for key, value in placed.items()}
    return result


def focal_length(view: View, log_focal: float = 0.0) -> float:
    """In units of the picture's longer side, of a view whose own is exp(log_focal) times the assumed one."""
    return float(np.exp(log_focal)) * float(view.K[0, 0]) / max(view.width, view.height)


def focal_in_words(result: FitResult) -> str | None:
    """The focal length that was found, in a line for the user; None of cameras that were known."""
    if result.focal_length is None:
        return None
    height, width = result.image_size
    angle = 2 * np.degrees(np.arctan(0.5 / result.focal_length))
    sigma = result.uncertainty.get("log_focal", np.full(1, np.nan))[0]
    deviation = f"standard deviation {100 * sigma:.0f} %" if np.isfinite(sigma) else "no stage has estimated it"
    return (
        f"focal length: {result.focal_length:.3f} of the picture's longer side "
        f"({result.focal_length * max(height, width):.0f} px, {angle:.0f} degrees), {deviation}"
    )


def _landmarks3d(
    head: HeadModel,
    source: PlacedLandmarks,
    targets: Sequence[SourceTarget],
    vertices: Tensor,
    world_from_reference: np.ndarray,
    mm_per_unit: float,
) -> dict[str, np.ndarray]:
    """One source's landmarks in the world, and where the head has them; `vertices` (T, V, 3) in the reference frame.

    The head has them at every timestep, also where nothing was detected: what is left out can be measured afterwards.
    """
    marks = source.landmarks
    model = np.full((len(marks), len(marks[0].points), 3), np.nan)
    used = np.zeros(model.shape[:2], dtype=bool)
    placed = np.zeros(model.shape[1], dtype=bool)
    for target in targets:
        placed[target.landmarks.index] = True
    if not placed.any():  # seen by a single camera, which puts nothing in space
        placed = source.embedding.valid & (landmark_weights(marks[0].scheme, model.shape[1]) > 0)
    for t, target in enumerate(targets):
        points = source.embedding.points(vertices[t : t + 1], head.faces)[0].cpu().numpy()
        model[t, placed] = transform_points(world_from_reference, points)[placed]
        used[t, target.landmarks.index] = True
        found = source.detections[t] if source.detections else None
        if not used[t].any() and target.pixels is not None and found is not None:  # a single camera
            used[t] = placed & trusted(found.landmarks).any(axis=0)
    return {
        "points": np.stack([one.points for one in marks]),
        "spread_mm": np.stack([one.spread for one in marks]) * mm_per_unit,
        "n_views": np.stack([one.n_views for one in marks]),
        "source": np.stack([one.source for one in marks]),
        "model": model,
        "used": used,
        "scheme": np.array(marks[0].scheme),
        "detector": np.array(source.name),
        "detector_version": np.array(source.version),
    }


def save_fit(folder: Path, result: FitResult, state: FitState, config: FitConfig) -> None:
    """Writes everything but pictures, meshes and metrics."""
    import yaml
    from PIL import Image

    from flame_fitting.manifest import config_as_dict

    save_parameters(folder / "tracked_flame_params.npz", result)
    save_uncertainty(folder / "uncertainty.npz", result)
    if result.texture is not None:
        with atomic_write(folder / "texture.png") as temporary:
            Image.fromarray(result.texture).save(temporary)
    with atomic_write(folder / "landmarks3d.npz") as temporary:
        np.savez_compressed(temporary, **result.landmarks3d)  # type: ignore[arg-type]  # one of its keywords is a bool
    with atomic_write(folder / "config.yml") as temporary:
        temporary.write_text(yaml.safe_dump(config_as_dict(config), sort_keys=False), encoding="utf-8")
    save_checkpoint(folder / CHECKPOINT_NAME, Checkpoint(state, result.head_hash, result.seconds))


def write_tensorboard(folder: Path, records: Sequence[StageRecord]) -> None:
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
