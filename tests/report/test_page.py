"""The page of a fit: valid, escaped, self-contained, and it works in a browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import html5lib
import numpy as np
import pytest

from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.capture.capture import Capture, View
from flame_fitting.evaluate import evaluate_in_place
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.loss_curve import LossCurve
from flame_fitting.fit.result import FitResult, StageRecord
from flame_fitting.head.model import HeadModel
from flame_fitting.manifest import Manifest, config_as_dict, read_manifest
from flame_fitting.report.error_maps import HIDDEN, SIDES, error_panels
from flame_fitting.report.glossary import TERMS
from flame_fitting.report.html import cards
from flame_fitting.report.layers import PANEL, Crop, head_crop
from flame_fitting.report.page import FILES, chart
from flame_fitting.report.posed_head import PosedHead
from flame_fitting.report.settings import settings_of
from flame_fitting.report.summary import read_summary
from flame_fitting.report.tables import summary_rows
from flame_fitting.report.usual_range import GOOD, MEASURES, Thresholds, judged
from flame_fitting.report.wireframe import wireframe
from tests.synthetic import known_fit, render_case, save_case, similarity
from tests.toy import toy_head

NASTY = "<script>alert('x')<b> & co"
Case = tuple[FitResult, Capture, HeadModel]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A fit whose names and warnings need escaping, with a loss curve and a manifest."""
    folder = tmp_path_factory.mktemp("page")
    head = toy_head()
    fit = known_fit(head, similarity())
    capture = render_case(folder, head, fit, n_fit=12, n_heldout=2, size=192)
    fit.folder = save_case(folder / "fit", fit, capture)
    fit.warnings = [f"warned of {NASTY}", "and of something else"]
    fit.stages = [StageRecord("rgb_init_all", None, np.eye(4), 1.0, losses=[(0, 100.0), (10, 10.0), (20, 1.0)])]
    config = FitConfig(capture.root, preset="static")
    config.model.tex_resolution, config.w.silhouette = 512, 31.0
    manifest = Manifest("fit", config_as_dict(config), command=f"flame-fitting fit {NASTY}")
    manifest.finish(lambda: manifest)
    manifest.write(fit.folder)
    (fit.folder / "texture.png").write_bytes(b"")
    evaluate_in_place(fit, head, replace(capture, avatar=replace(capture.avatar, file=f"{NASTY}.glb")))
    return fit, capture, head


