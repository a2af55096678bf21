"""The pictures of a capture: cameras of all of them at hand, pixels when they are asked for.

Pixels are kept on the device as the bytes that they were read as, four of each, up to a bound; what was asked for
longest ago goes first. What will be asked for soon can be read in the background meanwhile.
"""

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from flame_fitting.capture.camera import clip_from_world, move_camera, scaled_intrinsics
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import replace_background, to_uint8
from flame_fitting.errors import InputError
from flame_fitting.fit.views import ViewSet, area_resized, common_size, stack_rgba

NEAR, FAR = 0.6, 0.8
"""What is drawn lies so far (m) before and behind the reference frame's origin."""
ZOOMED = 5.0
"""Of cameras whose focal length is not known, so many times the assumed one, or a part of it, at most."""


class Pictures:
    """B pictures of one size, of one or many timesteps. Handed out as `ViewSet`s."""

    def __init__(
        self,
        cameras: ViewSet,
        read: Callable[[int], Tensor],
        limit: int,
    ) -> None:
        """`cameras` is a `ViewSet` of all views without pixels, rgba (0, H, W, 4), on the device.

        `read` gives the pixels (H, W, 4) uint8 of a row; it is called from several threads. At most `limit` bytes are
        kept, and what is handed out at the moment.
        """
        self._all, self._read, self._limit = cameras, read, limit
        self._row = list(range(len(cameras.views)))
        """Rows by which pixels are read and kept: a choice of timesteps counts its own from 0."""
        self._cache: OrderedDict[int, Future[Tensor]] = OrderedDict()
        self._guard = threading.Lock()
        self._pool = ThreadPoolExecutor(thread_name_prefix="pictures")

    def __len__(self) -> int:
        """B."""
        return len(self._all.views)

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W)."""
        return self._all.resolution

    @property
    def kept_bytes(self) -> int:
        """Of pictures in the cache."""
        return len(self._cache) * self._bytes_each

    def rows(self, frames: Sequence[int] | None = None, max_yaw: float | None = None) -> list[int]:
        """Rows of the pictures of some timesteps (rows of the parameters; all by default).

        With `max_yaw` those whose camera is at most that far (degrees) around the head from its front; all where no
        camera of these timesteps is.
        """
        timestep = self._all.timestep.cpu().numpy()
        found = np.arange(len(self)) if frames is None else np.flatnonzero(np.isin(timestep, np.asarray(frames)))
        if max_yaw is not None:
            front = found[self._all.yaw[found] <= max_yaw]
            found = front if len(front) else found
        return [int(row) for row in found]

    def of_frames(self, frames: Sequence[int]) -> "Pictures":
        """Those of some timesteps, which become the first, second ... one; the cache is shared."""
        rows = self.rows(frames)
        out = copy.copy(self)
        number = {frame: position for position, frame in enumerate(frames)}
        cameras = self._all.of_rows(rows, self._all.rgba)
        timestep = torch.tensor([number[int(frame)] for frame in cameras.timestep], device=cameras.timestep.device)
        out._all = replace(cameras, timestep=timestep)
        out._row = [self._row[row] for row in rows]
        return out

    def zoomed(self, factor: float) -> "Pictures":
        """The same through cameras with so many times the focal length; the cache is shared."""
        out = copy.copy(self)
        out._all = self._all.zoomed(factor)
        return out

    def batch(self, rows: Sequence[int]) -> ViewSet:
        """Cameras and pixels of some rows; reads those that are not there yet."""
        wanted = [self._row[row] for row in rows]
        waiting = self._ask(wanted)
        pixels = [waiting[row].result() for row in wanted]
        self._forget(keep=set(wanted))
        return self._all.of_rows(rows, torch.stack(pixels))

    def prefetch(self, rows: Sequence[int]) -> None:
        """Begins to read rows that will be asked for soon, as many as the bound allows."""
        self._ask([self._row[row] for row in rows[: max(self._limit // self._bytes_each, 1)]])

    @property
    def _bytes_each(self) -> int:
        height, width = self.resolution
        return 4 * height * width

    def _ask(self, rows: Sequence[int]) -> dict[int, "Future[Tensor]"]:
        with self._guard:
            for row in rows:
                if row not in self._cache:
                    self._cache[row] = self._pool.submit(self._load, row)
                self._cache.move_to_end(row)
            return {row: self._cache[row] for row in rows}

    def _load(self, row: int) -> Tensor:
        return self._read(row).to(self._all.clip.device)

    def _forget(self, keep: set[int]) -> None:
        """Lets go of what is beyond the bound: the rows that were asked for longest ago, none of `keep` first."""
        with self._guard:
            order = sorted(self._cache, key=lambda row: row in keep)  # stable: oldest first among each
            for row in order[: max(len(order) - self._limit // self._bytes_each, 0)]:
                del self._cache[row]


def load_pictures(
    capture: Capture,
    views: Sequence[View],
    reference_from_world: np.ndarray,
    device: torch.device | str,
    limit: int,
    background: str | None = None,
) -> Pictures:
    """The pictures and alpha maps of a capture; cameras become metric and see the reference frame.

    Views of several sizes are brought to the one that most of them have (the larger one where two are as frequent).
    `background` (white or black) goes behind the avatar by its alpha in place of the capture's own.
    """
    camera = np.stack([move_camera(view.world_to_camera, reference_from_world) for view in views])
    size = common_size(views)
    distance = np.linalg.norm(np.linalg.inv(camera)[:, :3, 3], axis=1)
    near, far = np.maximum(distance - NEAR, 0.05), distance + FAR
    if not capture.calibrated:  # another focal length moves the head as far as that is longer
        near, far = distance / ZOOMED, distance * ZOOMED
    clip = np.stack(
        [
            clip_from_world(view.K, c, view.width, view.height, n, f)
            for view, c, n, f in zip(views, camera, near, far, strict=True)
        ]
    )
    composited = capture.composited and all(view.mask_path is not None for view in views)
    behind = np.array(capture.background_color, dtype=np.float32)
    if background is not None and not composited:
        lacks = "no alpha maps" if capture.composited else "pictures with their real background"
        raise InputError(f"{capture.root}: has {lacks}, so its background cannot be made {background}.")
    wanted = behind if background is None else np.full(3, float(background == "white"), dtype=np.float32)
    rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    cameras = ViewSet(
        views=list(views),
        rgba=torch.zeros(0, *size, 4, dtype=torch.uint8, device=device),
        clip=torch.as_tensor(clip, dtype=torch.float32).to(device),
        K=np.stack([scaled_intrinsics(view.K, (view.height, view.width), size) for view in views]),
        camera=camera,
        timestep=torch.tensor([rows[view.timestep] for view in views], device=device),
        background=torch.as_tensor(wanted, device=device) if composited else None,
    )
    return Pictures(cameras, partial(_read, capture, list(views), size, behind, wanted), limit)


def _read(
    capture: Capture, views: list[View], size: tuple[int, int], behind: np.ndarray, wanted: np.ndarray, row: int
) -> Tensor:
    """(H, W, 4) uint8, with the background changed from one colour (3,) to another."""
    image, alpha = capture.image_and_alpha(views[row])
    if (behind != wanted).any():
        image, _ = replace_background(image, alpha, behind, wanted)
    rgba = stack_rgba(image[None], alpha[None])[0]
    if rgba.shape[:2] == size:
        return rgba
    return torch.as_tensor(to_uint8(area_resized(rgba.float() / 255, size).numpy()))
