# shellcheck shell=bash
# VHAP's names of NeRSemble folders, made from options, for the scripts beside it. To be sourced.
#
#   SUBJECT_SEQUENCE_v<views>_DS<downsampling>_<wBg|whiteBg|blackBg>_<staticOffset|noOffset>[_maskBelowLine]
#   UNION<number of sources>_SUBJECT_<sequences, one kind after the other>_v...      EMO-1 EMO-2 EXP-2 -> EMO12EXP2

VIEWS=16 DOWNSAMPLE=4 BACKGROUND=white STATIC_OFFSET=yes MASK=yes
TRACK_ROOT=output/nersemble EXPORT_ROOT=export/nersemble DRY_RUN=no
SUBJECT="" SEQUENCES=() REST=()

name_options="  --views N             views of the recording                     (default: 16)
  --downsample N        n_downsample_rgb of the tracking           (default: 4)
  --background COLOR    white, black or none: the pictures' own    (default: white)
  --no-static-offset    tracked with --model.no_use_static_offset
  --no-mask             not cut below the neck
  --track-root DIR      folder of the tracks                       (default: output/nersemble)
  --export-root DIR     folder of the exports                      (default: export/nersemble)
  --dry-run             print the commands, run nothing
  -- ...                what follows is handed to the command"

# parse_names USAGE ARGUMENTS...      sets the variables above; SUBJECT, then its SEQUENCES
parse_names() {
  local usage="$1" words=()
  shift
  while [ $# -gt 0 ]; do
    case "$1" in
      --views | --downsample | --background | --track-root | --export-root)
        [ $# -ge 2 ] || fail_names "$usage" "$1 lacks a value"
        case "$1" in
          --views) VIEWS="$2" ;;
          --downsample) DOWNSAMPLE="$2" ;;
          --background) BACKGROUND="$2" ;;
          --track-root) TRACK_ROOT="$2" ;;
          --export-root) EXPORT_ROOT="$2" ;;
        esac
        shift
        ;;
      --no-static-offset) STATIC_OFFSET=no ;;
      --no-mask) MASK=no ;;
      --dry-run) DRY_RUN=yes ;;
      -h | --help) printf '%s\n\n%s\n' "$usage" "$name_options" && exit 0 ;;
      --)
        shift
        REST=("$@")
        break
        ;;
      -*) fail_names "$usage" "$1: no such option" ;;
      *) words+=("$1") ;;
    esac
    shift
  done
  [[ "$VIEWS" =~ ^[1-9][0-9]*$ ]] || fail_names "$usage" "--views $VIEWS: must be a whole number"
  [[ "$DOWNSAMPLE" =~ ^[1-9][0-9]*$ ]] || fail_names "$usage" "--downsample $DOWNSAMPLE: must be a whole number"
  [[ "$BACKGROUND" =~ ^(white|black|none)$ ]] || fail_names "$usage" "--background $BACKGROUND: white, black or none"
  [ "${#words[@]}" -ge 2 ] || fail_names "$usage" "a subject and at least one sequence are needed"
  SUBJECT="${words[0]}" SEQUENCES=("${words[@]:1}")
}

fail_names() {
  printf '%s\n\n%s\n\n%s\n' "$2" "$1" "$name_options" >&2
  exit 2
}

# background_word COLOR
background_word() { case "$1" in none) echo wBg ;; *) echo "${1}Bg" ;; esac; }

# name_end BACKGROUND_WORD      what stands behind subject and sequences, without the mask
name_end() { echo "v${VIEWS}_DS${DOWNSAMPLE}_$1_$([ "$STATIC_OFFSET" = yes ] && echo staticOffset || echo noOffset)"; }

# track_name SEQUENCE      NeRSemble is tracked with its real background
track_name() { echo "${SUBJECT}_$1_$(name_end wBg)"; }

export_end() { echo "$(name_end "$(background_word "$BACKGROUND")")$([ "$MASK" = yes ] && echo _maskBelowLine || true)"; }

# export_name SEQUENCE
export_name() { echo "${SUBJECT}_$1_$(export_end)"; }

# gathered SEQUENCES...      EMO-1-shout EMO-2 EXP-2 EXP-3 -> EMO12EXP23
gathered() {
  local sequence kind number last="" out=""
  for sequence in "$@"; do
    IFS=- read -r kind number _ <<<"$sequence"
    [[ "$number" =~ ^[0-9]+$ ]] || number=""
    [ "$kind" = "$last" ] || out+="$kind"
    out+="$number"
    last="$kind"
  done
  echo "$out"
}

union_name() { echo "UNION${#SEQUENCES[@]}_${SUBJECT}_$(gathered "${SEQUENCES[@]}")_$(export_end)"; }

# need_background USAGE      an export puts a colour behind the head
need_background() {
  [ "$BACKGROUND" != none ] ||
    fail_names "$1" "--background none: an export puts a colour behind the head; give white or black"
}

# prepare_program      installs it and sets BIN to where it is, unless commands are only printed
prepare_program() {
  BIN=.
  [ "$DRY_RUN" = no ] || return 0
  # shellcheck source=scripts/_setup.sh
  source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"
  setup_environment
}

# run COMMAND...
run() {
  if [ "$DRY_RUN" = yes ]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}