@pytest.fixture(scope="module")
def page(case: Case) -> str:
    assert case[0].folder is not None
    return (case[0].folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_valid_and_escapes_what_it_is_given(page: str) -> None:
    parser = html5lib.HTMLParser()
    tree = parser.parse(page)
    assert not parser.errors, parser.errors[:3]
    assert "<script>alert" not in page and page.count("&lt;script&gt;alert") >= 3
    names = [node.get("id") for node in tree.iter() if node.get("id")]
    assert len(names) == len(set(names))
    targets = re.findall(r'href="#([^"]+)"', page)
    assert targets and set(targets) <= set(names)
    labels = re.findall(r'<label for="([^"]+)"', page)
    assert set(labels) <= set(names)


def test_warnings_come_first(case: Case, page: str) -> None:
    assert case[0].folder is not None
    warnings = json.loads((case[0].folder / "metrics.json").read_text())["warnings"]
    assert len(warnings) >= 2 and page.count('class="warning"') == len(warnings)
    assert page.rindex('class="warning"') < page.index('class="card"') < page.index("<table")


def test_nothing_is_asked_of_others_and_links_lead_somewhere(case: Case, page: str) -> None:
    folder = case[0].folder
    assert folder is not None
    assert "://" not in page and "//" not in re.sub(r"base64,[^\"]*", "", page)
    links = {link for link in re.findall(r'(?:href|src)="([^"#]+)"', page) if not link.startswith("data:")}
    assert {"metrics.json", "texture.png", "overlays/"} <= links
    assert all((folder / link).exists() for link in links), links
    assert len(page) < 3_000_000


def test_numbers_have_ranges_and_terms(case: Case, page: str) -> None:
    assert case[0].folder is not None
    metrics = json.loads((case[0].folder / "metrics.json").read_text())
    assert all(row.key in TERMS and (row.measure is None or row.measure in MEASURES) for row in summary_rows(metrics))
    assert TERMS["silhouette_iou_head"] in page and "good from 0.95, worrying below 0.85" in page
    assert "rgb_init_all" in page and "<polyline" in page


def test_a_measure_is_good_usual_or_worrying() -> None:
    assert [judged("face_median_mm", value).verdict for value in (0.5, 1.0, 1.6)] == ["good", "usual", "worrying"]
    assert [judged("silhouette_iou", value).verdict for value in (0.95, 0.9, 0.8)] == ["good", "usual", "worrying"]
    assert judged("landmark_reprojection_px_at_512", 7.0).verdict == "worrying"
    assert judged("landmark_reprojection_px_at_512", 7.0, rows=1024).verdict == "usual"
    for name, measure in MEASURES.items():
        good, worrying = getattr(GOOD, name), getattr(Thresholds(), name)
        assert good >= worrying if measure.more_is_better else good <= worrying


def test_options_that_do_nothing_are_left_out(case: Case, page: str) -> None:
    assert case[0].folder is not None
    manifest = read_manifest(case[0].folder)
    assert manifest is not None and manifest.date
    shown = {one.name: one for one in settings_of(manifest, {"rgb_init_all": {}})}
    assert shown["w.silhouette"].changed and shown["model.tex_resolution"].value == "512"
    assert not shown["w.photo"].changed
    for idle in ("model.n_tex", "w.smooth_trans", "w.contour", "batch_size", "render.backend"):
        assert idle not in shown and f"<td>{idle}</td>" not in page
    stages = {name.split(".")[1] for name in shown if name.startswith("pipeline.")}
    assert stages == {"rgb_init_all"}
    assert settings_of(None, {}) == []


def test_cards_of_many_fits(case: Case, tmp_path: Path) -> None:
    assert case[0].folder is not None
    one = read_summary(case[0].folder, NASTY, "a/report.html")
    assert one.verdict == "worrying" and one.thumbnail is not None
    shown = cards([one, replace(one, name="b", link="b/report.html", warnings=[])])
    assert shown.count("<article") == 2 and 'href="b/report.html"' in shown and "<script>" not in shown
    assert "face, median" in shown and shown.count("data:image/jpeg;base64,") == 2


def test_a_crop_is_the_camera_of_its_panel() -> None:
    crop = Crop(left=-20, top=30, side=100, size=50)
    picture = np.arange(200 * 300 * 3, dtype=np.uint8).reshape(200, 300, 3)
    panel = crop.of(picture, 7)
    assert panel.shape == (50, 50, 3) and (panel[:, :9] == 7).all()
    K = intrinsics_from_fov(40.0, 300, 200)
    point = np.array([0.1, 0.2, 2.0])
    there, here = ((k @ point)[:2] / point[2] for k in (K, crop.K(K)))
    np.testing.assert_allclose(here, (there - [-20, 30]) * 0.5)


def test_heads_fill_their_panels(case: Case) -> None:
    fit, capture, head = case
    view: View = capture.views[0]
    crop = head_crop(view, fit.vertices_world(head)[0])
    lines = wireframe(
        PosedHead(head, fit.vertices_world(head)[0]), crop.K(view.K), view.world_to_camera, (PANEL, PANEL)
    )
    rows, columns = np.nonzero(lines > 0.05)
    assert 0.6 * PANEL < max(np.ptp(rows), np.ptp(columns)) <= PANEL


def test_hidden_lines_are_not_drawn() -> None:
    head = toy_head()
    vertices = head.v_template.double().numpy()
    K, size = intrinsics_from_fov(20.0, 200, 200), (200, 200)
    camera = look_at([0.0, 0.0, 1.2], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    lines = wireframe(PosedHead(head, vertices), K, camera, size)
    assert 0 < lines.max() <= 1 and len(np.unique(lines.round(3))) > 5  # antialiased
    # what lies behind may change as it likes
    behind = vertices.copy()
    normals = vertices - vertices.mean(0)
    moved = normals[:, 2] < -0.5 * np.abs(normals).max()
    behind[moved] *= [0.7, 0.7, 1.0]
    np.testing.assert_array_equal(wireframe(PosedHead(head, behind), K, camera, size), lines)


def test_what_no_view_shows_is_grey() -> None:
    head = toy_head()
    vertices = head.v_template.double().numpy()
    error = np.zeros(len(vertices))
    nothing = error_panels(head, vertices, error, np.zeros(len(vertices), dtype=bool), size=64)
    assert list(nothing) == list(SIDES)
    for panel in nothing.values():
        drawn = panel[(panel != 255).any(axis=2)].astype(int)
        assert len(drawn) > 100 and (np.ptp(drawn, axis=1) == 0).mean() > 0.9 and drawn.max() <= max(HIDDEN, 255)
    everything = error_panels(head, vertices, error, size=64)["front"]
    assert everything[32, 32, 2] > everything[32, 32, 0] + 50  # blue


def test_loss_curves_are_bounded() -> None:
    curve = LossCurve()
    for batch in range(10):
        curve.begin = 1000 * batch
        for step in range(100):
            curve.add(step, 1.0 + step)
    curve.add(100, float("nan"))
    kept = curve.thinned()
    assert len(kept) == 200 and kept[0] == (0, 1.0) and kept[-1] == (9099, 100.0)
    drawn = chart(StageRecord("one", None, np.eye(4), 1.0, losses=kept))
    assert drawn is not None and len(drawn.line.split()) == 200
    assert chart(StageRecord("none", None, np.eye(4), 1.0)) is None


def test_files_are_explained() -> None:
    assert all(FILES.values())


def test_the_slider_moves_what_is_shown(case: Case, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium here")
    assert case[0].folder is not None
    moved = """<script>
      const slide = document.querySelector("#views-both ~ .views .slide");
      const fit = slide.parentElement.querySelector(".fit");
      const at = () => getComputedStyle(fit).clipPath;
      const seen = [at()];
      slide.value = 80; slide.dispatchEvent(new Event("input")); seen.push(at());
      document.querySelector("#views-fit").click(); seen.push(at());
      document.querySelector("#views-picture").click(); seen.push(getComputedStyle(fit).display);
      document.body.dataset.seen = seen.join("|");
    </script></body>"""
    path = tmp_path / "moved.html"
    path.write_text((case[0].folder / "report.html").read_text().replace("</body>", moved))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    dom = subprocess.run([browser, *flags, path.as_uri()], capture_output=True, text=True, timeout=120).stdout
    found = re.search(r'data-seen="([^"]+)"', dom)
    assert found is not None, dom[-300:]
    assert found[1].split("|") == ["inset(0px 0px 0px 50%)", "inset(0px 0px 0px 80%)", "none", "none"]
