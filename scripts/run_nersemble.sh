#!/usr/bin/env bash
# NeRSemble sequences of one subject, from videos to datasets, with VHAP's names of folders.
#   bash scripts/run_nersemble.sh 074 EMO-1 EMO-2
# reads data/nersemble, and writes frames and mattes there, output/nersemble/074_EMO-1_v16_DS4_wBg_staticOffset with the
# track and its report, and export/nersemble/074_EMO-1_v16_DS4_whiteBg_staticOffset_maskBelowLine; and so on. A stopped run
# goes on where it was. DATA_ROOT, MATTING (of preprocess) and VERSION (2: NeRSemble v2) may be set before.
set -euo pipefail
# shellcheck source=scripts/_nersemble_names.sh
source "$(dirname "${BASH_SOURCE[0]}")/_nersemble_names.sh"
USAGE="usage: bash scripts/run_nersemble.sh SUBJECT SEQUENCE [SEQUENCE ...] [OPTIONS] [-- OPTIONS OF track]"
parse_names "$USAGE" "$@"
need_background "$USAGE"
VERSION="${VERSION:-1}" MATTING="${MATTING:-selfie}"
case "$VERSION" in
  1) DATA_ROOT="${DATA_ROOT:-data/nersemble}" command=track-nersemble below="$SUBJECT" ;;
  2) DATA_ROOT="${DATA_ROOT:-data/nersemble_v2}" command=track-nersemble-v2 below="$SUBJECT/sequences" ;;
  *) fail_names "$USAGE" "VERSION=$VERSION: 1 or 2" ;;
esac

prepare_program
scales=() tracked=() exported=(--background-color "$BACKGROUND")
[ "$DOWNSAMPLE" = 1 ] || { scales=(--downsample-scales "$DOWNSAMPLE") && tracked=(--data.n-downsample-rgb "$DOWNSAMPLE"); }
[ "$STATIC_OFFSET" = yes ] || tracked+=(--model.no-use-static-offset)
[ "$MASK" = yes ] || exported+=(--no-mask-below-line)
for sequence in "${SEQUENCES[@]}"; do
  track="$TRACK_ROOT/$(track_name "$sequence")"
  run "$BIN/flame-fitting" preprocess --input "$DATA_ROOT/$below/$sequence" --matting-method "$MATTING" "${scales[@]}"
  run "$BIN/flame-fitting" "$command" --data.root-folder "$DATA_ROOT" --data.subject "$SUBJECT" \
    --data.sequence "$sequence" --exp.output-folder "$track" "${tracked[@]}" "${REST[@]}"
  run "$BIN/flame-fitting" export --src-folder "$track" --tgt-folder "$EXPORT_ROOT/$(export_name "$sequence")" \
    "${exported[@]}"
done
