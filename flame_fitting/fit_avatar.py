"""`fit`: fits the head model to a capture of a static avatar."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig
from flame_fitting.manifest import Manifest, check_output_folder, config_as_dict, hash_capture, input_record

if TYPE_CHECKING:
    import torch

    from flame_fitting.capture.capture import Capture
    from flame_fitting.fit.prepare import Start
    from flame_fitting.fit.result import FitResult
    from flame_fitting.fit.stages import FitState
    from flame_fitting.head.model import HeadModel
    from flame_fitting.landmarks.files import Landmarks2D

PLAN_IGNORES = (
    "capture",
    "output",
    "force",
    "device",
    "model_path",
    "detect",
    "log",
    "head",
    "flame_dir",
    "flame_masks",
    "landmark_embedding",
    "data.root_folder",
    "data.sequence",
    "exp.output_folder",
    "exp.reuse_landmarks",
)

__all__ = ["FitConfig", "fit", "plan"]


@dataclass
class PreparedFit:
    """What the stages start from."""

    capture: "Capture"
    head: "HeadModel"
    start: "Start"
    state: "FitState"


def fit(config: FitConfig, evaluate: bool = True) -> "FitResult":
    """Fits, evaluates (unless the caller does) and writes the fit's folder."""
    import time

    from flame_fitting import progress
    from flame_fitting.evaluate import evaluate_in_place
    from flame_fitting.export.obj import write_obj
    from flame_fitting.fit.saving import make_result, save_fit, write_tensorboard
    from flame_fitting.fit.stages import run_stages
    from flame_fitting.fit.vhap_flags import without_effect
    from flame_fitting.folders import staged_folder
    from flame_fitting.render.backend import choose_device

    config.check()
    for text in without_effect(config):
        progress.say(text)
    folder, started = config.folder, time.perf_counter()
    with progress.stage("fit") as line:
        check_output_folder(folder, config.force)
        device = choose_device(config.device)
        prepared = prepare(config, device)
        capture, head, state = prepared.capture, prepared.head, prepared.state
        loaded = time.perf_counter() - started
        run_stages(state, config, device)
        result = make_result(state, prepared.start, capture, config)
        result.seconds = {"load": loaded} | {record.name: record.seconds for record in state.records[1:]}
        result.seconds["fit"] = time.perf_counter() - started
        result.capture = capture.root
        old_events = (path.name for path in folder.glob("events.out.tfevents*"))
        stale = ("metrics.json", "report.html", "overlays", *old_events)
        manifest = plan(config)
        with staged_folder(folder, config.force, stale=stale) as staged:
            result.folder = staged
            save_fit(staged, result, state, config)
            if config.log.tensorboard:
                write_tensorboard(staged, state.records)
            uv, uv_faces = (head.uv.numpy(), head.uv_faces.numpy()) if head.has_uv else (None, None)
            texture = "texture.png" if result.texture is not None else None
            faces = head.faces.numpy()
            write_obj(staged / "fitted.obj", result.vertices_world(head)[0], faces, uv, uv_faces, texture)
            write_obj(staged / "fitted_head_space.obj", result.vertices_head(head)[0], faces, uv, uv_faces, texture)
            manifest.transforms = {
                "reference_from_world": prepared.start.reference_from_world.tolist(),
                "head_from_world": result.head_from_world.tolist(),
            }
            manifest.result = {"scale": state.scale.as_dict(result.mm_per_unit)}
            manifest.device = str(device)
            manifest.seconds = dict(result.seconds)
            manifest.finished = True
            manifest.write(staged)
        result.folder = folder
        if evaluate:
            result.metrics = evaluate_in_place(result, head, capture, figures=config.log.overlays)
            result.warnings = list(result.metrics.get("warnings", result.warnings))
        last = state.records[-1].summary
        surface = f"face {last['face_mm']:.2f} mm, " if last["face_mm"] == last["face_mm"] else ""  # NaN: no geometry
        line.result(f"{surface}landmarks {last['landmark_mm']:.2f} mm (medians) -> {folder}")
    return result


