"""The viewer: a viser server whose scene follows a `Session` and what the panel says."""

import contextlib
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import viser
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write
from flame_fitting.log import get_logger
from flame_fitting.video.rates import USUAL, pictures_per_second
from flame_fitting.viewer import colors
from flame_fitting.viewer.cameras import ShownCamera, shown_cameras
from flame_fitting.viewer.marks import Marks
from flame_fitting.viewer.nodes import AvatarNode, CameraNodes, HeadNode, MarkNodes
from flame_fitting.viewer.opening import Viewed
from flame_fitting.viewer.panel import BESIDE, FREE, Panel
from flame_fitting.viewer.poses import load_pose, next_file, save_pose
from flame_fitting.viewer.session import Session

PICTURE_HEIGHT = 1200
"""Pixels of pictures that are saved."""
_FOV = np.radians(25.0)
_WIDEST = 1.6
"""Widths of the head, of an avatar that stands beside it without touching it."""
_IDLE = 1.0
"""Seconds after which the loop looks whether it is to end."""
_LEAST = 1 / 30
"""Seconds between two pictures."""
_PATIENCE = 60.0
"""Seconds that a browser gets for a picture."""
_OVERVIEW = 2.0
"""How far one looks at cameras from, in units of the farthest one's distance from the head."""
_logger = get_logger(__name__)


