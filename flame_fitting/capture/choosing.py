"""What `ReadOptions` make of a capture that was read whole: which views, how large, on which background."""

from collections.abc import Sequence
from dataclasses import replace

from flame_fitting.capture.camera import scaled_intrinsics
from flame_fitting.capture.camera_names import camera_called
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.layouts.folder import picture_size, reduced_name
from flame_fitting.capture.making import Backdrop, PictureMaking
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.capture.subset import select
from flame_fitting.errors import InputError
from flame_fitting.files import SMALLEST_PICTURE

_TRAINED = (8, 7, 9, 4, 10, 5, 13, 2, 12, 1, 14, 0)
RIG_SIZE = 16
"""Cameras of NeRSemble's rig, which divisions are defined for."""
DIVISIONS: dict[str, tuple[int, ...]] = {
    "train": _TRAINED,
    "val": tuple(number for number in range(RIG_SIZE) if number not in _TRAINED),
    "front-view": (8,),
    "side-view": (0,),
    "six-view": (0, 1, 7, 8, 14, 15),
}
"""VHAP's parts of the rig, by the cameras' numbers in the order of their names."""
_AGAIN = "Make the pictures anew: flame-fitting preprocess"


def with_options(capture: Capture, options: ReadOptions) -> Capture:
    """The capture (whose views are those of the whole folder, at full size) as the options want it."""
    if options == ReadOptions():
        return capture
    out = _with_heldout(_chosen(capture, options), options)
    notes = list(out.notes)
    views = out.views
    if options.n_downsample_rgb is not None and options.n_downsample_rgb > 1:
        views = _downsampled(out, options.n_downsample_rgb, options.prefix)
    if options.scale_factor != 1:
        views = [_resized(view, *_times(view, options)) for view in views]
    out = replace(out, views=views)
    if options.background is not None:
        out, said = _on_background(out, options.background)
        notes += said
    if not options.use_alpha_map:
        out = replace(out, views=[replace(view, mask_path=None) for view in out.views])
    return replace(out, notes=tuple(notes))


def _chosen(capture: Capture, options: ReadOptions) -> Capture:
    timesteps, cameras = list(capture.timestep_ids), list(capture.camera_ids)
    if options.division is not None:
        cameras = _division(capture, options, cameras)
    timesteps, cameras = select(options.subset, timesteps, cameras, f"{options.prefix}subset")
    kept_timesteps, kept_cameras = frozenset(timesteps), frozenset(cameras)
    views = [view for view in capture.views if view.timestep in kept_timesteps and view.camera in kept_cameras]
    if not views:
        raise InputError(f"{capture.root}: has no picture of what {options.prefix}subset {options.subset} chooses.")
    return replace(capture, views=views)


