"""The loaders of RobustVideoMatting and BackgroundMattingV2, with small networks of the same interface."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from flame_fitting.errors import InputError
from flame_fitting.video.torch_matting import WARM_UP, BackgroundMatting, RobustVideoMatting, downsample_ratio


class Recurrent(torch.nn.Module):
    """RobustVideoMatting's interface: alpha is the share of steps seen, 1/20 each, plus the ratio in the corner."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(
        self,
        src: Tensor,
        r1: Tensor | None = None,
        r2: Tensor | None = None,
        r3: Tensor | None = None,
        r4: Tensor | None = None,
        downsample_ratio: float = 1.0,
        segmentation_pass: bool = False,
    ) -> list[Tensor]:
        steps = torch.zeros([1, 1, 1, 1], dtype=src.dtype, device=src.device) if r1 is None else r1
        steps = steps + self.scale
        alpha = torch.ones_like(src[:, :1]) * steps / 20.0
        alpha[..., 0, 0] = downsample_ratio
        alpha[..., 0, 1] = src[:, 0, 0, 1]
        return [src, alpha, steps, steps, steps, steps]


class Differing(torch.nn.Module):
    """BackgroundMattingV2's interface: alpha is where the picture differs from the background."""

    backbone_scale: float
    refine_mode: str
    refine_sample_pixels: int
    refine_threshold: float

    def __init__(self) -> None:
        super().__init__()
        self.backbone_scale = 0.0
        self.refine_mode = "sampling"
        self.refine_sample_pixels = 80_000
        self.refine_threshold = 0.1
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, src: Tensor, bgr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert src.size(2) % 4 == 0 and src.size(3) % 4 == 0, "as the authors' network"
        assert self.refine_mode == "thresholding" and self.backbone_scale == 0.25
        alpha = ((src - bgr).abs().amax(dim=1, keepdim=True) > 0.1).to(src.dtype) * self.scale
        return alpha, src, alpha


def saved(module: torch.nn.Module, path: Path) -> Path:
    torch.jit.script(module.eval()).save(str(path))
    return path


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Recurrent(), tmp_path_factory.mktemp("weights") / "rvm.torchscript")


@pytest.fixture(scope="module")
def differing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Differing(), tmp_path_factory.mktemp("weights") / "bgm.pth")


def test_the_state_is_warmed_up_carried_on_and_left_behind(recurrent: Path) -> None:
    matting = RobustVideoMatting(recurrent, "cpu")
    picture = np.full((48, 64, 3), 51, np.uint8)
    for _ in range(2):  # a second camera begins as the first one did
        matting.begin("a")
        for number in range(3):
            [(tag, alpha)] = matting.push(number, picture)
            assert tag == number
            assert alpha.shape == (48, 64)
            assert alpha[5, 5] == round(255 * (WARM_UP + 1 + number) / 20)
            assert alpha[0, 1] == 51, "pixels are given in 0..1"
    assert matting.finish() == []


@pytest.mark.parametrize(
    ("height", "width", "ratio"),
    [(512, 512, 1.0), (200, 300, 1.0), (1080, 1920, 512 / 1920), (3840, 2160, 512 / 3840)],
)
def test_the_inner_picture_is_256_to_512_px(height: int, width: int, ratio: float, recurrent: Path) -> None:
    assert downsample_ratio(height, width) == ratio
    assert max(height, width) * ratio <= 512
    if height <= 1080:
        matting = RobustVideoMatting(recurrent, "cpu")
        [(_, alpha)] = matting.push(0, np.zeros((height, width, 3), np.uint8))
        assert alpha[0, 0] == round(255 * ratio)


def test_each_camera_has_its_own_background(differing: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plates: dict[str | None, Path] = {}
    pictures = {}
    for camera in ("1", "2"):
        plate = cv2.resize(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8), (120, 80), interpolation=cv2.INTER_CUBIC)
        plates[camera] = tmp_path / f"image_{camera}.png"
        cv2.imwrite(str(plates[camera]), plate[..., ::-1])
        small = cv2.resize(plate, (59, 41), interpolation=cv2.INTER_AREA)
        small[10:30, 20:40] = 255 - small[10:30, 20:40]
        small[10:30, 20:40] = np.where(np.abs(small[10:30, 20:40].astype(int) - 128) < 40, 255, small[10:30, 20:40])
        pictures[camera] = small
    matting = BackgroundMatting(plates, differing, "cpu")
    for camera, picture in pictures.items():
        matting.begin(camera)
        [(_, alpha)] = matting.push(0, picture)
        assert alpha.shape == (41, 59), "padding for the network is taken off again"
        inside = np.zeros_like(alpha, bool)
        inside[10:30, 20:40] = True
        assert (alpha[inside] == 255).mean() > 0.9
        assert (alpha[~inside] == 0).all()


def test_foreign_files_are_named(recurrent: Path, differing: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pth"
    junk.write_bytes(b"no network")
    with pytest.raises(InputError, match="not a TorchScript file"):
        RobustVideoMatting(junk, "cpu")
    with pytest.raises(InputError, match="not the network of RobustVideoMatting"):
        RobustVideoMatting(differing, "cpu")
    with pytest.raises(InputError, match="not the network of BackgroundMattingV2"):
        BackgroundMatting({}, recurrent, "cpu")
    with pytest.raises(InputError, match="--device"):
        RobustVideoMatting(recurrent, "toaster")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_half_precision_on_a_gpu(recurrent: Path, differing: Path) -> None:
    matting = RobustVideoMatting(recurrent, "cuda")
    assert matting.dtype == torch.float16
    matting.begin(None)
    [(_, alpha)] = matting.push(0, np.full((48, 64, 3), 51, np.uint8))
    assert abs(int(alpha[5, 5]) - round(255 * (WARM_UP + 1) / 20)) <= 1
    assert BackgroundMatting({}, differing, "cuda").dtype == torch.float16
