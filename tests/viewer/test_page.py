"""The viewer in a browser: it shows the head the right way up before the face, sliders move it, buttons save."""

import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flame_fitting.fit.result import checked_parameters
from flame_fitting.head.loading import load_head
from flame_fitting.viewer.opening import Viewed
from tests.synthetic import known_fit, render_case, save_case, similarity
from tests.viewer.browser import CHROMIUM, Browser, until

pytest.importorskip("viser", reason="viser is not installed: pip install 'flame-fitting[view]'")
if CHROMIUM is None:
    pytest.skip("no Chromium here", allow_module_level=True)

from flame_fitting.viewer.page import Page

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
    ends = threading.Event()
    with Page(Viewed(fit, head, capture), folder / "view", "127.0.0.1", 18080) as page:
        drawing = threading.Thread(target=page.run, args=(ends,), daemon=True)
        drawing.start()
        try:
            with Browser(f"http://127.0.0.1:{page.port}", (900, 700)) as browser:
                browser.wait_for("colours")
                until(lambda: len(page.server.get_clients()) == 1, "the browser does not connect")
                one = Shown(page, browser, folder / "view")
                until(lambda: (one.picture().min(axis=2) < 200).any(), "nothing is drawn")
                yield one
        finally:
            ends.set()
            drawing.join(30)


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
    until(lambda: np.abs(shown.picture().astype(float) - before).mean() < 1.0, "it does not come back")
    assert not shown.page.session.pose["neck_pose"].any()


def test_buttons_save_picture_and_pose(shown: Shown) -> None:
    shown.browser.click("Pose")
    shown.browser.set("open", "15")
    until(lambda: shown.page.session.pose["jaw_pose"][0] > 0.2, "the slider does nothing")
    shown.settled()
    shown.browser.click("Save")
    shown.browser.click("Save picture")
    path = shown.folder / "picture_0001.png"
    until(path.is_file, "no picture is saved")
    saved = np.asarray(Image.open(io.BytesIO(path.read_bytes())))
    assert saved.shape[0] == 1200 and len(places(saved, 0)) > 1000
    shown.browser.click("Save pose")
    path = shown.folder / "pose_0001.npz"
    until(path.is_file, "no pose is saved")
    with np.load(path) as file:
        parameters, _ = checked_parameters(path, dict(file))
    np.testing.assert_allclose(parameters["jaw_pose"], [[np.radians(15), 0, 0]], atol=1e-6)
    shown.page.session.as_fitted()
    until(lambda: not shown.page.panel.load.disabled, "the pose is not listed")
    shown.browser.click("Load pose")
    until(lambda: shown.page.session.pose["jaw_pose"][0] > 0.2, "the pose is not loaded")
    shown.page.session.as_fitted()


def test_colours_and_landmarks_of_the_panel_are_drawn(shown: Shown) -> None:
    panel, before = shown.page.panel, shown.settled()
    panel.mode.value = "regions"
    regions = shown.changed(before)
    assert panel.region.visible and "chin" in panel.legend.content
    panel.mode.value = "plain"
    plain = shown.changed(regions)
    body = plain[(plain.min(axis=2) < 235)].astype(int)
    assert np.abs(body.max(axis=1) - body.min(axis=1)).mean() < 25  # grey
    panel.camera.value = "camera 00"
    through = shown.changed(plain)
    assert len(places(through, 0)) + len(places(through, 2)) > 100  # its picture stands behind the plain head
    panel.camera.value, panel.mode.value = "free", "texture"
    until(lambda: np.abs(shown.picture().astype(float) - before).mean() < 1.0, "it does not come back")
