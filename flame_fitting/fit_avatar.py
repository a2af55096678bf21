"""`fit`: fits the head model to a capture of a static avatar."""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from flame_fitting import progress, stopping
from flame_fitting.fit.check import check
from flame_fitting.fit.command_line import defaults, without_effect
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit_reading import capture_of, chosen_sources, reading_options, with_landmarks
from flame_fitting.folders import capture_folder, locked_folder, staged_folder
from flame_fitting.manifest import Manifest, compare, config_as_dict, input_record, read_manifest
from flame_fitting.options import not_deciding
from flame_fitting.shared_options import CaptureOptions

if TYPE_CHECKING:
    import torch

    from flame_fitting.capture.capture import Capture
    from flame_fitting.fit.observations import Observations
    from flame_fitting.fit.prepare import Start
    from flame_fitting.fit.result import FitResult
    from flame_fitting.fit.resuming import Resumable
    from flame_fitting.fit.state import FitState
    from flame_fitting.head.model import HeadModel

_CHOSEN = ("subset", "division", "n_downsample_rgb", "scale_factor", "heldout_every", "heldout_cameras")
"""Options that choose what is read of a capture."""

__all__ = ["FitConfig", "defaults", "fit", "plan"]


@dataclass
class PreparedFit:
    """What the stages start from."""

    config: FitConfig
    """Without what is done when the capture is read."""
    capture: "Capture"
    head: "HeadModel"
    start: "Start"
    seen: "Observations"
    state: "FitState"


@progress.once()
def fit(config: FitConfig, manifest: Manifest | None = None, evaluate: bool = True) -> "FitResult":
    """Fits, evaluates (unless the caller does) and writes the fit's folder.

    `manifest` is the `plan` of this very moment, where the caller has it.
    """
    check(config)
    given = {"capture": capture_of(config), "others": tuple(map(capture_folder, config.others))}

    from flame_fitting.evaluate import VideoOptions, evaluate_in_place
    from flame_fitting.fit.alignment import aligned
    from flame_fitting.fit.quality import in_words
    from flame_fitting.fit.sources import open_fit

    config = chosen_sources(replace(config, **given), progress.say)  # type: ignore[arg-type]
    for text in without_effect(config):
        progress.say(text)
    folder, name = config.folder, _name(config)
    read = (config.capture, *config.others, config.model.flame_params_path)
    with progress.stage(name) as line, locked_folder(folder, config.force, name, read):
        if evaluate and _lacks_measures(config, manifest):
            progress.say(f"{folder}: is finished and was not measured, which is all that is done now")
            result, head, capture = open_fit(folder)
        else:
            result, head, capture = _fitted(config, manifest)
        if evaluate:
            video = VideoOptions() if config.log.video else None
            _, seen_by = aligned(result, capture)  # through the cameras that were estimated
            with (
                stopping.leaves(lambda: f"The fit is finished ({folder}), but not measured."),
                progress.stage("evaluate", part=True) as part,
            ):
                result.metrics = evaluate_in_place(result, head, seen_by, figures=config.log.overlays, video=video)
                if (errors := result.metrics["landmarks"].get("reprojection_px")) is not None:
                    part.result(f"landmarks {errors['median']:.2f} px (median)")
            result.warnings = list(result.metrics.get("warnings", result.warnings))
        line.result(f"{in_words(result.stages[-1].summary)} (medians) -> {folder}")
    for text in result.warnings:  # those of measuring, of the capture, and of a run that this one went on with
        progress.warn(text)
    return result


def _lacks_measures(config: FitConfig, manifest: Manifest | None) -> bool:
    """Whether the folder holds just this fit, finished by a run that was stopped before it was measured."""
    from flame_fitting.report.writing import METRICS_NAME

    made = read_manifest(config.folder)
    if config.force or made is None or not made.finished or (config.folder / METRICS_NAME).is_file():
        return False
    return compare(made, manifest or plan(config), not_deciding(type(config))) is None


