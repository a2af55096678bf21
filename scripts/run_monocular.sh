#!/usr/bin/env bash
# A video of a head, from its file to a dataset, with VHAP's names of folders.
#   bash scripts/run_monocular.sh data/monocular/obama.mp4
# writes frames and mattes beside the video, output/monocular/obama_whiteBg_staticOffset with the track, its report and
# overlay.mp4, and export/monocular/obama_whiteBg_staticOffset_maskBelowLine. A stopped run goes on where it was.
set -euo pipefail
# shellcheck source=scripts/_nersemble_names.sh
source "$(dirname "${BASH_SOURCE[0]}")/_nersemble_names.sh"
USAGE="usage: bash scripts/run_monocular.sh VIDEO [OPTIONS] [-- OPTIONS OF track]"
OPTIONS="  --downsample N        track pictures of 1/N of the size    (default: 1)
  --matting METHOD      of preprocess; none: no mattes       (default: selfie)
  --no-static-offset    tracked with --model.no_use_static_offset
  --track-root DIR      folder of the tracks                 (default: output/monocular)
  --export-root DIR     folder of the exports                (default: export/monocular)
  --dry-run             print the commands, run nothing
  -- ...                what follows is handed to track"
TRACK_ROOT=output/monocular EXPORT_ROOT=export/monocular DOWNSAMPLE=1 MATTING=selfie VIDEO=""

wrong() {
  printf '%s\n\n%s\n\n%s\n' "$1" "$USAGE" "$OPTIONS" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case "$1" in
    --downsample | --matting | --track-root | --export-root)
      [ $# -ge 2 ] || wrong "$1 lacks a value"
      case "$1" in
        --downsample) DOWNSAMPLE="$2" ;;
        --matting) MATTING="$2" ;;
        --track-root) TRACK_ROOT="$2" ;;
        --export-root) EXPORT_ROOT="$2" ;;
      esac
      shift
      ;;
    --no-static-offset) STATIC_OFFSET=no ;;
    --dry-run) DRY_RUN=yes ;;
    -h | --help) printf '%s\n\n%s\n' "$USAGE" "$OPTIONS" && exit 0 ;;
    --)
      shift
      REST=("$@")
      break
      ;;
    -*) wrong "$1: no such option" ;;
    *)
      [ -z "$VIDEO" ] || wrong "$1: one video at a time"
      VIDEO="$1"
      ;;
  esac
  shift
done
[ -n "$VIDEO" ] || wrong "a video is needed"
[[ "$DOWNSAMPLE" =~ ^[1-9][0-9]*$ ]] || wrong "--downsample $DOWNSAMPLE: must be a whole number"

[ "$DRY_RUN" = yes ] || [ -e "$VIDEO" ] || wrong "$VIDEO: not found"
prepare_program
file="$(basename "$VIDEO")"
sequence="${file%.*}" offset=staticOffset
frames=() tracked=()
[ "$STATIC_OFFSET" = yes ] || { offset=noOffset && tracked+=(--model.no-use-static-offset); }
[ "$MATTING" = none ] || frames+=(--matting-method "$MATTING")
[ "$DOWNSAMPLE" = 1 ] || { frames+=(--downsample-scales "$DOWNSAMPLE") && tracked+=(--data.n-downsample-rgb "$DOWNSAMPLE"); }
name="${sequence}_whiteBg_$offset"
run "$BIN/flame-fitting" preprocess --input "$VIDEO" "${frames[@]}"
run "$BIN/flame-fitting" track --data.root-folder "$(dirname "$VIDEO")" --data.sequence "$sequence" \
  --exp.output-folder "$TRACK_ROOT/$name" "${tracked[@]}" "${REST[@]}"
run "$BIN/flame-fitting" export --src-folder "$TRACK_ROOT/$name" \
  --tgt-folder "$EXPORT_ROOT/${name}_maskBelowLine" --background-color white
