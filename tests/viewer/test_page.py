"""The viewer in a browser: it shows the head the right way up before the face, sliders move it, buttons save."""

import contextlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from flame_fitting.fit.result import checked_parameters
from flame_fitting.head.loading import load_head
from flame_fitting.report.error_maps import HIDDEN
from flame_fitting.report.figures import colored
from flame_fitting.viewer.opening import Viewed
from tests.export.sequences import moving_fit
from tests.synthetic import known_fit, render_case, save_case, similarity
from tests.toy import toy_head
from tests.viewer.browser import CHROMIUM, PATIENCE, Browser, until

pytest.importorskip("viser", reason="viser is not installed: pip install 'flame-fitting[view]'")
if CHROMIUM is None:
    pytest.skip("no Chromium here", allow_module_level=True)

from flame_fitting.viewer import colors
from flame_fitting.viewer import page as page_module
from flame_fitting.viewer.nodes import _FRUSTUM
from flame_fitting.viewer.page import Page

SIZE = (800, 560)
"""Of the browser's window, px."""
Picture = np.ndarray


@dataclass
class Shown:
    """A viewer and a browser that shows it."""

    page: Page
    browser: Browser
    folder: Path

    def picture(self) -> Picture:
        """(H, W, 3), what the one browser draws."""
        (client,) = self.page.server.get_clients().values()

        def drawn() -> Picture | None:
            try:
                return self.page.picture(client, 420, 360)
            except TimeoutError:  # software WebGL on a busy machine
                return None

        return until(drawn, "the browser draws no picture")

    def settled(self) -> Picture:
        """The picture when it stays as it is, and there is something in it."""
        return self.changed(np.zeros(3))

    def comes_back(self, before: Picture) -> None:
        """Waits until the picture is what it was."""
        until(lambda: np.abs(self.picture().astype(float) - before).mean() < 1.0, "it does not come back")

    def camera_before_others(self) -> tuple[str, float, float]:
        """Name of the camera whose frustum nothing hides, and where on the page (x, y px) its picture's middle is."""
        (client,) = self.page.server.get_clients().values()
        box = self.browser.evaluate(
            "(({x, y, width, height}) => [x, y, width, height])"
            "(document.querySelector('canvas').getBoundingClientRect())"
        )
        camera, found = client.camera, []
        axes = Rotation.from_quat(np.roll(camera.wxyz, -1)).as_matrix()
        for one in self.page._cameras:
            volume = np.tan(one.fov_y / 2) ** 2 * one.aspect / 3  # as viser scales a frustum
            place = (one.plane(_FRUSTUM / np.cbrt(volume))[0] - camera.position) @ axes
            x, y = 0.5 * box[3] / np.tan(camera.fov / 2) * place[:2] / place[2]
            if place[2] > 0 and abs(x) < 0.45 * box[2] and abs(y) < 0.45 * box[3]:
                found.append((place[2], one.name, box[0] + box[2] / 2 + x, box[1] + box[3] / 2 + y))
        _, name, x, y = min(found)
        return name, x, y

    def changed(self, before: Picture) -> Picture:
        """The picture when it has become another one, and stays so."""

        def other() -> Picture | None:
            now, then = self.picture(), self.picture()
            is_other = np.abs(now.astype(float) - before).mean() > 0.2 and (now.min(axis=2) < 200).mean() > 0.01
            return now if is_other and np.abs(now.astype(float) - then).mean() < 0.01 else None

        return until(other, "the picture stays as it is")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The open head with a texture that is red on the subject's left, blue on its right and darker below."""
    folder, head = tmp_path_factory.mktemp("page"), load_head("open")
    fit = known_fit(head, similarity())
    fit.parameters["expr"][:] = 0
    fit.parameters["shape"][:] = 0
    fit.parameters["jaw_pose"][:] = 0
    fit.texture = _sided(head)
    capture = render_case(folder, head, fit, n_fit=2, n_heldout=1)
    fit.folder = save_case(folder / "fit", fit, capture)
    with (
        pytest.MonkeyPatch.context() as patched,
        serving(Viewed(fit, head, capture), folder / "view") as page,
        Browser(f"http://127.0.0.1:{page.port}", SIZE, scale=0.5) as browser,
    ):
        patched.setattr(page_module, "_PATIENCE", PATIENCE)
        browser.wait_for("colours")
        until(lambda: len(page.server.get_clients()) == 1, "the browser does not connect")
        one = Shown(page, browser, folder / "view")
        until(lambda: (one.picture().min(axis=2) < 200).any(), "nothing is drawn")
        yield one


