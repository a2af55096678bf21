"""Sources as a fit takes them, and the overlays that show them, on a capture of the open head without pictures."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from flame_fitting.avatar.head_calibration import head_frame, shipped_embedding
from flame_fitting.avatar.mesh_avatar import avatar_from_arrays
from flame_fitting.avatar.view_planning import head_cameras
from flame_fitting.capture.camera import intrinsics_from_fov, project
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.files import write_npz
from flame_fitting.errors import InputError
from flame_fitting.fit.landmark_sources import LandmarkSource, placed
from flame_fitting.fit.prepare import start_from_capture
from flame_fitting.fit.refined_sources import refined
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.capture_outliers import cameras_of, outliers_of, told
from flame_fitting.landmarks.evidence import shipped_evidence
from flame_fitting.landmarks.evidence_fit import QUANTITIES
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.mediapipe_detector import MEASURES, SCORE_NAMES, MediaPipeDetector
from flame_fitting.landmarks.merging import MERGED
from flame_fitting.landmarks.overlays import draw_overlays
from flame_fitting.landmarks.schemes import scheme_named
from flame_fitting.maths.closest import nearest_on_surface

ANGLES = np.array([(yaw, pitch) for pitch in (-8, 10) for yaw in (-30, 0, 30)], float)


def source(found: Landmarks2D, embedding, calibrated: bool = True) -> LandmarkSource:
    """Landmarks of MediaPipe on the open head."""
    calibration = shipped_evidence("mediapipe", found.detector_version) if calibrated else None
    return LandmarkSource(found, embedding, calibration=calibration)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """Head, a capture of 2 timesteps x 6 cameras, and what MediaPipe would find in it."""
    head = load_head("open")
    cameras = head_cameras(ANGLES, np.eye(4), head_frame(head))
    K = intrinsics_from_fov(25.0, 256, 256)
    root = tmp_path_factory.mktemp("rig")
    (root / "images").mkdir()
    views = []
    for step in range(2):
        for number, camera in enumerate(cameras):
            name = f"images/{step:05d}_{number:02d}.png"
            Image.fromarray(np.full((256, 256, 3), 90, np.uint8)).save(root / name)
            views.append(View(step, number, "fit", K, camera, 256, 256, name))
    embedding = shipped_embedding(head, "mediapipe", "lit")
    points = embedding.points(head.v_template[None], head.faces)[0].numpy().astype(np.float64)
    pixels = np.tile(project(points, K, cameras)[None, ..., :2], (2, 1, 1, 1))
    pixels = pixels + 0.3 * np.random.default_rng(0).standard_normal(pixels.shape)
    landmarks = np.concatenate([pixels, np.ones((2, 6, 478, 1))], axis=-1).astype(np.float32)
    scores = np.full((2, 6, len(MEASURES)), 0.1, np.float32)
    version = MediaPipeDetector().version
    found = Landmarks2D(landmarks, "mediapipe478", "mediapipe", version, None, scores, MEASURES)
    return head, Capture(root, views), found, embedding


def second(found: Landmarks2D, embedding, pixels: float = 1.5) -> LandmarkSource:
    """A detector of 68 points that agrees less with itself."""
    index = scheme_named("mediapipe478").ibug68
    noise = pixels * np.random.default_rng(1).standard_normal((2, 6, 68, 2))
    landmarks = found.landmarks[:, :, index].copy()
    landmarks[..., :2] += noise
    names = ("face_index", "barycentric", "spread_mm", "n_views")
    own = replace(embedding, scheme="ibug68", **{name: getattr(embedding, name)[index] for name in names})
    return LandmarkSource(Landmarks2D(landmarks, "ibug68", "other", "1"), own)


def test_evidence_reaches_the_targets_of_the_fit(rig):
    head, capture, found, embedding = rig
    made = refined(head, capture, [source(found, embedding)])
    assert not made.notes and len(made.sources) == 1
    evidence = made.sources[0].evidence
    assert evidence.values.shape == (2, 6, len(QUANTITIES)) and evidence.known.all()
    start = start_from_capture(head.double(), capture, made.sources)
    head.float()
    for target in start.targets:
        own = target.sources[0].evidence
        assert own.values.shape == (len(QUANTITIES),) and own.odds.shape == (len(SCORE_NAMES),)
        known = np.isfinite(own.own_std)  # lids that are this narrow hide the gaze
        assert known[:13].all() and not known[13:].any()
        most = np.nanmax(evidence.own_std, axis=(0, 1))
        assert (own.own_std[known] > 0).all() and (own.own_std[known] <= most[known]).all()
    # in another order they say the same
    turned = replace(found, scores=found.scores[..., ::-1], score_names=MEASURES[::-1])
    again = refined(head, capture, [source(turned, embedding)]).sources[0].evidence
    np.testing.assert_array_equal(again.values, evidence.values)
    # points without scores, with fewer (of an earlier version), or without a calibration: no evidence
    fewer = replace(found, scores=found.scores[..., :-4], score_names=MEASURES[:-4])
    none = [source(other, embedding) for other in (replace(found, scores=None), fewer)]
    for one in (*none, source(found, embedding, calibrated=False)):
        assert refined(head, capture, [one]).sources[0].evidence is None


def test_several_sources_become_one_where_that_is_wanted(rig):
    head, capture, found, embedding = rig
    both = [source(found, embedding), second(found, embedding)]
    made = refined(head, capture, both)
    assert [one.detected.detector for one in made.sources] == [MERGED]
    assert made.sources[0].evidence is not None and "mediapipe" in made.notes[-1] and "over views" in made.notes[-1]
    assert made.sources[0].detected.detector_version == f"{found.label}+other 1"
    apart = refined(head, capture, both, merge_them=False)
    assert [one.detected.detector for one in apart.sources] == ["mediapipe", "other"]


def test_sources_on_a_surface_are_merged_in_space_and_stay_there(rig, tmp_path):
    """The fit takes the merged points themselves, on the surface, and does not lift merged pictures again."""
    head, capture, found, embedding = rig
    vertices = head.v_template.numpy().astype(np.float64)
    K, cameras = (np.stack([getattr(view, name) for view in capture.views[:6]]) for name in ("K", "world_to_camera"))
    seen = avatar_from_arrays(vertices, head.faces.numpy()).draw(K, cameras, 256, 256, "clay")
    (tmp_path / "geometry").mkdir()
    for number in range(6):
        write_npz(tmp_path / f"geometry/{number}.npz", {"depth": seen.depth[number], "normal": seen.normal[number]})
    views = [replace(view, geometry_path=f"geometry/{view.camera}.npz") for view in capture.views]
    on_surface = replace(capture, root=tmp_path, views=views)
    truth = embedding.points(head.v_template[None], head.faces)[0].numpy()
    exact = replace(found, landmarks=found.landmarks.copy())
    exact.landmarks[..., :2] = project(truth.astype(np.float64), K, cameras)[..., :2]
    both = [LandmarkSource(found, embedding), second(exact, embedding, 0.3)]  # as noisy, on its own
    merged = refined(head, on_surface, both).sources[0]
    assert len(merged.in_space) == 2
    own = placed(on_surface, merged)
    assert own.landmarks is merged.in_space
    order = scheme_named("mediapipe478")
    first, other = (placed(on_surface, one).landmarks for one in both)
    off, alone, beside = [], [], []
    for step, one in enumerate(merged.in_space):
        off.append(np.linalg.norm(one.points[order.inner] - truth[order.inner], axis=1))
        alone.append(np.linalg.norm(first[step].points[order.inner] - truth[order.inner], axis=1))
        beside.append(np.linalg.norm(other[step].points[17:] - truth[order.inner], axis=1))
        lips = one.points[order.groups["outer_lips"]]
        _, _, distance = nearest_on_surface(lips, vertices, head.faces.numpy(), None)
        assert np.median(distance) < 5e-5
    assert np.median(off) < 0.9 * min(np.median(alone), np.median(beside))
    assert not refined(head, on_surface, both, use_geometry=False).sources[0].in_space


def test_merging_leaves_geometry_alone_where_it_is_not_to_be_used(rig):
    head, capture, found, embedding = rig
    both = [source(found, embedding), second(found, embedding)]
    # geometry that cannot be read: whoever looks at it fails
    views = [replace(view, geometry_path="geometry/none.npz") for view in capture.views]
    with_geometry = replace(capture, views=views)
    with pytest.raises(InputError, match=r"none\.npz"):
        refined(head, with_geometry, both)
    made = refined(head, with_geometry, both, use_geometry=False).sources[0].detected
    np.testing.assert_array_equal(made.landmarks, refined(head, capture, both).sources[0].detected.landmarks)


def test_views_that_others_contradict_are_named_left_out_and_shown(rig, tmp_path):
    head, capture, found, embedding = rig
    wrong = replace(found, landmarks=found.landmarks.copy())
    wrong.landmarks[1, 4, :, 0] += 70
    wrong.landmarks[0, 2, 5, :2] += 40
    made = refined(head, capture, [source(wrong, embedding)])
    clean = made.sources[0].detected
    assert not clean.found[1, 4] and clean.found.sum() == 11 and np.isnan(clean.landmarks[0, 2, 5]).all()
    assert made.sources[0].evidence.known.sum() == 11
    assert any("00001/04" in text for text in made.notes) and len(made.notes) == 2
    outliers = outliers_of(capture, wrong, cameras_of(capture))
    assert told(capture, "mediapipe", outliers) == made.notes
    paths = draw_overlays(capture, [wrong, second(found, embedding).detected], tmp_path, [outliers])
    assert [path.name for path in paths] == [f"{number:02d}.png" for number in range(6)]
    picture = np.asarray(Image.open(paths[2])).astype(int)
    assert picture.shape == (512, 512, 3)
    x, y = (2 * wrong.landmarks[0, 2, 5, :2]).round().astype(int)
    near = picture[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3)
    assert (near[:, 0] > 200).any() and near[near[:, 0] > 200, 1].min() < 90, "crossed in red"
