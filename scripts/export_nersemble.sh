#!/usr/bin/env bash
# Exports the tracks of NeRSemble sequences of one subject, by VHAP's names.
#   bash scripts/export_nersemble.sh 074 EMO-1 EMO-2
# reads output/nersemble/074_EMO-1_v16_DS4_wBg_staticOffset and its like, and writes
# export/nersemble/074_EMO-1_v16_DS4_whiteBg_staticOffset_maskBelowLine and its like.
set -euo pipefail
# shellcheck source=scripts/_nersemble_names.sh
source "$(dirname "${BASH_SOURCE[0]}")/_nersemble_names.sh"
USAGE="usage: bash scripts/export_nersemble.sh SUBJECT SEQUENCE [SEQUENCE ...] [OPTIONS] [-- OPTIONS OF export]"
parse_names "$USAGE" "$@"
need_background "$USAGE"

prepare_program
flags=(--background-color "$BACKGROUND")
[ "$MASK" = yes ] || flags+=(--no-mask-below-line)
for sequence in "${SEQUENCES[@]}"; do
  run "$BIN/flame-fitting" export --src-folder "$TRACK_ROOT/$(track_name "$sequence")" \
    --tgt-folder "$EXPORT_ROOT/$(export_name "$sequence")" "${flags[@]}" "${REST[@]}"
done
