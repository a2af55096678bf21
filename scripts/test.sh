#!/usr/bin/env bash
# All checks: lint, format, types, the built wheel in an environment of its own, tests. Sets everything up by itself.
# Arguments go to pytest, e.g.  bash scripts/test.sh tests/head -k gradient
# FLAME_FITTING_SLOW=1 adds the tests that take minutes each.
set -euo pipefail
# shellcheck source=scripts/_setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"
setup_environment dev,draco
cd "$ROOT"

say "== ruff"
"$BIN/ruff" check .
"$BIN/ruff" format --check .

say "== mypy"
"$BIN/mypy"

say "== wheel"
SCRATCH="$(mktemp -d)"
trap 'rm -rf "$SCRATCH"' EXIT
"$BIN/python" -m build --no-isolation --wheel --outdir "$SCRATCH" . >"$SCRATCH/build.log" 2>&1 || {
  cat "$SCRATCH/build.log" >&2
  exit 1
}
"$BIN/python" -m venv --without-pip "$SCRATCH/venv"
# The dependencies are borrowed from the first environment; a path file does not follow its editable install.
SITE="$("$SCRATCH/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
"$BIN/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$SITE/borrowed.pth"
"$BIN/python" -m pip --python "$SCRATCH/venv/bin/python" install -q --no-deps --no-index --ignore-installed "$SCRATCH"/*.whl
mkdir "$SCRATCH/elsewhere"
(
  cd "$SCRATCH/elsewhere"
  WHEEL_BIN="$SCRATCH/venv/bin"
  "$WHEEL_BIN/python" - <<'PYTHON'
import sys
from pathlib import Path

import flame_fitting

here = Path(flame_fitting.__file__).resolve()
assert here.is_relative_to(Path(sys.prefix).resolve()), f"not the wheel: {here}"
PYTHON
  "$WHEEL_BIN/flame-fitting" --help >/dev/null
  "$WHEEL_BIN/flame-fitting" doctor
  "$WHEEL_BIN/flame-fitting" make-demo-avatar --output demo_avatar
  test -s demo_avatar/demo_avatar.glb
)

say "== pytest"
"$BIN/python" -m pytest "$@"
