"""`preprocess`: a video, or those of a rig, to pictures and alpha maps in VHAP's folders."""

import contextlib
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flame_fitting.errors import InputError
from flame_fitting.files import shown
from flame_fitting.folders import locked_folder
from flame_fitting.manifest import MANIFEST_NAME, Manifest, compare, config_as_dict, input_record, read_manifest
from flame_fitting.options import not_deciding, option, own_first, refusals
from flame_fitting.shared_options import OutputOptions

if TYPE_CHECKING:
    from flame_fitting.video.matting import Matting
    from flame_fitting.video.sources import Clip, Sequence

STAGE = "preprocess"
_FACE_SAMPLES = 12
_MOST_WORKERS = 16
_LANDMARK_FOLDERS = ("landmark2d", "landmarks2d")


@own_first
@dataclass(kw_only=True)
class PreprocessConfig(OutputOptions):
    """Makes pictures, and alpha maps if asked, of a video or of the videos of a rig."""

    input: str = option(decides=False)
    """A video; a folder with cam_*.mp4, also in its images/; or a path whose last part is a pattern of one folder."""
    target_fps: float | None = option(25.0, above=0)
    """Pictures per second: each is the frame nearest in time. None: every frame, as it comes."""
    downsample_scales: tuple[int, ...] = option((), at_least=2)
    """Reduced pictures beside the full ones: 2 4 gives images_2/ and images_4/."""
    matting_method: Literal["none", "selfie", "robust_video_matting", "background_matting_v2"] = "none"
    """Alpha maps: selfie ships with this program; the other two need their authors' weights, downloaded once."""
    background_folder: Path = option(Path("../../BACKGROUND"), decides=False)
    """background_matting_v2: folder of image_<camera>.jpg, the empty background; it counts from images/."""
    matting_weights: Path | None = option(None, decides=False)
    """TorchScript file of the matting network, in place of the one that is downloaded."""
    device: str = option("auto", decides=False)
    """Where the two large matting networks run: auto, cpu, cuda or cuda:N."""

    @property
    def folder(self) -> Path | None:
        """Where the result goes, and the log."""
        from flame_fitting.video.sources import find_sequence

        try:
            return find_sequence(self.input).folder
        except InputError:
            return None


@dataclass
class PreprocessResult:
    """What was written."""

    folder: Path
    """The sequence's folder."""
    pictures: int
    """Pictures of full size, of all cameras."""
    warnings: list[str] = field(default_factory=list)


def preprocess(config: PreprocessConfig) -> PreprocessResult:
    """Writes `images/`, `images_<n>/` and `alpha_maps/`. Raises InputError for what is wrong with the input.

    A run that was stopped goes on where it stopped, if nothing that decides its result has changed since.
    """
    from flame_fitting import progress, stopping
    from flame_fitting.video.sources import find_sequence

    for problem in refusals(config):
        raise InputError(problem)
    sequence = find_sequence(config.input)

    from flame_fitting.video.clips import check_clip
    from flame_fitting.video.methods import MattingOptions, make_matting

    with progress.stage(STAGE) as line:
        options = MattingOptions(config.matting_weights, config.background_folder, config.device, workers())
        scales = tuple(sorted(set(config.downsample_scales)))
        for clip in sequence.clips:
            check_clip(clip, scales)
        matting = make_matting(config.matting_method, sequence, options)
        try:
            if matting is not None:
                for clip in sequence.clips:
                    matting.begin(clip.camera_id)  # reads what the camera needs, such as its background
            with locked_folder(sequence.folder, force=True) as root:
                manifest = plan(config, sequence, matting)
                is_new = read_manifest(root) is None
                stale = _settle(manifest, root, config.force)
                started, before = time.perf_counter(), _pictures_there(manifest)
                try:
                    with stopping.leaves(lambda: _kept(sequence, root)):
                        _write_clips(config, sequence, root, matting, manifest)
                except InputError:
                    if is_new:
                        _take_back(root)
                    raise
                seconds = time.perf_counter() - started
                warnings = _sentences(sequence, manifest.result["clips"]) + stale
                warnings += manifest.finish(lambda: plan(config, sequence, matting))
                manifest.result["warnings"] = warnings
                manifest.seconds["total"] = round(seconds, 3)
                manifest.write(root)
        finally:
            if matting is not None:
                matting.close()
        total = _pictures_there(manifest)
        made = f", {(total - before) / max(seconds, 1e-9):.1f} a second" if total > before else ", all there already"
        pictures = "1 picture" if total == 1 else f"{total} pictures"
        line.result(f"{pictures} of {len(sequence.clips)} video(s){made} -> {root}")
    for text in warnings:
        progress.warn(text)
    return PreprocessResult(root, total, warnings)


def plan(config: PreprocessConfig, sequence: "Sequence", matting: "Matting | None") -> Manifest:
    """What decides the result: the videos' content, the options, the matting network."""
    known = config_as_dict(replace(config, downsample_scales=tuple(sorted(set(config.downsample_scales)))))
    known["matting"] = matting.identity if matting is not None else None
    inputs = {clip.path.name: input_record(clip.path, sequence.folder) for clip in sequence.clips}
    return Manifest(stage=STAGE, config=known, inputs=inputs, result={"clips": {}})


