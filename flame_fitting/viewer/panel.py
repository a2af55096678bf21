"""viser's panel: what can be set. It changes a `Session` and its own values, and says that something has changed."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import viser

from flame_fitting.viewer import colors
from flame_fitting.viewer.cameras import ShownCamera, camera_legend
from flame_fitting.viewer.controls import Control
from flame_fitting.viewer.nodes import DETECTED, ON_HEAD
from flame_fitting.viewer.poses import saved_poses
from flame_fitting.viewer.session import Session

BESIDE, OVERLAID = "side by side", "overlaid"
FREE = "free"
_OPEN = ("Expression", "Jaw", "Neck")
"""Groups of sliders that are unfolded at first."""
_DARK = "<style>label, .mantine-InputWrapper-label, .mantine-Text-root { color: #222 !important; }</style>"
"""viser writes names in light grey."""


class Panel:
    """All of it. `changed` is called, from any thread, when something is to be drawn anew."""

    def __init__(
        self,
        server: viser.ViserServer,
        session: Session,
        folder: Path,
        has_avatar: str | None,
        landmarks: int,
        cameras: Sequence[ShownCamera],
        changed: Callable[[], None],
        fps: float,
    ) -> None:
        """`folder`: for pictures and poses. `has_avatar`: what it is called, None without one."""
        self._gui, self._session, self._folder, self._changed = server.gui, session, folder, changed
        self._playing_fps, self._cameras, self._sliders = fps, cameras, list[tuple[Control, Any]]()
        self.avatar: Any = None
        self.cameras: Any = None
        self.camera: Any = None
        self.landmarks: Any = None
        self._about()
        if session.timesteps > 1:
            self._time()
        tabs = self._gui.add_tab_group()
        with tabs.add_tab("Show"):
            self._show(has_avatar, landmarks, cameras)
        with tabs.add_tab("Pose"):
            self._pose()
        with tabs.add_tab("Save"):
            self._save()

    @property
    def playing(self) -> bool:
        """Whether time goes on by itself."""
        return self._session.timesteps > 1 and bool(self.play.value)

    @property
    def fps(self) -> float:
        """Timesteps a second."""
        return float(self.speed.value)

    def refresh(self) -> None:
        """Puts time and sliders where the session is."""
        if self._session.timesteps > 1:
            time: Any = self.time
            time.value = self._session.row
        slider: Any
        for control, slider in self._sliders:
            slider.value = self._session.value(control)

    def list_poses(self) -> None:
        """Reads anew which poses are in the folder."""
        found = saved_poses(self._folder)
        self.saved.options = tuple(found) or ("none",)
        self.load.disabled = not found

    def say(self, text: str) -> None:
        """A word in the legend's place, until it is shown again."""
        self.legend.content, self.legend.visible = _legend([], html.escape(text)), True

    def show_legend(self) -> None:
        """What colours and points mean, for what is shown."""
        viewed, mode = self._session.viewed, self.mode.value
        self.region.visible = mode == colors.REGION
        lines = []
        if mode == colors.REGION:
            lines += colors.region_legend(viewed.head, self.region.value)
        if mode == colors.DISTANCE:
            lines.append(colors.hidden_legend())
        if self.landmarks is not None and self.landmarks.value:
            lines += [(_hex(DETECTED), "landmarks as detected"), (_hex(ON_HEAD), "landmarks on the fitted head")]
        if self.cameras is not None and self.cameras.value and self.camera.value == FREE:
            lines += [(_hex(color), f"cameras {name}") for color, name in camera_legend(self._cameras)]
        scale = colors.distance_legend() if mode == colors.DISTANCE else ""
        self.legend.content, self.legend.visible = _legend(lines, scale), bool(lines or scale)

    def _about(self) -> None:
        viewed = self._session.viewed
        self._gui.add_html(_DARK)
        lines = [f"**{html.escape(viewed.name)}**  \nhead model: {html.escape(viewed.head.name)}"]
        lines += [html.escape(note) for note in viewed.notes]
        self._gui.add_markdown("\n\n".join(lines))

    def _time(self) -> None:
        last = self._session.timesteps - 1
        name = "timestep" if self._session.viewed.ordered else "moment"
        self.time = self._gui.add_slider(name, 0, last, 1, 0)
        self.play = self._gui.add_checkbox("play", False)
        self.speed = self._gui.add_slider("per second", 1.0, 30.0, 1.0, min(max(round(self._playing_fps), 1), 30))

        @self.time.on_update
        def _(event: Any) -> None:
            if event.client is not None:
                self._session.go_to(self.time.value)
                self._changed()

        self.play.on_update(lambda event: self._changed())

    def _show(self, has_avatar: str | None, landmarks: int, cameras: Sequence[ShownCamera]) -> None:
        gui, viewed = self._gui, self._session.viewed
        self.fit = gui.add_checkbox("fitted head", True)
        if has_avatar is not None:
            self.avatar = gui.add_checkbox(has_avatar, True)
            self.layout = gui.add_dropdown("layout", (BESIDE, OVERLAID))
        self.mode = gui.add_dropdown("colours", colors.modes_of(viewed), hint="Of the fitted head")
        names = (colors.ALL_REGIONS, *colors.regions_of(viewed.head))
        self.region = gui.add_dropdown("region", names, visible=False)
        self.wireframe = gui.add_checkbox("wireframe", False, hint="Triangles of the fitted head")
        if landmarks:
            self.landmarks = gui.add_checkbox("landmarks", False)
        if cameras:
            self.cameras = gui.add_checkbox("cameras", False, hint="Click one to look through it")
            choices = (FREE, *(camera.name for camera in cameras))
            self.camera = gui.add_dropdown("look through", choices, hint="Its picture stands behind the head")
        self.legend = gui.add_html("", visible=False)
        watched = (self.fit, self.avatar, self.mode, self.region, self.wireframe, self.landmarks, self.cameras)
        for one in (*watched, self.camera, self.layout if has_avatar is not None else None):
            if one is not None:
                one.on_update(lambda event: self._changed())

    def _pose(self) -> None:
        buttons = self._gui.add_button_group("", ("as fitted", "at rest"))

        @buttons.on_click
        def _(event: Any) -> None:
            if buttons.value == "as fitted":
                self._session.as_fitted()
            else:
                self._session.at_rest()
            self.refresh()
            self._changed()

        group = None
        folder: Any = None
        for control in self._session.controls:
            if control.group != group:
                group = control.group
                folder = self._gui.add_folder(group, expand_by_default=group in _OPEN)
            with folder:
                self._add_slider(control)

    def _add_slider(self, control: Control) -> None:
        value = self._session.value(control)
        hint = control.hint or None
        slider = self._gui.add_slider(control.name, control.low, control.high, control.step, value, hint=hint)

        @slider.on_update
        def _(event: Any) -> None:
            if event.client is not None:
                self._session.move(control, slider.value)
                self._changed()

        self._sliders.append((control, slider))

    def _save(self) -> None:
        gui = self._gui
        gui.add_markdown(f"Files go to `{self._folder}`.")
        self.screenshot = gui.add_button("Save picture", hint="What you see, as PNG")
        self.download = gui.add_button("Download picture", hint="The same, to the machine of this browser")
        self.save = gui.add_button("Save pose", hint="As parameters of a fit (.npz)")
        self.saved = gui.add_dropdown("saved poses", ("none",))
        self.load = gui.add_button("Load pose", disabled=True)
        self.upload = gui.add_upload_button("Load pose of this machine", mime_type=".npz")
        self.list_poses()


def _hex(color: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in color)


def _legend(lines: Sequence[tuple[str, str]], above: str = "") -> str:
    """Coloured squares with names, below some HTML."""
    square = "display:inline-block;width:0.8em;height:0.8em;margin-right:0.5em;border-radius:2px;background:"
    rows = [f'<div><span style="{square}{color}"></span>{html.escape(name)}</div>' for color, name in lines]
    return f'<div style="font-size:0.85em;padding:0 1em;color:#222">{above}{"".join(rows)}</div>'
