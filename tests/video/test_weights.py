"""Weights that are downloaded: once, and only the file that is known."""

import hashlib
from pathlib import Path

import pytest

from flame_fitting.downloads import OFFLINE_VARIABLE
from flame_fitting.errors import InputError
from flame_fitting.video.weights import PublishedWeights, find_weights


@pytest.fixture()
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedWeights:
    monkeypatch.delenv(OFFLINE_VARIABLE, raising=False)
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "server" / "net.torchscript"
    source.parent.mkdir()
    source.write_bytes(b"weights" * 1000)
    return PublishedWeights("Network", source.as_uri(), hashlib.sha256(source.read_bytes()).hexdigest())


def test_downloaded_once(published: PublishedWeights, tmp_path: Path) -> None:
    path = find_weights(None, published)
    assert path == tmp_path / "cache" / "weights" / "net.torchscript"
    assert path.read_bytes() == b"weights" * 1000
    (tmp_path / "server" / "net.torchscript").unlink()
    assert find_weights(None, published) == path


def test_another_file_is_refused_and_not_kept(published: PublishedWeights, tmp_path: Path) -> None:
    (tmp_path / "server" / "net.torchscript").write_bytes(b"other")
    with pytest.raises(InputError, match=r"not the file that is known.*selfie"):
        find_weights(None, published)
    assert list((tmp_path / "cache" / "weights").iterdir()) == []


def test_a_damaged_cache_is_downloaded_again(published: PublishedWeights) -> None:
    path = find_weights(None, published)
    path.write_bytes(b"half")
    assert find_weights(None, published).read_bytes() == b"weights" * 1000


def test_without_a_network_the_method_that_works_is_named(published: PublishedWeights, tmp_path: Path) -> None:
    (tmp_path / "server" / "net.torchscript").unlink()
    with pytest.raises(InputError, match="--matting-method selfie, which needs no download and works now"):
        find_weights(None, published)


def test_nothing_is_downloaded_where_that_is_forbidden(
    published: PublishedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    with pytest.raises(InputError, match=f"{OFFLINE_VARIABLE} is set.*--matting-method selfie"):
        find_weights(None, published)
    assert not (tmp_path / "cache").exists()
    own = tmp_path / "own.pth"
    own.touch()
    assert find_weights(own, published) == own


def test_a_file_that_is_given_is_taken(published: PublishedWeights, tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    own.touch()
    assert find_weights(own, published) == own
    with pytest.raises(InputError, match="no such file"):
        find_weights(tmp_path / "none.pth", published)