def workers() -> int:
    """Threads for writing and matting: as many as this process has cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores))


def _settle(manifest: Manifest, root: Path, force: bool) -> list[str]:
    """Takes over what an equal run has left in `root`, or clears it away; returns warnings."""
    from flame_fitting import progress
    from flame_fitting.video import writing

    old = read_manifest(root)
    writing.remove_partial(root)
    foreign = [f for f in writing.folders_of(root) if any(e.suffix.lower() in (".jpg", ".png") for e in f.iterdir())]
    if old is not None and old.stage == STAGE:
        difference = compare(replace(old, finished=True), manifest, not_deciding(PreprocessConfig))
        if difference is None:
            manifest.result["clips"] = dict(old.result.get("clips", {}))
            manifest.write(root)
            return []
        progress.say(f"{STAGE}: starting over, {difference}")
    elif not force and old is not None:
        raise InputError(f"{root}: holds the result of '{old.stage}'. Move it away, or add --force.")
    elif not force and foreign:
        raise InputError(
            f"{foreign[0]}: holds pictures that this command did not make. Move them away, or add --force to replace "
            "them."
        )
    stale = [root / name for name in _LANDMARK_FOLDERS if (root / name).is_dir()]
    manifest.write(root)  # a kill from here on leaves a folder that is known as unfinished
    writing.remove_pictures(root)
    return [f"{folder}: its landmarks are those of earlier pictures. Delete it, and detect again." for folder in stale]


def _kept(sequence: "Sequence", root: Path) -> str | None:
    """What a run that is stopped leaves for the next one."""
    from flame_fitting.video import writing

    count = sum(writing.count_pictures(writing.image_folder(root, 1), clip.prefix) for clip in sequence.clips)
    return f"{count} picture{'s' if count > 1 else ''} in {writing.image_folder(root)} are kept." if count else None


def _take_back(root: Path) -> None:
    """Removes all that a run wrote whose input turned out to be bad in the middle."""
    from flame_fitting.video import writing

    writing.remove_partial(root)
    writing.remove_pictures(root)
    (root / MANIFEST_NAME).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other files are in it
        root.rmdir()


def _write_clips(
    config: PreprocessConfig, sequence: "Sequence", root: Path, matting: "Matting | None", manifest: Manifest
) -> None:
    from flame_fitting import progress
    from flame_fitting.video.clips import write_clip
    from flame_fitting.video.resampling import as_rate

    rate = as_rate(config.target_fps) if config.target_fps is not None else None
    scales = tuple(manifest.config["downsample_scales"])
    records = manifest.result["clips"]
    for number, clip in enumerate(sequence.clips, start=1):
        record = records.get(clip.path.name)
        if record and _is_whole(clip, root, scales, matting is not None, record["pictures"]):
            continue
        label = f"{clip.path.stem} ({number}/{len(sequence.clips)})" if len(sequence.clips) > 1 else clip.path.stem
        done = write_clip(clip, root, rate, scales, matting, workers(), label)
        try:
            faces = _faces_in(root, clip, done.pictures)
        except InputError as error:
            progress.warn(f"{clip.path.name}: not looked at for faces ({error})")
            faces = []
        records[clip.path.name] = {
            "camera_id": clip.camera_id,
            "pictures": done.pictures,
            "decoded": done.decoded,
            "faces": faces,
            "warnings": done.warnings,
        }
        manifest.write(root)


def _is_whole(clip: "Clip", root: Path, scales: tuple[int, ...], alpha: bool, pictures: int) -> bool:
    from flame_fitting.video import writing

    folders = [writing.image_folder(root, scale) for scale in (1, *scales)]
    folders += [root / writing.ALPHA_MAPS] if alpha else []
    return all(writing.count_pictures(folder, clip.prefix) == pictures for folder in folders)


def _faces_in(root: Path, clip: "Clip", pictures: int) -> list[list[tuple[float, float, float, float]]]:
    """Boxes of the faces in some pictures, spread over the clip."""
    from flame_fitting.files import read_picture
    from flame_fitting.landmarks.mediapipe_faces import FaceBoxes
    from flame_fitting.video import writing

    finder = FaceBoxes()
    count = min(_FACE_SAMPLES, pictures)
    numbers = sorted({round((i + 0.5) * pictures / count - 0.5) for i in range(count)})
    folder = writing.image_folder(root)
    paths = [folder / writing.picture_name(clip.prefix, number) for number in numbers]
    return [finder.find(read_picture(path, "RGB", "Delete it and run this again.")) for path in paths]


def _sentences(sequence: "Sequence", records: dict[str, Any]) -> list[str]:
    """All warnings of the clips, each with the name of its video."""
    from flame_fitting.video.watching import warnings_about_faces

    cameras: dict[str, list[str]] = {}
    anybody = any(boxes for record in records.values() for boxes in record["faces"])
    for clip in sequence.clips:
        record = records[clip.path.name]
        texts = list(record["warnings"])
        if anybody and not any(record["faces"]):
            texts += ["no face is seen by this camera"] if record["faces"] else []
        elif anybody or len(sequence.clips) == 1:
            texts += warnings_about_faces(record["faces"])
        for text in texts:
            cameras.setdefault(text, []).append(clip.path.name)
    found = [f"{shown(names, 4)}: {text}." for text, names in cameras.items()]  # once where several cameras see it
    if not anybody and len(sequence.clips) > 1:
        every = [boxes for record in records.values() for boxes in record["faces"]]
        found += [f"{sequence.folder}: {text}." for text in warnings_about_faces(every)]
    counts = {record["pictures"] for record in records.values()}
    if len(counts) > 1:
        found.append(
            f"{sequence.folder}: the cameras' videos are not equally long ({min(counts)} to {max(counts)} pictures): "
            "only what all have can be tracked."
        )
    return found


def _pictures_there(manifest: Manifest) -> int:
    return sum(record["pictures"] for record in manifest.result["clips"].values())


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of(STAGE)
