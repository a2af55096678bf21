# shellcheck shell=bash
# Shared by the scripts beside it: makes the virtual environment and installs the project into it. To be sourced.
#
#   setup_environment [EXTRAS]      EXTRAS as pip writes them, e.g. "dev,build"
#
# Afterwards $BIN is the environment's bin folder. Settings, all optional:
#   FLAME_FITTING_VENV     where the environment lives            (default: .venv in the checkout)
#   FLAME_FITTING_PYTHON   the Python to make it with, >= 3.11    (default: the first one found)
#   FLAME_FITTING_TORCH    which torch build                      (default: the tested version from pip's own index;
#                          later that which was chosen first)
#                            cpu, cu126, ...   that build of the tested version, from download.pytorch.org
#                            2.12.0            that version
#                            https://...       the tested version from that index
#                            torch @ file:///wheel.whl, torch>=2.8 --pre, ...   handed to pip as it is

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${FLAME_FITTING_VENV:-$ROOT/.venv}"
BIN="$VENV/bin"
CONSTRAINTS="$ROOT/scripts/constraints.txt"
SYSTEM_PACKAGES=(libgl1 libegl1 libgles2 libglib2.0-0)

say() { printf '%s\n' "$*" >&2; }

die() {
  say "$@"
  exit 2
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    sudo -n "$@"
  else
    return 1
  fi
}

# Installs Debian packages where root or sudo allows it, else prints the line and ends with 2.
apt_install() {
  local why="$1"
  shift
  if command -v apt-get >/dev/null 2>&1 && as_root true; then
    say "$why: installing $*"
    as_root apt-get update -qq >&2 || true
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; then
      return 0
    fi
  fi
  die "$why. Install what is missing and run this again:" "  sudo apt-get install -y $*"
}

find_python() {
  local candidate
  for candidate in ${FLAME_FITTING_PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

make_venv() {
  local python
  python="$(find_python)" ||
    die "Python 3.11 or newer is needed and was not found." \
      "Install one (Debian 12, Ubuntu 24.04: sudo apt-get install -y python3 python3-venv) or name it: FLAME_FITTING_PYTHON=/path/to/python3"
  if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    local version
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    apt_install "$python cannot make virtual environments" "python$version-venv"
  fi
  say "Making the virtual environment $VENV with $python"
  "$python" -m venv "$VENV"
}

torch_line() { sed -n 's/^\(torch==.*\)$/\1/p' "$CONSTRAINTS"; }

# install_torch PYTHON CHOICE      CHOICE as FLAME_FITTING_TORCH is written
install_torch() {
  local python="$1" choice="$2" words
  case "$choice" in
    "") words=("$(torch_line)") ;;
    cpu | cu[0-9]* | rocm*) words=("$(torch_line)" --index-url "https://download.pytorch.org/whl/$choice") ;;
    http://* | https://*) words=("$(torch_line)" --index-url "$choice") ;;
    [0-9]*) words=("torch==$choice") ;;
    *@*) words=("$choice") ;;
    *) read -r -a words <<<"$choice" ;;
  esac
  "$python" -m pip install -q "${words[@]}"
}

# install_into PYTHON TORCH WHAT...      torch first and alone: what comes later must take it as it is.
install_into() {
  local python="$1" torch="$2" constraints
  shift 2
  install_torch "$python" "$torch"
  constraints="$("$python" -c 'import sys; print(sys.prefix)')/constraints.txt"
  {
    grep -v '^torch==' "$CONSTRAINTS"
    "$python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))'
  } >"$constraints"
  "$python" -m pip install -q -c "$constraints" "$@"
}

# By itself, as it asks for a second OpenCV: see the extra in pyproject.toml.
install_face_alignment() { "$1" -m pip install -q --no-deps -c "$CONSTRAINTS" face-alignment; }

# cv2 and mediapipe load system libraries that a bare machine may lack; only loading them tells.
system_libraries_load() {
  "$BIN/python" - <<'PYTHON' 2>&1
import ctypes
import importlib.util
from pathlib import Path

import cv2
import mediapipe

folder = Path(importlib.util.find_spec("mediapipe").origin).parent
for library in folder.rglob("libmediapipe*.so"):
    ctypes.CDLL(str(library))
PYTHON
}

check_system_libraries() {
  local said
  said="$(system_libraries_load)" && return 0
  case "$said" in
    *"shared object file"*)
      apt_install "A system library is missing (${said##*Error: })" "${SYSTEM_PACKAGES[@]}"
      said="$(system_libraries_load)" && return 0
      ;;
  esac
  die "cv2 or mediapipe cannot be loaded:" "$said"
}

# Which torch build: as it is said now, else as it was said when the environment was made.
chosen_torch() { printf '%s' "${FLAME_FITTING_TORCH:-$(cat "$VENV/.flame-fitting-torch" 2>/dev/null)}"; }

# What the installation depends on; when it is unchanged, there is nothing to do.
# fingerprint TORCH EXTRAS
fingerprint() {
  {
    cat "$ROOT/pyproject.toml" "$CONSTRAINTS" "${BASH_SOURCE[0]}"
    echo "$ROOT $1 $2"
  } | sha256sum | cut -d' ' -f1
}

setup_environment() {
  local extras="${1:-}" stamp="$VENV/.flame-fitting-setup" torch wanted
  torch="$(chosen_torch)"
  wanted="$(fingerprint "$torch" "$extras")"
  if [ -x "$BIN/flame-fitting" ] && grep -qxF "$wanted" "$stamp" 2>/dev/null; then
    return 0
  fi
  [ -x "$BIN/python" ] || make_venv
  say "Installing flame-fitting into $VENV."
  say "Download: about 0.5 GB with a CPU build of torch (2 GB on disk), about 3 GB with a CUDA build (8 GB on disk)."
  if [ -z "$torch" ]; then
    say "Which one pip picks by itself depends on its index: pypi.org has the CUDA build for Linux on x86-64."
    say "To choose: FLAME_FITTING_TORCH=cpu (or cu126, a version, an index's address) before the command."
  fi
  "$BIN/python" -m pip install -q --upgrade "pip>=24" --disable-pip-version-check
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  install_into "$BIN/python" "$torch" -e "$ROOT${extras:+[$extras]}"
  case ",$extras," in
    *,dev,* | *,test,* | *,face-alignment,*) install_face_alignment "$BIN/python" ;;
  esac
  check_system_libraries
  printf '%s' "$torch" >"$VENV/.flame-fitting-torch"
  echo "$wanted" >>"$stamp"
  say "Installed."
}
