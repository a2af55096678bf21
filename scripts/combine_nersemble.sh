#!/usr/bin/env bash
# Unites the exports of several NeRSemble sequences of one subject, by VHAP's names.
#   bash scripts/combine_nersemble.sh 074 EMO-1 EMO-2 EMO-3 EMO-4 EXP-2 EXP-3 EXP-4 EXP-5 EXP-8 EXP-9
# reads export/nersemble/074_EMO-1_v16_DS4_whiteBg_staticOffset_maskBelowLine and its like, and writes
# export/nersemble/UNION10_074_EMO1234EXP234589_v16_DS4_whiteBg_staticOffset_maskBelowLine beside them.
set -euo pipefail
# shellcheck source=scripts/_nersemble_names.sh
source "$(dirname "${BASH_SOURCE[0]}")/_nersemble_names.sh"
USAGE="usage: bash scripts/combine_nersemble.sh SUBJECT SEQUENCE [SEQUENCE ...] [OPTIONS] [-- OPTIONS OF combine]"
parse_names "$USAGE" "$@"

sources=()
for sequence in "${SEQUENCES[@]}"; do
  sources+=("$EXPORT_ROOT/$(export_name "$sequence")")
done

prepare_program
run "$BIN/flame-fitting" combine --src-folders "${sources[@]}" --tgt-folder "$EXPORT_ROOT/$(union_name)" "${REST[@]}"