@contextlib.contextmanager
def serving(viewed: Viewed, folder: Path) -> Iterator[Page]:
    """A viewer that runs."""
    ends = threading.Event()
    with Page(viewed, folder, "127.0.0.1", 18080) as page:
        drawing = threading.Thread(target=page.run, args=(ends,), daemon=True)
        drawing.start()
        try:
            yield page
        finally:
            ends.set()
            drawing.join(PATIENCE)


def _sided(head) -> Picture:
    """Texture of the open head by the side that its triangles lie on."""
    import cv2

    size = 256
    texture = np.full((size, size, 3), 128, dtype=np.uint8)
    places, uv = head.v_template.numpy(), head.uv.numpy()
    for corners, uv_corners in zip(head.faces.numpy(), head.uv_faces.numpy(), strict=True):
        middle = places[corners].mean(axis=0)
        shade = 230 if middle[1] > 0 else 110
        color = (shade, 20, 20) if middle[0] > 0 else (20, 20, shade)
        points = (uv[uv_corners] * [1, -1] + [0, 1]) * size
        cv2.fillConvexPoly(texture, points.round().astype(np.int32), color)
    return texture


def places(picture: Picture, channel: int) -> np.ndarray:
    """Rows and columns (n, 2) of pixels that are red (0) or blue (2)."""
    other = picture[..., 2 - channel].astype(int)
    return np.argwhere(picture[..., channel].astype(int) - other > 40)


def test_it_stands_upright_before_the_face(shown: Shown) -> None:
    picture = shown.picture()
    height, width = picture.shape[:2]
    red, blue = places(picture, 0), places(picture, 2)
    assert len(red) > 0.02 * height * width and len(blue) > 0.02 * height * width
    assert red[:, 1].mean() > blue[:, 1].mean() + 0.05 * width  # its left is on the right of who looks at it
    both = np.concatenate([red, blue])
    assert both[:, 0].min() > 0.02 * height and both[:, 0].max() < 0.98 * height
    bright = picture[both[:, 0], both[:, 1]].max(axis=1) > 160
    assert both[bright][:, 0].mean() < both[~bright][:, 0].mean() - 0.1 * height


def test_a_slider_moves_the_head_and_as_fitted_takes_it_back(shown: Shown) -> None:
    before = shown.settled()
    shown.browser.click("Pose")
    shown.browser.set("turn to its left", "60")
    turned = shown.changed(before)
    # its face is on the right now, and shows more of its right side
    assert len(places(turned, 2)) > 1.2 * len(places(before, 2))
    assert shown.page.session.pose["neck_pose"][1] == pytest.approx(np.radians(60))
    shown.browser.click("as fitted")
    shown.comes_back(before)
    assert not shown.page.session.pose["neck_pose"].any()


def test_buttons_save_picture_and_pose_and_load_what_was_saved(shown: Shown, tmp_path: Path) -> None:
    browser, session = shown.browser, shown.page.session
    browser.click("Pose")
    browser.set("open", "15")
    until(lambda: session.pose["jaw_pose"][0] > 0.2, "the slider does nothing")
    shown.settled()
    browser.click("Save")
    browser.click("Save picture")
    path = shown.folder / "picture_0001.png"
    until(path.is_file, "no picture is saved")
    saved = np.asarray(Image.open(io.BytesIO(path.read_bytes())))
    assert saved.shape[0] == 1200 and len(places(saved, 0)) > 1000
    browser.download_to(tmp_path)
    browser.click("Download picture")
    (path,) = until(lambda: list(tmp_path.glob("*.png")) or None, "no picture is downloaded")
    assert path.name.endswith("_fit.png")
    downloaded = until(lambda: _picture_in(path), "the downloaded picture is never whole")
    assert downloaded.shape == saved.shape and np.abs(downloaded.astype(float) - saved).mean() < 1.0
    browser.click("Save pose")
    path = shown.folder / "pose_0001.npz"
    until(path.is_file, "no pose is saved")
    with np.load(path) as file:
        parameters, _ = checked_parameters(path, dict(file))
    np.testing.assert_allclose(parameters["jaw_pose"], [[np.radians(15), 0, 0]], atol=1e-6)
    session.as_fitted()
    until(lambda: not shown.page.panel.load.disabled, "the pose is not listed")
    browser.click("Load pose")
    until(lambda: session.pose["jaw_pose"][0] > 0.2, "the pose is not loaded")
    session.as_fitted()
    browser.upload(path)
    until(lambda: session.pose["jaw_pose"][0] > 0.2, "the pose of the browser's machine is not loaded")
    (tmp_path / "none.npz").write_bytes(b"no pose")
    browser.upload(tmp_path / "none.npz")
    browser.wait_for("none.npz: not a readable .npz file")
    session.as_fitted()
    shown.page.panel.refresh()


