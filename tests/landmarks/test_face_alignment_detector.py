"""face-alignment: its own networks with weights made here, and its own answers."""

import numpy as np
import pytest
import torch

face_alignment = pytest.importorskip("face_alignment", reason="pip install --no-deps face-alignment")

from flame_fitting.errors import InputError  # noqa: E402
from flame_fitting.files import sha256_of_file  # noqa: E402
from flame_fitting.landmarks import face_alignment_detector as own  # noqa: E402
from flame_fitting.landmarks.face_alignment_detector import (  # noqa: E402
    FINDER_WEIGHTS,
    WEIGHTS,
    FaceAlignmentDetector,
    peaks_of,
)
from tests.landmarks.found_faces import faces  # noqa: E402

BOX = (60.0, 50.0, 180.0, 170.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder as torch keeps downloads in: both networks of the package, with weights that mean nothing."""
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hub") / "checkpoints"
    folder.mkdir()
    torch.save(FAN(4).state_dict(), folder / WEIGHTS.names[0])
    torch.save(s3fd().state_dict(), folder / FINDER_WEIGHTS.names[0])
    return folder


@pytest.fixture
def detector(cache):
    return FaceAlignmentDetector(cache, device="cpu", faces=faces(BOX))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 255, (240, 240, 3)).astype(np.uint8)


def test_files_are_those_that_the_package_downloads():
    from face_alignment import api
    from face_alignment.detection.sfd import sfd_detector

    assert WEIGHTS.url == api.models_urls["2DFAN-4"] and WEIGHTS.url.endswith(WEIGHTS.names[0])
    assert FINDER_WEIGHTS.url == sfd_detector.models_urls["s3fd"] and FINDER_WEIGHTS.url.endswith(
        FINDER_WEIGHTS.names[0]
    )
    assert f"-{WEIGHTS.sha256}." in WEIGHTS.url and f"-{FINDER_WEIGHTS.sha256}." in FINDER_WEIGHTS.url


def test_folder_file_and_torchs_cache_serve(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache.parent))
    found = [
        FaceAlignmentDetector(given, "cpu", faces=faces(None)) for given in (cache, cache / WEIGHTS.names[0], None)
    ]
    assert {one.path for one in found} == {cache / WEIGHTS.names[0]} and len({one.version for one in found}) == 1
    assert found[0].version.startswith(sha256_of_file(found[0].path)[:16])


@pytest.fixture
def theirs(cache, monkeypatch):
    """The package with the same weights. Its loops run as Python: to compile them takes 17 s."""
    from face_alignment import utils

    monkeypatch.setattr(utils, "get_dir", lambda: str(cache.parent))
    for name in ("_get_preds_fromhm", "transform_np"):
        monkeypatch.setattr(utils, name, getattr(utils, name).py_func)
    two_d = face_alignment.LandmarksType.TWO_D
    return face_alignment.FaceAlignment(two_d, device="cpu", compile=False, face_detector="folder")


def test_heat_is_that_of_the_package(detector, theirs, picture):
    """Its own loading, network and mirroring."""
    from face_alignment.utils import flip

    crop = own.crop(picture, own.crop_matrix(np.array(BOX)))
    shown = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        net = theirs.face_alignment_net
        expected = 0.5 * (net(shown)[-1] + flip(net(flip(shown))[-1], is_label=True))
    found = detector.heat(crop[None])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, detector.heat(crop[None], mirrored=False), atol=1e-3)


class Brightness(torch.nn.Module):
    """A network whose heat is what is bright."""

    def forward(self, images):
        return [torch.nn.functional.avg_pool2d(images[:, :1], 4).repeat(1, 68, 1, 1)]


@pytest.mark.parametrize("place", [(121.3, 97.8), (88.0, 140.5), (150.2, 71.1)])
def test_points_are_where_the_package_has_them_and_not_rounded(detector, theirs, place):
    picture = spot(place)
    detector.network = Brightness()
    found = detector.detect(picture[None])[0, :, :2]
    np.testing.assert_allclose(found, np.broadcast_to(place, (68, 2)), atol=0.15)
    theirs.face_alignment_net = Brightness()
    package = theirs.get_landmarks_from_image(picture, detected_faces=[np.array(BOX)])[0]
    # a heat map's cell is 3.8 px here, and the package rounds to a quarter of it, then to whole pixels
    assert np.abs(package - found).max() < 2.5


def test_peaks_of_gaussians_are_found_between_cells():
    centers = np.random.default_rng(1).uniform(2, 62, (10, 2))
    columns, rows = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    heat = np.exp(-((columns - centers[:, 0, None, None]) ** 2 + (rows - centers[:, 1, None, None]) ** 2) / 2)
    places, peaks = peaks_of(torch.as_tensor(heat[None], dtype=torch.float32))
    np.testing.assert_allclose(places[0].numpy(), centers, atol=1e-3)
    assert (peaks > 0.7).all()
    edge = torch.zeros(1, 1, 64, 64)
    edge[0, 0, 0, 63] = 1.0
    np.testing.assert_allclose(peaks_of(edge)[0][0, 0].numpy(), [63.5, 0.5])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_half_precision_is_near_and_has_a_version_of_its_own(cache, picture):
    whole, half = (FaceAlignmentDetector(cache, "cuda", half, faces(BOX)) for half in (False, True))
    assert half.version == f"{whole.version}-half"
    crop = own.crop(picture, own.crop_matrix(np.array(BOX)))[None]
    expected = whole.heat(crop)
    assert 0 < (expected - half.heat(crop)).abs().max() < 0.05 * expected.std()


def spot(place):
    """A bright spot on black, (240, 240, 3)."""
    columns, rows = np.meshgrid(np.arange(240) + 0.5, np.arange(240) + 0.5)
    heat = 250 * np.exp(-((columns - place[0]) ** 2 + (rows - place[1]) ** 2) / (2 * 5.0**2))
    return np.repeat(heat[..., None], 3, axis=2).astype(np.uint8)


def test_each_picture_of_a_batch_has_its_own_points(cache):
    """More of them than go through the network at once; one without a face."""
    places = [(100.0 + 4 * k, 120.0 - 3 * k) for k in range(11)]
    boxes = [(60.0 + k, 50.0 - k, 180.0 + 2 * k, 175.0) for k in range(11)]
    detector = FaceAlignmentDetector(cache, "cpu", faces=faces(*boxes[:5], None, *boxes[6:]))
    detector.network, detector._finder = Brightness(), None
    found = detector.detect(np.stack([spot(place) for place in places]))
    assert np.isnan(found[5]).all()
    for k in set(range(11)) - {5}:
        np.testing.assert_allclose(found[k, :, :2], np.broadcast_to(places[k], (68, 2)), atol=0.2)


def test_profiles_that_mediapipe_misses_are_found_by_the_packages_finder(cache, picture):
    detector = FaceAlignmentDetector(cache, "cpu", faces=faces(None))
    assert type(detector._finder).__name__ == "SFDDetector"
    assert isinstance(list(detector._finder.detect_from_image(picture[:64, :64])), list)

    class Finder:
        def detect_from_image(self, image):
            return [np.array([5, 5, 20, 20, 0.9]), np.array([*BOX, 0.8])]

    detector._finder, detector.network = Finder(), Brightness()
    found = detector.detect(spot((130.0, 90.0))[None])[0, :, :2]
    np.testing.assert_allclose(found, np.broadcast_to((130.0, 90.0), (68, 2)), atol=0.15)


def test_without_the_finders_weights_a_picture_without_a_face_has_none(cache, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / WEIGHTS.names[0]).symlink_to(cache / WEIGHTS.names[0])
    detector = FaceAlignmentDetector(tmp_path, "cpu", faces=faces(None))
    assert np.isnan(detector.detect(picture[None])).all()


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no 2DFAN4-11f355bf06\.pth\.tar there.*--face-alignment-weights"):
        FaceAlignmentDetector(tmp_path)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / WEIGHTS.names[0])
    with pytest.raises(InputError, match=r"2DFAN4-11f355bf06\.pth\.tar: not the weights of face-alignment"):
        _ = FaceAlignmentDetector(tmp_path, faces=faces(None)).network
    with pytest.raises(InputError, match="--detector-device tpu: no such device"):
        FaceAlignmentDetector(tmp_path, device="tpu")
