"""What stands in viser's scene: avatar, fitted head, landmarks, cameras."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import viser
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.browser_glb import BrowserMesh, browser_glb
from flame_fitting.avatar.shown_avatar import avatar_glb, width_of
from flame_fitting.avatar.tone_mapping import SHOWN_WHITE, shown_colors, shown_picture
from flame_fitting.head.seams import split_at_seams
from flame_fitting.maths.normals import vertex_normals
from flame_fitting.report.figures import as_jpeg
from flame_fitting.viewer.cameras import ShownCamera, picture_of, view_at
from flame_fitting.viewer.colors import GREY, Paint, shading
from flame_fitting.viewer.opening import Viewed

DETECTED, ON_HEAD = (30, 110, 220), (230, 90, 20)
"""Colours of landmarks."""
_WIRE, _POINTS = (25, 25, 25), (150, 150, 150)
_SWAP, _SLOWEST = 0.05, 0.5
"""Seconds that a browser gets at least to read a coloured head before it is shown, and at most to draw a picture."""
_PROBE = 16
"""Pixels of that picture's side."""
_THUMBNAIL, _PICTURE = 256, 1024
"""Pixels of the longer side of pictures in cameras, and of the one behind the head."""
_FRUSTUM = 0.06
_BEHIND = 0.35
"""Metres from the head's middle to the picture behind it."""


class HeadNode:
    """The fitted head. In one colour it is one mesh, whose vertices are moved.

    viser's meshes have one colour, and a GLB is empty while a browser reads it. So a coloured head is two GLBs by
    turns: one is shown while the other one is read.
    """

    def __init__(self, server: viser.ViserServer, viewed: Viewed, drawing: threading.Lock) -> None:
        """`drawing`: held while a browser is asked for a picture."""
        self._server, self._head, self._drawing = server, viewed.head, drawing
        self._faces = viewed.head.faces.cpu().numpy()
        self._split = split_at_seams(viewed.head)
        texture = viewed.fit.texture
        self._picture = None if texture is None or self._split.uv is None else as_jpeg(shown_picture(texture), 95)
        self._plain: Any = None
        self._wire: Any = None
        self._colored: list[Any] = []
        self.visible, self.wireframe = True, False

    def show(self, vertices: Float[ndarray, "V 3"], paint: Paint | None, textured: bool) -> None:
        """Draws it; without `paint` and texture in one colour."""
        self._show_wire(vertices)
        if not self.visible:
            self._hide()
        elif paint is None and not (textured and self._picture is not None):
            self._show_plain(vertices)
        else:
            self._show_colored(self._glb(vertices, paint))

    def _glb(self, vertices: Float[ndarray, "V 3"], paint: Paint | None) -> bytes:
        if paint is not None:  # lights of the scene would make colours brighter than those of the legend
            shade = shading(vertex_normals(vertices, self._faces)).repeat(3, axis=1)
            shade = shade if paint.colors is None else shown_colors(shade * paint.colors)
            white = SHOWN_WHITE if paint.colors is None else (1.0, 1.0, 1.0, 1.0)
            clamped = ("clamp", "clamp")
            mesh = BrowserMesh(vertices, self._faces, paint.uv, paint.picture, shade, white, wrap=clamped, unlit=True)
            return browser_glb([mesh])
        own, faces = vertices[self._split.vertex], self._split.faces
        mesh = BrowserMesh(own, faces, self._split.uv, self._picture, base_color=SHOWN_WHITE, unlit=True)
        return browser_glb([mesh])

    def _show_plain(self, vertices: Float[ndarray, "V 3"]) -> None:
        if self._plain is None:
            add = self._server.scene.add_mesh_simple
            self._plain = add("/fit/plain", vertices, self._faces, color=GREY, side="double")
        else:
            self._plain.vertices = vertices
        with self._server.atomic():
            self._plain.visible = True
            for one in self._colored:
                one.visible = False

    def _show_colored(self, content: bytes) -> None:
        if not self._colored:
            add = self._server.scene.add_glb
            self._colored = [add(f"/fit/colored_{k}", content, visible=k == 0) for k in range(2)]
        else:
            front, back = self._colored
            back.glb_data = content
            self._server.flush()
            self._wait()
            with self._server.atomic():
                back.visible, front.visible = True, False
            self._colored = [back, front]
        if self._plain is not None:
            self._plain.visible = False

    def _wait(self) -> None:
        """Until browsers, each as quick as it is, have had the time to read what was sent: they draw small pictures."""
        began = time.monotonic()
        for client in self._server.get_clients().values():
            with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError), self._drawing:
                for _ in range(2):
                    client.get_render(_PROBE, _PROBE, timeout=_SLOWEST)
        time.sleep(max(_SWAP - (time.monotonic() - began), 0))

    def _show_wire(self, vertices: Float[ndarray, "V 3"]) -> None:
        if self.wireframe and self._wire is None:
            add = self._server.scene.add_mesh_simple
            self._wire = add("/wireframe", vertices, self._faces, color=_WIRE, wireframe=True, opacity=0.35)
        elif self.wireframe:
            self._wire.vertices = vertices
        if self._wire is not None:
            self._wire.visible = self.wireframe

    def _hide(self) -> None:
        with self._server.atomic():
            for one in (self._plain, *self._colored):
                if one is not None:
                    one.visible = False