def heldout_timesteps(timesteps: Sequence[int], every: int) -> list[int]:
    """Every `every`-th (2 or more) of some timesteps: from the middle of each group, so never the first one."""
    return list(timesteps[every // 2 :: every])


def _with_heldout(capture: Capture, options: ReadOptions) -> Capture:
    """The capture with the role `heldout` for the views that the options keep apart."""
    apart = frozenset(heldout_timesteps(capture.timesteps, options.heldout_every) if options.heldout_every else ())
    ids = {camera: capture.camera_ids[camera] for camera in capture.cameras}
    cameras = frozenset(
        camera_called(name, ids, f"{options.prefix}heldout-cameras") for name in options.heldout_cameras
    )
    if not apart and not cameras:
        return capture
    views = [
        replace(view, role="heldout") if view.timestep in apart or view.camera in cameras else view
        for view in capture.views
    ]
    if all(view.role == "heldout" for view in views):
        raise InputError(f"{options.prefix}heldout-cameras: nothing of {capture.root} is left to fit. Name fewer.")
    return replace(capture, views=views)


def _division(capture: Capture, options: ReadOptions, cameras: list[int]) -> list[int]:
    name = str(options.division).replace("_", "-")
    if name not in DIVISIONS:
        raise InputError(f"{options.prefix}division {name}: no such division. There are: {', '.join(DIVISIONS)}.")
    if not capture.kind.startswith("nersemble"):
        raise InputError(
            f"{options.prefix}division {name}: divisions are of NeRSemble's rig, {capture.root} is none. "
            f"Choose cameras with {options.prefix}subset."
        )
    if len(cameras) != RIG_SIZE:
        raise InputError(
            f"{options.prefix}division {name}: divisions are of a rig with {RIG_SIZE} cameras, {capture.root} has "
            f"{len(cameras)}. Choose cameras with {options.prefix}subset."
        )
    return [camera for place, camera in enumerate(cameras) if place in DIVISIONS[name]]


def _downsampled(capture: Capture, n: int, prefix: str) -> list[View]:
    """The views with their pictures from `images_<n>`, or scaled to whole pixels where that folder is not there."""
    sizes: dict[tuple[int, tuple[int, int]], tuple[int, int]] = {}
    out = []
    for view in capture.views:
        if min(view.width, view.height) < n:
            raise InputError(f"{prefix}n-downsample-rgb {n}: leaves nothing of {capture.root / view.file_path}.")
        making = view.making or _as_stored(view)
        name = None if view.file_path.startswith(f"images_{n}/") else reduced_name(capture.root, view.file_path, n)
        if name is None:
            out.append(_resized(view, max(1, view.width // n), max(1, view.height // n)))
            continue
        key = (view.camera, making.stored)
        if key not in sizes:
            sizes[key] = picture_size(capture.root / name, _AGAIN)
        width, height = sizes[key]
        if abs(width * n - view.width) >= 2 * n or abs(height * n - view.height) >= 2 * n:
            raise InputError(
                f"{capture.root / name}: is {width} x {height}, {capture.root / view.file_path} "
                f"{view.width} x {view.height}, which is not {n} times as large. {_AGAIN}."
            )
        mask = name if view.mask_path == view.file_path else view.mask_path
        kept = replace(view, file_path=name, mask_path=mask, making=replace(making, stored=(width, height)))
        out.append(_resized(kept, width, height))
    return out


def _times(view: View, options: ReadOptions) -> tuple[int, int]:
    width, height = round(view.width * options.scale_factor), round(view.height * options.scale_factor)
    if min(width, height) < SMALLEST_PICTURE:
        raise InputError(
            f"{options.prefix}scale-factor {options.scale_factor}: next to nothing is left of {view.width} x "
            f"{view.height} px (less than {SMALLEST_PICTURE}). Give a larger one."
        )
    return width, height


def _resized(view: View, width: int, height: int) -> View:
    """The view with a picture of another size: its borders stay, so K follows the true ratio of the sizes."""
    K = scaled_intrinsics(view.K, (view.height, view.width), (height, width))
    return replace(view, K=K, width=width, height=height, making=view.making or _as_stored(view))


def _as_stored(view: View) -> PictureMaking:
    return PictureMaking(stored=(view.width, view.height), full=(view.width, view.height))


def _on_background(capture: Capture, color: tuple[float, float, float]) -> tuple[Capture, list[str]]:
    """The capture with another background behind its pictures, and what is to be said of those without alpha."""
    old = capture.background_color if capture.composited else None
    lacking = [view for view in capture.views if view.mask_path is None]
    if len(lacking) == len(capture.views):
        return capture, [f"{capture.root}: has no alpha maps, so the background of its pictures stays as it is"]
    if old == color:
        return capture, []
    views = [view if view.mask_path is None else _on(view, color, old) for view in capture.views]
    said = f"{capture.root}: {len(lacking)} of {len(views)} pictures have no alpha map: their background stays"
    return replace(capture, views=views, background_color=color, composited=True), [said] if lacking else []


def _on(view: View, color: tuple[float, float, float], old: tuple[float, float, float] | None) -> View:
    """A view with alpha over a background; `old` is what its file stands on, None where that is the real one."""
    assert view.mask_path is not None
    making = view.making or _as_stored(view)
    replaces = old if making.backdrop is None else making.backdrop.replaces
    return replace(view, making=replace(making, backdrop=Backdrop(color, view.mask_path, replaces)))
