"""STAR's files and crops; what its network computes is in test_star_network.py."""

import numpy as np
import pytest
import torch

from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file
from flame_fitting.landmarks.schemes import SCHEMES
from flame_fitting.landmarks.star_detector import WEIGHTS, StarDetector, crop, crop_matrix, load_network, to_picture
from flame_fitting.landmarks.star_network import StarNetwork
from tests.landmarks.found_faces import faces
from tests.landmarks.star_reference import filled


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file as training writes it: the state dict, its moving average, optimiser, schedule."""
    torch.manual_seed(0)
    network = StarNetwork(68)
    optimizer = torch.optim.Adam(network.out_heatmaps.parameters())
    network.out_heatmaps[0](torch.zeros(1, 256, 1, 1)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [200, 350, 450])
    path = tmp_path_factory.mktemp("star") / WEIGHTS.names[0]
    content = {"net": network.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict()}
    torch.save(content | {"epoch": 3}, path)
    return path


def test_a_checkpoint_is_read_and_points_are_found(checkpoint):
    detector = StarDetector(checkpoint, device="cpu", faces=faces((40, 30, 140, 130), None))
    assert (detector.scheme, detector.n_points, detector.name) == ("ibug68", 68, "star")
    assert detector.version.startswith(sha256_of_file(checkpoint)[:16])
    pictures = np.random.default_rng(0).integers(0, 255, (2, 160, 200, 3)).astype(np.uint8)
    found = detector.detect(pictures)
    assert found.shape == (2, 68, 3) and np.isnan(found[1]).all() and np.isfinite(found[0]).all()
    assert found[0, :, :2].min() > 20 and found[0, :, :2].max() < 150
    assert found[0, :, 2].min() >= 0 and found[0, :, 2].max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_half_precision_is_near_and_has_a_version_of_its_own(tmp_path):
    torch.save({"net": filled(68).state_dict()}, tmp_path / "star.pkl")
    box = faces((40, 30, 140, 130))
    whole, half = (StarDetector(tmp_path / "star.pkl", "cuda", half, box) for half in (False, True))
    picture = np.random.default_rng(0).integers(0, 255, (1, 160, 200, 3)).astype(np.uint8)
    assert half.version == f"{whole.version}-half"
    apart = np.abs(whole.detect(picture) - half.detect(picture))[..., :2]
    assert 0 < np.median(apart) < 0.2


def test_a_cpu_keeps_single_precision(checkpoint):
    whole, half = (StarDetector(checkpoint, "cpu", half, faces(None)) for half in (False, True))
    assert half.dtype == torch.float32 and half.version == whole.version


@pytest.fixture(scope="module")
def of_98():
    return StarNetwork(98)


def test_bare_state_dicts_and_those_of_several_gpus_are_read(of_98, tmp_path):
    network = of_98
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "a.pth")
    read = load_network(tmp_path / "a.pth")
    assert read.n_points == 98 and not read.training
    expected, found = network.state_dict(), read.state_dict()
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


class Harm:
    """Writes a file where a pickle is believed."""

    def __reduce__(self):
        return open, ("harm.txt", "w")


def test_code_in_a_file_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"net": Harm()}, tmp_path / "evil.pkl")
    with pytest.raises(InputError, match=r"evil\.pkl: cannot be read as weights"):
        load_network(tmp_path / "evil.pkl")
    assert not (tmp_path / "harm.txt").exists()


@pytest.mark.parametrize(
    "content",
    [{"net": [1, 2]}, {"net": {}}, 3, {"net": {"out_heatmaps.0.conv.weight": torch.zeros(68, 256, 1, 1)}}],
    ids=["list", "empty", "number", "part"],
)
def test_other_files_are_named(content, tmp_path):
    torch.save(content, tmp_path / "other.pkl")
    with pytest.raises(InputError, match=r"other\.pkl: is no checkpoint of STAR.*--star-weights"):
        load_network(tmp_path / "other.pkl")
    (tmp_path / "page.pkl").write_text("<html>Google Drive</html>")
    with pytest.raises(InputError, match=r"page\.pkl: cannot be read"):
        load_network(tmp_path / "page.pkl")


@pytest.mark.parametrize("box", [(40.0, 30.0, 140.0, 125.0), (-20.0, 60.0, 80.0, 190.0), (70.0, 20.0, 120.0, 150.0)])
def test_what_a_crop_shows_goes_back_to_where_it_was(box):
    """A bright spot, found in the crop, is where it is in the picture; crops cover the box."""
    x, y = 0.5 * (box[0] + box[2]) + 7, 0.5 * (box[1] + box[3]) - 5
    columns, rows = np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5)
    spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
    matrix = crop_matrix(np.array(box))
    shown = crop(np.repeat(spot[..., None], 3, axis=2).astype(np.uint8), matrix)[..., 0].astype(float)
    pixel = np.array([(shown.sum(0) @ np.arange(256)), (shown.sum(1) @ np.arange(256))]) / shown.sum()
    back = to_picture(((2 * pixel + 1) / 256 - 1)[None], matrix)[0]
    np.testing.assert_allclose(back, [x, y], atol=0.1)
    corners = to_picture(np.array([[-1.0, -1.0], [1.0, 1.0]]), matrix)
    assert (corners[1] - corners[0]).min() > 0.93 * max(box[2] - box[0], box[3] - box[1])


def test_wflws_points_are_in_their_scheme(of_98, tmp_path):
    torch.save({"net": of_98.state_dict()}, tmp_path / "any name.pkl")
    detector = StarDetector(tmp_path / "any name.pkl", device="cpu", faces=faces(None))
    assert detector.scheme == "wflw98" and detector.n_points == 98 == SCHEMES["wflw98"].n_points
