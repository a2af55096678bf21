"""Weights that their authors publish: downloaded once, checked, kept in the cache."""

from dataclasses import dataclass
from pathlib import Path

from flame_fitting import assets, downloads, progress
from flame_fitting.errors import InputError
from flame_fitting.files import reason, sha256_of_file


@dataclass(frozen=True)
class PublishedWeights:
    """A file that its authors publish."""

    title: str
    url: str
    sha256: str
    size: int | None = None
    """Bytes, where they are known."""
    licence: str = ""

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rsplit("/", 1)[-1]


# The authors publish no checksums. These are what others recorded of the same addresses (a project's table of
# downloads, another one's register of models); nobody of this project has compared them with a download of its own. A
# file that differs is refused, and --matting-weights takes one that you trust.
ROBUST_WEIGHTS = PublishedWeights(
    "RobustVideoMatting (ResNet50)",
    "https://github.com/PeterL1n/RobustVideoMatting/releases/download/v1.0.0/rvm_resnet50_fp32.torchscript",
    "072adec3c75a1af773ec35d8b595612f8e3472b7a4b8a210684432b493376852",
    108_063_684,
    "GPL-3.0",
)
# VHAP takes ResNet101, whose checksum could not be found: give that file with --matting-weights.
BACKGROUND_WEIGHTS = PublishedWeights(
    "BackgroundMattingV2 (ResNet50)",
    "https://github.com/PeterL1n/BackgroundMattingV2/releases/download/v1.0.0/torchscript_resnet50_fp32.pth",
    "c22fe27f627c04122cd44a3476315eb2fcb06a8d8ff2803ac610c1dd6d4de2a7",
    licence="MIT",
)


def find_weights(given: Path | None, published: PublishedWeights) -> Path:
    """The file `given`, else the published one from the cache, else downloaded into it. Raises InputError."""
    if given is not None:
        if not Path(given).is_file():
            raise InputError(f"{given}: no such file. Give a TorchScript file of {published.title}: {published.url}")
        return Path(given)
    path = assets.cache_dir() / "weights" / published.file
    if path.is_file() and sha256_of_file(path) == published.sha256:
        return path
    _download(published, path)
    return path


def _download(published: PublishedWeights, path: Path) -> None:
    progress.say(f"{published.title}, licence {published.licence}: downloading {published.url}")

    def check(downloaded: Path) -> None:
        found = sha256_of_file(downloaded)
        if found != published.sha256:
            raise InputError(
                f"{published.url}: the download is not the file that is known (SHA-256 {found}, expected "
                f"{published.sha256}). Give one that you trust with --matting-weights, or use --matting-method "
                "selfie, which needs no download."
            )

    try:
        downloads.download(published.url, path, check, published.size)
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise InputError(
            f"{published.title}: its weights cannot be downloaded here ({reason(error)}). Use --matting-method selfie, "
            f"which needs no download and works now; or get {published.url} elsewhere and give the file with "
            "--matting-weights."
        ) from error