def _fitted(config: FitConfig, manifest: Manifest | None) -> "tuple[FitResult, HeadModel, Capture]":
    """Fits and writes the folder, which is locked."""
    import time

    from flame_fitting.export.obj import write_obj
    from flame_fitting.fit.driver import run_stages
    from flame_fitting.fit.joining import JOINED
    from flame_fitting.fit.morphs import MORPHS_NAME, write_morphs
    from flame_fitting.fit.quality import different_persons
    from flame_fitting.fit.resuming import Resumable
    from flame_fitting.fit.saving import focal_in_words, make_result, save_fit, write_tensorboard
    from flame_fitting.render.backend import choose_device
    from flame_fitting.report.writing import METRICS_NAME

    folder, started = config.folder, time.perf_counter()
    device = choose_device(config.device)
    ready, anew = joined(config) if config.others else ((found := with_landmarks(config)), found is not config)
    if manifest is None or anew:  # landmarks that were detected just now are in no earlier plan
        manifest = plan(config)
    underway = Resumable(folder, manifest, not_deciding(type(config)))
    with stopping.leaves(underway.kept):
        prepared = prepare(ready, device, None if config.force else underway)
        capture, head, seen = prepared.capture, prepared.head, prepared.seen
        loaded = time.perf_counter() - started
        state = run_stages(prepared.state, seen, prepared.config, device, lambda state: underway.keep(state, head))
        said = different_persons(seen.head, state.parameters, seen.targets, capture.moments) if config.others else None
        for text in [*manifest.finish(lambda: plan(config)), *([said] if said else [])]:
            progress.warn(text)
            state = state.warned(text)
        result = make_result(state, seen, prepared.start, capture)
        if (focal := focal_in_words(result)) is not None:
            progress.say(focal)
        result.seconds = {"load": loaded} | {record.name: record.seconds for record in state.records if record.seconds}
        result.seconds["fit"] = time.perf_counter() - started
        result.capture = capture.root
        old = (path.name for pattern in ("events.out.tfevents*", "overlay*.mp4") for path in folder.glob(pattern))
        stale = (METRICS_NAME, "report.html", "overlays", MORPHS_NAME, *old)
        with staged_folder(folder, config.force, stale=stale) as staged:
            result.folder = staged
            save_fit(staged, result, state, config)
            if capture.avatar.morphs:
                write_morphs(staged, result, capture.avatar.morphs)
            if config.log.tensorboard:
                write_tensorboard(staged, state.records)
            uv, uv_faces = (head.uv.numpy(), head.uv_faces.numpy()) if head.has_uv else (None, None)
            texture = "texture.png" if result.texture is not None else None
            faces = head.faces.numpy()
            write_obj(staged / "fitted.obj", result.vertices_world(head)[0], faces, uv, uv_faces, texture)
            write_obj(staged / "fitted_head_space.obj", result.vertices_head(head)[0], faces, uv, uv_faces, texture)
            manifest.transforms = {
                "reference_from_world": state.reference_from_world.tolist(),
                "head_from_world": result.head_from_world.tolist(),
            }
            manifest.result = {"scale": state.scale.as_dict(result.mm_per_unit), "not_at_rest": result.active}
            if config.others:
                manifest.result["capture"] = JOINED
            manifest.device = str(device)
            manifest.seconds = dict(result.seconds)
            manifest.write(staged)
        underway.remove()
        result.folder = folder
    return result, head, capture


def _name(config: FitConfig) -> str:
    """The command's."""
    return "track" if config.over_time else "fit"