def prepare(config: FitConfig, device: "torch.device") -> PreparedFit:
    """Reads capture, landmarks, head and pictures (onto the device), and aligns the head by its landmarks."""
    import copy

    from flame_fitting import progress
    from flame_fitting.avatar.head_calibration import landmark_embedding, shading_kind
    from flame_fitting.capture.files import read_capture
    from flame_fitting.fit.begin import begin
    from flame_fitting.fit.prepare import masked_surface_weights, neutral_parameters
    from flame_fitting.fit.quality import measure
    from flame_fitting.fit.stages import FitState, add_record
    from flame_fitting.head.loading import load_head
    from flame_fitting.landmarks.detector import make_detector

    capture = read_capture(config.capture)
    detected = _landmarks(config, capture)
    head = load_head(config.head, config.flame_dir, config.flame_masks, config.model.add_teeth)
    detector = make_detector(config.data.detector, config.model_path)
    embedding = landmark_embedding(
        head,
        detector,
        shading_kind(capture.landmark_shading),
        notify=progress.say,
        licensed=config.landmark_embedding,
    )
    double = copy.deepcopy(head).double()
    scale, start = begin(config, capture, detected, double, embedding)
    state = FitState(
        head=double,
        parameters=neutral_parameters(double, len(capture.timesteps)),
        targets=start.targets,
        surface=masked_surface_weights(double, config.model.occluded),
        reference_from_world=start.reference_from_world,
        scale=scale,
        lit=capture.shading == "lit",
        name=str(capture.root),
    )
    add_record(state, "lmk_init_rigid", 0.0, measure(double, state.parameters, state.targets))
    _load_pictures(state, capture, config, device)
    return PreparedFit(capture, head, start, state)


def plan(config: FitConfig) -> Manifest:
    """What decides the result."""
    from flame_fitting.head.loading import head_identity, head_inputs
    from flame_fitting.landmarks.files import landmarks_path

    inputs = {"capture": input_record(config.capture, config.folder, hash_capture(config.capture))}
    landmarks = landmarks_path(config.capture, config.data.detector)
    if landmarks.is_file():
        inputs["landmarks"] = input_record(landmarks, config.folder)
    chosen = (config.head, config.flame_dir, config.flame_masks)
    inputs |= {role: input_record(path, config.folder) for role, path in head_inputs(*chosen).items()}
    if config.landmark_embedding is not None:
        inputs["landmark_embedding"] = input_record(config.landmark_embedding, config.folder)
    return Manifest(
        stage="fit",
        config=config_as_dict(config),
        inputs=inputs,
        head=head_identity(*chosen, add_teeth=config.model.add_teeth),
        detector=config.data.detector,
        seeds={"seed": config.seed},
    )


def _landmarks(config: FitConfig, capture: "Capture") -> "Landmarks2D":
    """The capture's landmarks, detected now where they are missing."""
    from flame_fitting.detect_landmarks import DetectConfig, detect
    from flame_fitting.landmarks.files import landmarks_path, read_landmarks

    path = landmarks_path(capture.root, config.data.detector)
    if not path.is_file() or not config.exp.reuse_landmarks:
        if not config.detect:
            raise InputError(f"{path}: no landmarks there. Run: flame-fitting detect {capture.root}")
        detect(DetectConfig(Path(capture.root), config.data.detector, config.model_path))
    return read_landmarks(capture.root, config.data.detector)


def _load_pictures(state: "FitState", capture: "Capture", config: FitConfig, device: "torch.device") -> None:
    """Rasterizer and pictures for texture and photometric stages, where the head model has texture coordinates."""
    from flame_fitting.fit.texture import TexelMaps
    from flame_fitting.fit.views import load_views
    from flame_fitting.render.backend import make_rasterizer

    if not state.head.has_uv:
        text = f"the head model {state.head.name} has no texture coordinates: no texture and no photometric stage"
        state.warnings.append(text)
        return
    state.rasterizer = make_rasterizer(device)
    state.texels = TexelMaps(state.rasterizer, state.head)
    views = capture.views_of("fit") or capture.views
    state.views = load_views(capture, views, state.reference_from_world, device, config.data.background_color)


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("fit")