def _picture_in(path: Path) -> Picture | None:
    try:
        return np.asarray(Image.open(io.BytesIO(path.read_bytes())))
    except OSError:  # the browser still writes it
        return None


def test_distances_have_the_colours_of_their_scale(shown: Shown) -> None:
    browser, before = shown.browser, shown.settled()
    browser.click("Show")
    browser.tick("avatar (points)")
    alone = shown.changed(before)
    browser.choose("colours", colors.DISTANCE)
    picture = shown.changed(alone)
    browser.wait_for("mm from the avatar's surface")
    browser.wait_for("3 or more")
    browser.wait_for("shown by no view")
    drawn = picture[picture.min(axis=2) < 235].astype(float)
    hidden = np.ptp(drawn, axis=1) < 8  # two views leave some of it
    assert 0.02 < hidden.mean() < 0.5 and np.median(drawn[hidden]) <= HIDDEN
    scale = colored(np.linspace(0, 1, 64)[None])[0].astype(float)
    hues, wanted = (some / some.max(axis=1, keepdims=True) for some in (drawn[~hidden], scale))
    apart = np.abs(hues[:, None] - wanted).max(axis=2)
    assert np.median(apart.min(axis=1)) < 0.08  # light on the head moves them a little
    nearest = apart.argmin(axis=1)
    assert (nearest < 20).mean() > 0.5  # the avatar is the fit
    assert np.quantile(drawn[~hidden].max(axis=1) - scale[nearest].max(axis=1), 0.9) < 8  # not brighter than the legend
    browser.choose("colours", colors.TEXTURE)
    browser.tick("avatar (points)")
    shown.comes_back(before)


def test_regions_are_highlighted(shown: Shown) -> None:
    browser, before = shown.browser, shown.settled()
    browser.click("Show")
    browser.choose("colours", colors.PLAIN)
    plain = shown.changed(before)
    body = plain[(plain.min(axis=2) < 235)].astype(int)
    assert np.abs(body.max(axis=1) - body.min(axis=1)).mean() < 25  # grey
    browser.choose("colours", colors.REGION)
    regions = shown.changed(plain)
    browser.wait_for("chin")
    browser.choose("region", "lips")
    lips = shown.changed(regions)
    rows, columns = np.nonzero(lips[..., 0].astype(int) - lips[..., 2] > 80)
    height, width = lips.shape[:2]
    assert len(rows) > 20 and np.ptp(columns) < 0.3 * width and np.ptp(rows) < 0.15 * height
    browser.choose("colours", colors.TEXTURE)
    shown.comes_back(before)


def test_a_camera_that_is_clicked_is_looked_through(shown: Shown) -> None:
    browser, panel, before = shown.browser, shown.page.panel, shown.settled()
    (client,) = shown.page.server.get_clients().values()
    first = client.camera.position
    browser.click("Show")
    browser.tick("cameras")
    browser.wait_for("cameras held out")
    overview = shown.changed(before)
    assert np.linalg.norm(client.camera.position) > 1.2 * np.linalg.norm(first)  # it steps back to see them
    name, x, y = shown.camera_before_others()
    browser.press(x, y)
    until(lambda: panel.camera.value == name, f"{name} is not looked through")
    through = shown.changed(overview)
    view = next(camera.view for camera in shown.page._cameras if camera.name == name)
    np.testing.assert_allclose(client.camera.position, shown.page._cameras[view.camera].position, atol=1e-3)
    assert (through.min(axis=2) < 235).mean() > 0.1
    browser.choose("look through", "free")
    browser.tick("cameras")
    client.camera.position, client.camera.look_at = first, shown.page.server.initial_camera.look_at
    shown.comes_back(before)


def test_time_moves_the_head(shown: Shown, tmp_path: Path) -> None:
    head = toy_head()
    moving = Viewed(moving_fit(head), head)
    with serving(moving, tmp_path) as page:
        shown.browser.go(f"http://127.0.0.1:{page.port}")
        shown.browser.wait_for("timestep")
        until(lambda: len(page.server.get_clients()) == 1, "the browser does not connect")
        other = Shown(page, shown.browser, tmp_path)
        before = other.settled()
        shown.browser.set("timestep", "3")
        other.changed(before)
        assert page.session.row == 3
        shown.browser.tick("play")
        until(lambda: page.session.row != 3, "time stands still")
        shown.browser.tick("play")
        until(lambda: not page.panel.playing, "it does not stop")
    shown.browser.go(f"http://127.0.0.1:{shown.page.port}")
    until(lambda: len(shown.page.server.get_clients()) == 1, "the browser does not come back")
