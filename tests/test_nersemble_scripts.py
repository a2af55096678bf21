"""The scripts that name NeRSemble folders as VHAP does."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")
ALL_TEN = ["EMO-1", "EMO-2", "EMO-3", "EMO-4", "EXP-2", "EXP-3", "EXP-4", "EXP-5", "EXP-8", "EXP-9"]


def call(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(SCRIPTS / script), *arguments], capture_output=True, text=True, check=False)


def test_a_union_of_ten_has_vhaps_name() -> None:
    words = call("combine_nersemble.sh", "074", *ALL_TEN, "--dry-run").stdout.split()
    end = "v16_DS4_whiteBg_staticOffset_maskBelowLine"
    assert words[1] == "combine" and words[2] == "--src-folders"
    assert words[3:13] == [f"export/nersemble/074_{sequence}_{end}" for sequence in ALL_TEN]
    assert words[13:] == ["--tgt-folder", f"export/nersemble/UNION10_074_EMO1234EXP234589_{end}"]


def test_names_follow_the_options() -> None:
    options = ["--views", "4", "--downsample", "1", "--background", "black", "--no-static-offset", "--no-mask"]
    done = call(
        "combine_nersemble.sh", "018", "EMO-1-shout+laugh", "FREE", "--export-root", "e", *options, "--dry-run",
        "--", "--division-mode", "last",
    )  # fmt: skip
    words = done.stdout.replace("\\", "").split()
    assert words[3:5] == ["e/018_EMO-1-shout+laugh_v4_DS1_blackBg_noOffset", "e/018_FREE_v4_DS1_blackBg_noOffset"]
    assert words[6:] == ["e/UNION2_018_EMO1FREE_v4_DS1_blackBg_noOffset", "--division-mode", "last"]


def test_exports_are_named_after_their_tracks() -> None:
    lines = call("export_nersemble.sh", "074", "EMO-1", "EXP-2", "--dry-run").stdout.splitlines()
    assert [line.split()[1:] for line in lines] == [
        [
            *("export", "--src-folder", f"output/nersemble/074_{sequence}_v16_DS4_wBg_staticOffset"),
            *("--tgt-folder", f"export/nersemble/074_{sequence}_v16_DS4_whiteBg_staticOffset_maskBelowLine"),
            *("--background-color", "white"),
        ]
        for sequence in ("EMO-1", "EXP-2")
    ]


@pytest.mark.parametrize(
    "arguments", [["074"], ["074", "EMO-1", "--views", "x"], ["074", "EMO-1", "--background", "red"], ["074", "--what"]]
)
def test_wrong_options_end_with_2(arguments: list[str]) -> None:
    done = call("combine_nersemble.sh", *arguments, "--dry-run")
    assert done.returncode == 2 and "usage:" in done.stderr and not done.stdout


def test_a_video_goes_through_all_commands() -> None:
    options = ["--downsample", "2", "--no-static-offset", "--dry-run", "--", "--exp.no-photometric"]
    lines = [line.split()[1:] for line in call("run_monocular.sh", "d/obama.mp4", *options).stdout.splitlines()]
    track = "output/monocular/obama_whiteBg_noOffset"
    assert lines == [
        ["preprocess", "--input", "d/obama.mp4", "--matting-method", "selfie", "--downsample-scales", "2"],
        [
            *("track", "--data.root-folder", "d", "--data.sequence", "obama", "--exp.output-folder", track),
            *("--model.no-use-static-offset", "--data.n-downsample-rgb", "2", "--exp.no-photometric"),
        ],
        [
            *("export", "--src-folder", track, "--tgt-folder"),
            *("export/monocular/obama_whiteBg_noOffset_maskBelowLine", "--background-color", "white"),
        ],
    ]


def test_recordings_go_through_all_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "output/nersemble/074_EMO-1_v16_DS4_wBg_staticOffset",
        "export/nersemble/074_EMO-1_v16_DS4_whiteBg_staticOffset",
    )
    for version, root, below in (("1", "data/nersemble", "074"), ("2", "data/nersemble_v2", "074/sequences")):
        monkeypatch.setenv("VERSION", version)
        lines = [line.split()[1:] for line in call("run_nersemble.sh", "074", "EMO-1", "--dry-run").stdout.splitlines()]
        assert lines == [
            [
                *("preprocess", "--input", f"{root}/{below}/EMO-1", "--matting-method", "selfie"),
                *("--downsample-scales", "4"),
            ],
            [
                *(f"track-nersemble{'-v2' if version == '2' else ''}", "--data.root-folder", root, "--data.subject"),
                *("074", "--data.sequence", "EMO-1", "--exp.output-folder", names[0], "--data.n-downsample-rgb", "4"),
            ],
            [
                *("export", "--src-folder", names[0], "--tgt-folder", f"{names[1]}_maskBelowLine"),
                *("--background-color", "white"),
            ],
        ]


@pytest.mark.parametrize("arguments", [[], ["a.mp4", "b.mp4"], ["a.mp4", "--downsample", "x"], ["a.mp4", "--what"]])
def test_wrong_options_of_a_video_end_with_2(arguments: list[str]) -> None:
    done = call("run_monocular.sh", *arguments, "--dry-run")
    assert done.returncode == 2 and "usage:" in done.stderr and not done.stdout
