#!/usr/bin/env bash
# One avatar through every stage, each as a command of its own.
#   bash scripts/run_avatar.sh AVATAR OUTPUT
# `flame-fitting run AVATAR --output OUTPUT` does the same in one command and goes on where it stopped.
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "usage: bash scripts/run_avatar.sh AVATAR OUTPUT" >&2
  exit 2
fi
AVATAR="$(realpath "$1")"
OUTPUT="$(realpath -m "$2")"
# shellcheck source=scripts/_setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"
setup_environment

"$BIN/flame-fitting" render "$AVATAR" --output "$OUTPUT/render"
"$BIN/flame-fitting" detect "$OUTPUT/render"
"$BIN/flame-fitting" fit "$OUTPUT/render" --output "$OUTPUT/fit"
"$BIN/flame-fitting" export --src-folder "$OUTPUT/fit" --tgt-folder "$OUTPUT/export" --background-color white
"$BIN/flame-fitting" evaluate "$OUTPUT/fit"
