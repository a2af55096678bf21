#!/usr/bin/env bash
# From a fresh clone to a fitted head: environment, demo avatar, the whole chain, the result table.
# Flags are handed on to `flame-fitting run`, e.g.  bash scripts/demo.sh --no-photometric
set -euo pipefail
# shellcheck source=scripts/_setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"
setup_environment
cd "$ROOT"
OUTPUT="${FLAME_FITTING_DEMO_OUTPUT:-output/demo}"

"$BIN/flame-fitting" make-demo-avatar --output "$OUTPUT/avatar"
"$BIN/flame-fitting" run "$OUTPUT/avatar/demo_avatar.glb" --output "$OUTPUT" --head open "$@"