class AvatarNode:
    """The avatar, or points of its surface where its file is not there."""

    def __init__(self, server: viser.ViserServer, viewed: Viewed) -> None:
        self._node: Any = None
        self.name, self.width = "avatar", 0.0
        content = None if viewed.avatar is None else avatar_glb(viewed.avatar, viewed.shown_from_world)
        if content is not None:
            self._node = server.scene.add_glb("/avatar", content)
            assert viewed.avatar is not None
            self.width = width_of(viewed.avatar, viewed.shown_from_world)
        elif (points := viewed.surface_points()) is not None:
            self.name, self.width = "avatar (points)", float(np.ptp(points[:, 0]))
            add = server.scene.add_point_cloud
            self._node = add("/avatar", points, _POINTS, point_size=0.0007, point_shape="circle", precision="float32")

    @property
    def there(self) -> bool:
        """Whether there is anything of it."""
        return self._node is not None

    def show(self, visible: bool, beside: float) -> None:
        """So many metres to the right of the fitted head, which is on the left of who looks at it."""
        if self._node is not None:
            self._node.position = (-beside, 0.0, 0.0)
            self._node.visible = visible


class MarkNodes:
    """Two clouds of landmarks."""

    def __init__(self, server: viser.ViserServer) -> None:
        none = np.zeros((0, 3), dtype=np.float32)
        look: dict[str, Any] = {"point_shape": "circle", "precision": "float32", "visible": False}
        add = server.scene.add_point_cloud
        self._detected = add("/landmarks/detected", none, DETECTED, point_size=0.0012, **look)
        self._on_head = add("/landmarks/on_head", none, ON_HEAD, point_size=0.0010, **look)

    def show(self, visible: bool, detected: Float[ndarray, "m 3"], on_head: Float[ndarray, "n 3"]) -> None:
        """Draws them."""
        for node, points, color in ((self._detected, detected, DETECTED), (self._on_head, on_head, ON_HEAD)):
            if visible:
                node.points = points.astype(np.float32)
                node.colors = np.tile(np.array(color, dtype=np.uint8), (len(points), 1))
            node.visible = visible and len(points) > 0


class CameraNodes:
    """Frusta with the pictures that the cameras took at a timestep, and one picture behind the head."""

    def __init__(
        self,
        server: viser.ViserServer,
        viewed: Viewed,
        cameras: list[ShownCamera],
        clicked: Callable[[ShownCamera], None],
    ) -> None:
        """`clicked` is called, from any thread, with the camera that somebody has clicked."""
        self._server, self._viewed, self._cameras, self._clicked = server, viewed, cameras, clicked
        self._nodes: dict[str, Any] = {}
        self._row: int | None = None
        self._behind: tuple[Any, str, int] | None = None

    def show(self, visible: bool, row: int) -> None:
        """Draws the frusta; pictures are read when they are first shown."""
        if visible and self._row != row:
            self._row = row
            for camera in self._cameras:
                self._draw(camera, row)
        for node in self._nodes.values():
            node.visible = visible

    def _draw(self, camera: ShownCamera, row: int) -> None:
        view = view_at(self._viewed, camera, row)
        picture = None if view is None else picture_of(self._viewed, view, _THUMBNAIL)
        node = self._nodes.get(camera.name)
        if node is not None:
            node.image = picture
            return
        node = self._server.scene.add_camera_frustum(
            f"/cameras/{camera.view.camera}",
            camera.fov_y,
            camera.aspect,
            scale=_FRUSTUM,
            thickness=2.0,
            thickness_units="screen",
            color=camera.color,
            image=picture,
            wxyz=camera.wxyz,
            position=camera.position,
        )

        @node.on_click
        def _(event: object) -> None:
            self._clicked(camera)

        self._nodes[camera.name] = node

    def show_behind(self, camera: ShownCamera | None, row: int, middle: Float[ndarray, " 3"]) -> None:
        """The picture of one camera behind the head, where it covers what the camera sees; None takes it away."""
        wanted = None if camera is None else view_at(self._viewed, camera, row)
        if camera is None or wanted is None:
            if self._behind is not None:
                self._behind[0].remove()
                self._behind = None
            return
        if self._behind is not None and self._behind[1:] == (camera.name, row):
            return
        picture = picture_of(self._viewed, wanted, _PICTURE)
        if self._behind is not None and self._behind[1] == camera.name:
            self._behind[0].image = picture
            self._behind = (self._behind[0], camera.name, row)
            return
        self.show_behind(None, row, middle)
        distance = float(np.linalg.norm(middle - camera.position)) + _BEHIND
        place, width, height = camera.plane(distance)
        add = self._server.scene.add_image
        node = add("/picture", picture, width, height, wxyz=camera.wxyz, position=place, cast_shadow=False)
        self._behind = (node, camera.name, row)
