#!/usr/bin/env bash
# All checks: lint, format, types, dependencies, the built wheel in an empty environment, tests. Sets everything up by
# itself.
# Arguments go to pytest, e.g.  bash scripts/test.sh tests/head -k gradient
# Tests run in one process per core, at most 8; PYTEST_XDIST_AUTO_NUM_WORKERS or -n says how many (-n 0: in this one).
# FLAME_FITTING_SLOW=1 adds the tests that take minutes each.
set -euo pipefail
# shellcheck source=scripts/_setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"
setup_environment dev
cd "$ROOT"

SCRATCH="$(mktemp -d)"
WHEEL_CHECK=""
# shellcheck disable=SC2317  # the trap calls it
clean_up() {
  [ -z "$WHEEL_CHECK" ] || kill "$WHEEL_CHECK" 2>/dev/null || true
  rm -rf "$SCRATCH"
}
trap clean_up EXIT

check_wheel() (
  set -euo pipefail
  export PIP_COMPILE=0 # few of its files are ever imported
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
)

# The wheel's environment takes minutes, most of them spent unpacking: beside the other checks.
check_wheel >"$SCRATCH/wheel.log" 2>&1 &
WHEEL_CHECK=$!

say "== ruff"
"$BIN/ruff" check .
"$BIN/ruff" format --check .

say "== mypy"
"$BIN/mypy"

say "== deptry"
"$BIN/deptry" flame_fitting
"$BIN/deptry" flame_fitting scripts tests --ignore DEP002,DEP004

say "== wheel"
STATUS=0
wait "$WHEEL_CHECK" || STATUS=$?
WHEEL_CHECK=""
cat "$SCRATCH/wheel.log" >&2
[ "$STATUS" = 0 ] || exit "$STATUS"

say "== pytest"
WORKERS=(-n auto --dist worksteal)
case " $* " in *" no:xdist "* | *" -pno:xdist "*) WORKERS=() ;; esac
CORES="$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
export PYTEST_XDIST_AUTO_NUM_WORKERS="${PYTEST_XDIST_AUTO_NUM_WORKERS:-$((CORES < 8 ? CORES : 8))}"
"$BIN/python" -m pytest "${WORKERS[@]}" "$@"
