"""Files are small: each has one role, and is read in one go."""

from pathlib import Path

MOST_LINES = 400
LONGER = {
    # one algorithm each, which reads best in one piece
    "flame_fitting/render/kernels_texture.py": 573,
    "flame_fitting/render/cpu.py": 403,
    # tables of cases
    "scripts/accuracy/cases.py": 492,
    "scripts/accuracy/bench.py": 427,
    "tests/export/test_dialects.py": 712,
    "tests/fit/test_photometric_options.py": 644,
}
"""Files that may be longer, and how long: they may shrink, not grow."""


def test_no_file_is_long(repository: Path) -> None:
    for folder in ("flame_fitting", "scripts", "tests"):
        for path in sorted((repository / folder).rglob("*.py")):
            name, count = path.relative_to(repository).as_posix(), len(path.read_text(encoding="utf-8").splitlines())
            assert count <= LONGER.get(name, MOST_LINES), f"{name} has {count} lines: let it fall apart by its roles"
