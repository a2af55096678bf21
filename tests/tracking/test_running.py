"""Costs of a track from its stages; tracks that are finished are kept; tables of medians."""

import dataclasses
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from flame_fitting.fit.track_config import track_preset
from scripts.tracking import running
from scripts.tracking.running import Job, costs, tracked
from scripts.tracking.tables import Row, flattened, table


def test_costs_of_vhaps_schedule() -> None:
    config = track_preset("vhap", Path("capture"), monocular=False)
    seconds = {"load": 1.0, "lmk_init_rigid": 2.0, "rgb_init_offset": 5.0, "rgb_sequential_tracking": 24.0}
    seconds |= {"rgb_global_tracking": 90.0, "fit": 130.0}
    assert costs(config, seconds, 12) == {"start": 7.0, "later": 2.0, "epoch": 3.0, "all": 130.0}


def test_costs_of_second_order_first() -> None:
    config = track_preset("track", Path("capture"), monocular=True)
    seconds = {"load": 1.0, "lmk_init_focal": 2.0, "lmk_init_all": 5.0, "rgb_global_tracking": 8.0, "fit": 20.0}
    epochs = config.pipeline.rgb_global_tracking.num_epochs
    assert costs(config, seconds, 40) == {"start": 7.0, "epoch": 8.0 / epochs, "all": 20.0}
    config.exp.photometric = False
    del seconds["rgb_global_tracking"]
    assert costs(config, seconds, 40) == {"start": 7.0, "all": 20.0}


def test_finished_tracks_are_kept_until_the_program_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, ran = Job(str(tmp_path), "open", "track"), []

    def work(command: list[str], **_: object) -> SimpleNamespace:
        ran.append(Path(command[-1]))
        given = json.loads(ran[-1].read_text())
        record = {"job": given, "seconds": {"all": float(len(ran))}, "memory": {}, "warnings": []}
        (ran[-1].parent / "bench.json").write_text(json.dumps(record))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", work)
    assert tracked(job)["seconds"] == {"all": 1.0} and tracked(job)["seconds"] == {"all": 1.0} and len(ran) == 1
    # what is asked for differs: a folder of its own
    other = dataclasses.replace(job, landmarks="biased")
    assert tracked(other)["seconds"] == {"all": 2.0} and other.folder != job.folder
    monkeypatch.setattr(running, "program_hash", lambda: "another")
    assert tracked(job)["seconds"] == {"all": 3.0}


def test_a_track_that_fails_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(command: list[str], stdout: object, **_: object) -> SimpleNamespace:
        stdout.write("first\nInputError: no pictures\n")  # type: ignore[attr-defined]
        stdout.flush()  # type: ignore[attr-defined]
        return SimpleNamespace(returncode=1)

    job = Job(str(tmp_path), "open", "track")
    monkeypatch.setattr(subprocess, "run", work)
    assert "InputError: no pictures" in tracked(job)["error"] and not (job.folder / "bench.json").exists()


def test_tables_hold_medians_over_seeds() -> None:
    def row(preset: str, seed: int, value: float) -> Row:
        record = {"seconds": {"all": 10 * value}, "memory": {"host": 1.0}}
        return Row(
            "open", "video", preset, "noisy", seed, flattened({"surface_median": value, "focal_ratio": value}, record)
        )

    rows = [*(row("track", seed, value) for seed, value in enumerate((0.8, 1.1, 9.0))), row("vhap", 0, 2.0)]
    text = table([*rows, Row("open", "video", "vhap", "noisy", 1, error="broke")])
    lines = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in text.splitlines()}
    assert lines["1 camera, frames left out (seeds 0 1 2)"] == ["open, track, noisy", "open, vhap, noisy"]
    assert next(cells for name, cells in lines.items() if name.startswith("face, point")) == [
        "1.10; –; –",
        "2.00; –; –",
    ]
    assert next(cells for name, cells in lines.items() if "all, s" in name) == ["–; –; –; 11.0", "–; –; –; 20.0"]
    # of errors, not the error of the median: 20, 10 and 800 %
    assert next(cells for name, cells in lines.items() if name.startswith("its error"))[0] == "20; –"
    assert not any("jitter" in name for name in lines)  # nothing was measured
