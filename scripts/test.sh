#!/usr/bin/env bash
# All checks: lint, format, types, dependencies, the built wheel in an empty environment, tests. Sets everything up by
# itself.
# Arguments go to pytest, e.g.  bash scripts/test.sh tests/head -k gradient
# FLAME_FITTING_SLOW=1 adds the tests that take minutes each.
set -euo pipefail
# shellcheck source=scripts/_setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"
setup_environment dev
cd "$ROOT"

say "== ruff"
"$BIN/ruff" check .
"$BIN/ruff" format --check .

say "== mypy"
"$BIN/mypy"

say "== deptry"
"$BIN/deptry" flame_fitting
"$BIN/deptry" flame_fitting scripts tests --ignore DEP002,DEP004

say "== wheel"
SCRATCH="$(mktemp -d)"
trap 'rm -rf "$SCRATCH"' EXIT
"$BIN/python" -m build --no-isolation --wheel --outdir "$SCRATCH" . >"$SCRATCH/build.log" 2>&1 || {
  cat "$SCRATCH/build.log" >&2
  exit 1
}
# An empty environment, as `pip install .` finds it: what the wheel does not ask for is not there. A CPU build of torch
# does, also where the first environment has a CUDA build.
WHEEL_TORCH="${FLAME_FITTING_TORCH:-}"
"$BIN/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' || WHEEL_TORCH=cpu
"$BIN/python" -m venv "$SCRATCH/venv"
WHEEL_BIN="$SCRATCH/venv/bin"
install_into "$WHEEL_BIN/python" "$WHEEL_TORCH" "$SCRATCH"/*.whl
mkdir "$SCRATCH/elsewhere"
(
  cd "$SCRATCH/elsewhere"
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
  (cd "$ROOT" && "$BIN/python" -m tests.avatar.draco_packing "$SCRATCH"/elsewhere/{demo_avatar/demo_avatar,draco}.glb)
  "$WHEEL_BIN/flame-fitting" run draco.glb --output out --head open --preset fast --views 8 --resolution 256
  for file in render/transforms.json fit/tracked_flame_params.npz fit/fitted.obj fit/metrics.json export/transforms.json; do
    test -s "out/$file" || die "the wheel's run left no $file"
  done
)

say "== pytest"
"$BIN/python" -m pytest "$@"