class Page:
    """A running server; `run` draws until it is interrupted. To be closed."""

    def __init__(self, viewed: Viewed, folder: Path, host: str, port: int) -> None:
        """`folder`: for pictures and poses, made when something is saved."""
        with _silent():
            self.server = viser.ViserServer(host=host, port=port, label="flame-fitting", verbose=False)
        self.viewed, self.session, self._folder = viewed, Session(viewed), folder
        self._changed, self._measured, self._through = threading.Event(), dict[int, Any](), FREE
        self._drawing = threading.Lock()
        fitted = self.session.vertices()
        self._marks, self._cameras = Marks(viewed, fitted), shown_cameras(viewed)
        self._set_up(fitted)
        fps = USUAL if viewed.capture is None else pictures_per_second(viewed.capture.root, viewed.capture.timesteps)
        avatar = self._avatar.name if self._avatar.there else None
        self.panel = Panel(
            self.server, self.session, folder, avatar, self._marks.count, self._cameras, self._changed.set, fps
        )
        self._buttons()
        self._changed.set()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.get_port()

    def run(self, ends: threading.Event | None = None) -> None:
        """Draws what changes, until Ctrl-C; for tests until `ends`."""
        while ends is None or not ends.is_set():
            began = time.monotonic()
            if self.panel.playing:
                self.session.go_to((self.session.row + 1) % self.session.timesteps)
                self.panel.refresh()
                self._changed.set()
            if self._changed.wait(_IDLE):
                self._changed.clear()
                self.draw()
            pause = 1 / self.panel.fps if self.panel.playing else _LEAST
            time.sleep(max(began + pause - time.monotonic(), 0))

    def draw(self) -> None:
        """Everything as it is set now."""
        panel, row = self.panel, self.session.row
        vertices = self.session.vertices()
        camera = self._looked_through()
        beside = self._apart if self._avatar.there and panel.layout.value == BESIDE and camera is None else 0.0
        if self._avatar.there:
            # of a moving head the avatar is that of the first moment
            self._avatar.show(bool(panel.avatar.value) and camera is None, beside)
        paint = self._paint(row)
        panel.show_legend()
        self._head.visible, self._head.wireframe = bool(panel.fit.value), bool(panel.wireframe.value)
        self._head.show(vertices, paint, panel.mode.value == colors.TEXTURE)
        shown = panel.landmarks is not None and bool(panel.landmarks.value)
        self._mark_nodes.show(shown, self._marks.detected(row), self._marks.on_head(vertices))
        self._camera_nodes.show(panel.cameras is not None and bool(panel.cameras.value) and camera is None, row)
        self._camera_nodes.show_behind(camera, row, self._middle)

    def picture(
        self, client: viser.ClientHandle, height: int = PICTURE_HEIGHT, width: int | None = None
    ) -> UInt8[ndarray, "H W 3"]:
        """What a browser shows, before white; in its own shape without a `width`."""
        width = round(height * client.camera.aspect) if width is None else width
        with self._drawing:
            drawn = client.get_render(height, width, transport_format="png", timeout=_PATIENCE)
        over = np.asarray(drawn[..., 3:], dtype=np.float64) / 255
        return (drawn[..., :3] * over + 255 * (1 - over)).round().astype(np.uint8)

    def close(self) -> None:
        """Ends the server."""
        with _silent():
            self.server.stop()

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set_up(self, fitted: Float[ndarray, "V 3"]) -> None:
        server, (low, high) = self.server, (fitted.min(axis=0), fitted.max(axis=0))
        server.scene.set_up_direction("+y")
        server.scene.configure_default_lights(cast_shadow=False)
        server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="medium")
        server.gui.main_panel.dock_right()
        self._avatar, wide = AvatarNode(server, self.viewed), float(high[0] - low[0])
        self._middle, self._apart = 0.5 * (low + high), 0.55 * (wide + min(self._avatar.width, _WIDEST * wide))
        self._head = HeadNode(server, self.viewed, self._drawing)
        self._mark_nodes = MarkNodes(server)
        self._camera_nodes = CameraNodes(server, self.viewed, self._cameras, self._look_through)
        self._home = self._middle - [0.5 * self._apart if self._avatar.there else 0.0, 0.0, 0.0]
        distance = 0.75 * float(high[1] - low[1]) / np.tan(_FOV / 2)
        first = server.initial_camera
        first.look_at, first.position = self._home, self._home + [0.0, 0.0, distance]
        first.fov, first.near, first.far = float(_FOV), 0.01, 100.0

    def _paint(self, row: int) -> colors.Paint | None:
        mode = self.panel.mode.value
        if mode == colors.REGION:
            return colors.Paint(colors.region_colors(self.viewed.head, self.panel.region.value))
        if mode != colors.DISTANCE:
            return None
        if row not in self._measured:
            self.panel.say("measuring ...")
            self._measured[row] = colors.distances(self.viewed, row)
        found = self._measured[row]
        return None if found is None else colors.distance_paint(*found)

    def _look_through(self, camera: ShownCamera) -> None:
        self.panel.camera.value = camera.name
        self._changed.set()

    def _looked_through(self) -> ShownCamera | None:
        """The camera that is looked through; browsers are put there when it is chosen, and back when it is left."""
        if self.panel.camera is None:
            return None
        name = self.panel.camera.value
        chosen = next((camera for camera in self._cameras if camera.name == name), None)
        if name != self._through:
            self._through = name
            for client in self.server.get_clients().values():
                _put(client, chosen, self._middle, self.server.initial_camera)
                if chosen is None and self.panel.cameras.value:
                    self._step_back(client)
        return chosen

    def _cameras_switched(self, event: Any) -> None:
        if event.client is not None and self.panel.cameras.value and self.panel.camera.value == FREE:
            self._step_back(event.client)

    def _step_back(self, client: viser.ClientHandle) -> None:
        """Moves a browser's view away from the head until it has most cameras before it."""
        farthest = max(float(np.linalg.norm(camera.position - self._middle)) for camera in self._cameras)
        away = client.camera.position - self._middle
        distance = float(np.linalg.norm(away))
        if 0 < distance < _OVERVIEW * farthest:
            with client.atomic():
                client.camera.position = self._middle + away * (_OVERVIEW * farthest / distance)
                client.camera.look_at = self._middle

    def _buttons(self) -> None:
        panel = self.panel
        if panel.cameras is not None:
            panel.cameras.on_update(self._cameras_switched)

        @panel.screenshot.on_click
        def _(event: Any) -> None:
            with _told(event.client):
                path = self._next("picture", "png")
                with atomic_write(path) as temporary:
                    temporary.write_bytes(_png(self.picture(event.client)))
                _tell(event.client, "Picture saved", str(path))

        @panel.download.on_click
        def _(event: Any) -> None:
            with _told(event.client):
                content = _png(self.picture(event.client))
                name = f"{self.viewed.name.replace('/', '_')}.png"
                event.client.send_file_download(name, content, save_immediately=True)

        @panel.save.on_click
        def _(event: Any) -> None:
            with _told(event.client):
                path = self._next("pose", "npz")
                save_pose(path, self.viewed.fit, self.session.pose, self.session.row)
                panel.list_poses()
                _tell(event.client, "Pose saved", str(path))

        @panel.load.on_click
        def _(event: Any) -> None:
            with _told(event.client):
                self.load(self._folder / panel.saved.value)

        @panel.upload.on_upload
        def _(event: Any) -> None:
            import tempfile

            with _told(event.client), tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / (Path(panel.upload.value.name).name or "pose.npz")
                path.write_bytes(panel.upload.value.content)
                self.load(path)

    def load(self, path: Path) -> None:
        """Shows a pose of a file."""
        self.session.show(load_pose(path, self.viewed.head, self.session.base))
        self.panel.refresh()
        self._changed.set()

    def _next(self, stem: str, suffix: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return next_file(self._folder, stem, suffix)


def _put(client: viser.ClientHandle, camera: ShownCamera | None, middle: ndarray, first: Any) -> None:
    """Moves a browser's view to a camera, or back before the face."""
    with client.atomic():
        if camera is None:
            client.camera.position, client.camera.look_at = first.position, first.look_at
            client.camera.up_direction, client.camera.fov = np.array([0.0, 1.0, 0.0]), first.fov
            return
        client.camera.fov = camera.fov_y
        client.camera.position = camera.position
        client.camera.wxyz = camera.wxyz
        ahead = float(np.linalg.norm(middle - camera.position))
        client.camera.look_at = camera.plane(ahead)[0]


def _png(picture: UInt8[ndarray, "H W 3"]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


@contextlib.contextmanager
def _told(client: viser.ClientHandle) -> Iterator[None]:
    """What a user can mend is said in the browser, and the viewer goes on."""
    try:
        yield
    except (InputError, OSError, TimeoutError) as error:
        _logger.warning("%s", error)
        _tell(client, "That did not work", str(error), "red")


def _tell(client: viser.ClientHandle, title: str, text: str, color: Any = None) -> None:
    client.add_notification(title, text, auto_close_seconds=8.0, color=color)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """viser prints addresses of its own, which are wrong over SSH."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
