"""A path that is not there is refused before anything heavy is imported."""

import json
import subprocess
import sys
from pathlib import Path

from flame_fitting.commands import STAGES
from tests.conftest import REPOSITORY

HEAVY = ("torch", "numba", "scipy", "cv2", "trimesh", "mediapipe", "matplotlib", "viser", "av")
COMMANDS = {
    "run": (
        "run none.glb --output out",
        "run a.glb none.glb --output out",
        "run a.glb --ground-truth none --output out",
    ),
    "preprocess": ("preprocess --input none.mp4",),
    "render": ("render none.glb --output out", "render a.glb --flame-masks none.pkl --output out"),
    "detect": ("detect none", "detect folder --model-path none.task"),
    "fit": ("fit none --output out", "fit folder none --same-identity --output out"),
    "track": ("track none", "track --data.root-folder none --data.sequence a"),
    "track-nersemble": ("track-nersemble none",),
    "track-nersemble-v2": ("track-nersemble-v2 none",),
    "export": (
        "export --src-folder none --tgt-folder out",
        "export --src-folder folder --tgt-folder out",
        "export --src-folder none --tgt-folder out --format rigged-avatar",
        "export --src-folder fit --tgt-folder out --format rigged-avatar --avatar none.glb",
        "export --src-folder fit --tgt-folder out --format glb --capture-folder none",
    ),
    "combine": ("combine --src-folders folder none --tgt-folder out",),
    "evaluate": (
        "evaluate none",
        "evaluate folder",
        "evaluate fit --avatar none.glb",
        "evaluate fit --capture-folder none",
    ),
    "view": ("view none", "view folder", "view fit --pose none.npz"),
    "convert": ("convert none --output out.npz --to smplx",),
}
_SCRIPT = f"""
import contextlib, io, json, sys
from flame_fitting.cli import main
for line in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(line.split())
    print(json.dumps([line, code, said.getvalue(), [name for name in {HEAVY} if name in sys.modules]]))
"""


def test_every_command_says_what_is_not_there_before_it_imports_what_it_works_with(tmp_path: Path) -> None:
    assert COMMANDS.keys() == {stage.name for stage in STAGES} - {"make-demo-avatar", "doctor"}  # these read nothing
    (tmp_path / "a.glb").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "tracked_flame_params.npz").touch()
    before = sorted(tmp_path.rglob("*"))
    lines = [line for group in COMMANDS.values() for line in group]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input=json.dumps(lines),
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "", "FLAME_FITTING_SEARCH_PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line for line, *_ in told] == lines
    for line, code, said, heavy in told:
        wrong = "none" if "none" in line else "folder"
        assert code == 2 and f"flame-fitting: {wrong}" in said and "no " in said, (line, said)
        assert "Traceback" not in said and not heavy, (line, heavy)
    assert sorted(tmp_path.rglob("*")) == before  # nothing was made, no log, either