def prepare(config: FitConfig, device: "torch.device", underway: "Resumable | None" = None) -> PreparedFit:
    """Reads capture, landmarks, head and pictures (onto the device), and aligns the head by its landmarks.

    The state is what a run that was stopped left `underway`, where it left something.
    """
    import copy

    from flame_fitting.capture.opening import open_capture
    from flame_fitting.fit.begin import begin
    from flame_fitting.fit.bridging import gaps
    from flame_fitting.fit.dataset_parameters import how_to_begin_with
    from flame_fitting.fit.detected_sources import detected_sources
    from flame_fitting.fit.earlier import earlier_state, in_reference
    from flame_fitting.fit.observations import Observations, with_pictures
    from flame_fitting.fit.prepare import masked_surface_weights, neutral_parameters
    from flame_fitting.fit.saving import focal_length
    from flame_fitting.fit.state import FitState
    from flame_fitting.fit.trust import trust_of
    from flame_fitting.head.eyelids import with_chosen_eyelids
    from flame_fitting.head.loading import load_head

    config = with_landmarks(config)
    reading = reading_options(config)
    capture = open_capture(config.capture, reading, notify=progress.say)
    if reading.n_downsample_rgb is not None:  # done
        config = replace(config, data=replace(config.data, n_downsample_rgb=None))
    head = load_head(config.head, config.flame_dir, config.flame_masks, config.model.add_teeth)
    head = with_chosen_eyelids(head, config.model.use_eyelids, progress.say)
    found = detected_sources(config, capture, head, progress.say)
    double = copy.deepcopy(head).double()
    left = underway.left(head) if underway is not None else None
    path = config.model.flame_params_path
    assumed = None if capture.calibrated else focal_length(capture.views[0])
    earlier = None
    if path is not None:
        notify = progress.say if left is None else None  # a run that goes on began with it before
        earlier = earlier_state(path, double, len(capture.timesteps), assumed, notify)
    elif left is None and not config.over_time:
        for text in how_to_begin_with(capture.root, double.file_hash):
            progress.say(text)
    known = left.scale if left is not None else None
    if known is None and earlier is not None and earlier.scale.held and (config.scale, config.unit) == ("auto", None):
        known = earlier.scale
    measured = any(capture.noise(view) is not None for view in capture.views_of("fit")[:1])
    trust = trust_of(config.data.geometry_kind, capture.avatar.geometry, measured)
    surface = masked_surface_weights(double, config.model.occluded, trust)
    scale, start = begin(config, capture, found, double, surface, known)
    seen = Observations(
        head=double,
        targets=start.targets,
        surface=surface,
        lit=capture.shading == "lit",
        name=str(capture.root),
        calibrated=capture.calibrated,
        of_sequence=config.over_time,
        moments=capture.moments,
        at_rest=0 if capture.avatar.morphs and capture.timesteps[0] == 0 else None,
    )
    state = left
    if state is None:
        if earlier is not None:
            state = in_reference(earlier, start.reference_from_world)
        else:
            state = FitState(neutral_parameters(double, len(capture.timesteps)), start.reference_from_world)
        state = replace(state, scale=scale, warnings=tuple(capture.warnings))
        if not double.has_uv:
            text = f"the head model {double.name} has no texture coordinates: no texture and no photometric stage"
            state = state.warned(text)
    names = [capture.timestep_ids[timestep] for timestep in capture.timesteps]
    if (missing := gaps(seen.valid, capture.heldout_rows, names, capture.ordered)) is not None:
        (progress.warn if missing.serious else progress.say)(missing.text)
        if missing.serious and left is None:
            state = state.warned(missing.text)
    if double.has_uv:
        limit = int(config.data.picture_cache * 1e9)
        seen = with_pictures(seen, capture, start.reference_from_world, device, limit)
    return PreparedFit(config, capture, head, start, seen, state)


def plan(config: FitConfig) -> Manifest:
    """What decides the result."""
    from flame_fitting.capture.hashing import capture_hash
    from flame_fitting.head.loading import head_identity, head_inputs
    from flame_fitting.landmarks.files import label_in, landmarks_in

    config, inputs = chosen_sources(config), {}
    for number, capture in enumerate((config.capture, *config.others), start=1):
        one, of = replace(config, capture=capture), f" {number}" if config.others else ""
        options = reading_options(one)
        inputs[f"capture{of}"] = input_record(capture, config.folder, capture_hash(capture, options))
        for name in config.data.landmark_source:
            if (landmarks := landmarks_in(capture, name, options)) is not None:
                inputs[f"landmarks {name}{of}"] = input_record(landmarks, config.folder)
    chosen = (config.head, config.flame_dir, config.flame_masks)
    inputs |= {role: input_record(path, config.folder) for role, path in head_inputs(*chosen).items()}
    if config.model.flame_params_path is not None:
        carried = config.model.flame_params_path / "flame_param"  # landmarks may come to a dataset meanwhile
        begun_with = carried if carried.is_dir() else config.model.flame_params_path
        inputs["flame_params"] = input_record(begun_with, config.folder)
    if config.landmark_embedding is not None:
        inputs["landmark_embedding"] = input_record(config.landmark_embedding, config.folder)
    return Manifest(
        stage=_name(config),
        config=config_as_dict(config),
        inputs=inputs,
        head=head_identity(*chosen, add_teeth=config.model.add_teeth),
        detector=", ".join(label_in(config.capture, name) for name in config.data.landmark_source),
        seeds={"seed": config.seed},
    )


def joined(config: FitConfig) -> tuple[FitConfig, bool]:
    """The configuration with its captures joined to one, and whether landmarks of some were detected just now."""
    from flame_fitting.fit.joining import check_distinct, join
    from flame_fitting.manifest import read_manifest

    every, anew = (config.capture, *config.others), False
    check_distinct(every)
    # what is chosen of a capture is chosen of the joined one
    part: dict[str, Any] = {one.name: one.default for one in fields(CaptureOptions) if one.name in _CHOSEN}
    data = replace(config.data, **part)
    for capture in every:
        one = replace(config, capture=capture, others=(), data=data)
        anew |= with_landmarks(one) is not one
    if read_manifest(config.folder) is None:
        config.folder.mkdir(exist_ok=True)
        Manifest(stage=_name(config)).write(config.folder)  # ours from here on, and unfinished
    return replace(config, capture=join(every, config.folder, config.data.use_geometry), others=()), anew


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("fit")
