#!/usr/bin/env bash
# mongoeco's wire server: MongoDB's protocol with transactions, from PyPI alone, in memory.
#
#   bash .ci/mongodb/mongoeco.sh setup    installs what is missing
#   bash .ci/mongodb/mongoeco.sh start [COUNT]
#                                         empty servers on the loopback, one unless told otherwise; their
#                                         URIs, in one line, are the last line
#   bash .ci/mongodb/mongoeco.sh stop
#   bash .ci/mongodb/mongoeco.sh lock     newer versions of everything, into mongoeco.txt
#
# Everything goes under MONGODB_LANE (build/mongodb), PORT is 27217 and those after it. mongoeco needs Python 3.13; where
# there is none, or with MONGOECO_PYTHON=debian, it runs on that of a Debian trixie made for it.
# Ends with 75 if that cannot be had on this machine.
set -euo pipefail
cd "$(dirname "$0")/../.."

LANE=${MONGODB_LANE:-$PWD/build/mongodb}/mongoeco
PORT=${PORT:-27217}
HERE=.ci/mongodb
ROOT=$LANE/debian
VENV=$LANE/venv

cannot() {
  echo "mongoeco: $1" >&2
  exit 75
}

# --- setup --------------------------------------------------------------------------------------

# A shim of pyenv answers only in the directories that choose its version, so candidates are run.
python_313() {
  [ "${MONGOECO_PYTHON-}" != debian ] || return 1
  local python versions=${PYENV_ROOT:-$HOME/.pyenv}/versions
  for python in python3.13 python3 "$versions"/3.13.*/bin/python3.13; do
    if "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  return 1
}

setup() {
  local python
  mkdir -p "$LANE"
  if python=$(python_313); then
    rm -rf "$LANE/uses-debian"
    { [ -x "$VENV/bin/python" ] && [ -e "$VENV/installed" ]; } || "$python" -m venv --clear "$VENV"
    packages "$VENV/bin/python" "$VENV/installed"
  else
    touch "$LANE/uses-debian"
    debian_root
    # The pip of this machine fetches for the other Python, so that the root needs neither pip nor
    # a way out. It has to be told every tag that the libc there (2.41) takes, and would judge by
    # its own Python what else is required: the list is complete.
    local arch minor target=()
    arch=$(uname -m)
    for minor in {41..17}; do target+=(--platform "manylinux_2_${minor}_$arch"); done
    packages python3 "$ROOT/installed" --target "$ROOT/opt/mongoeco" --upgrade --python-version 3.13 \
      --implementation cp --abi cp313 --abi abi3 --abi none "${target[@]}" --platform "manylinux2014_$arch" \
      --no-deps --ignore-requires-python --root-user-action ignore
  fi
}

# packages PYTHON STAMP [OPTION ...]
packages() {
  local python=$1 stamp=$2
  shift 2
  cmp -s $HERE/mongoeco.txt "$stamp" && return
  "$python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
    -r $HERE/mongoeco.txt "$@" || cannot "pip could not install $HERE/mongoeco.txt"
  cp $HERE/mongoeco.txt "$stamp"
}

debian_root() {
  [ ! -e "$ROOT/complete" ] || return 0
  [ "$(id -u)" -eq 0 ] || cannot "there is no Python 3.13, and only root can make a Debian to run one in"
  command -v apt-get >/dev/null || cannot "there is no Python 3.13, and this is no Debian"
  local mirror
  mirror=$(mirror)
  # apt tells of no mirror before it has been there
  if [ -z "$mirror" ] || ! command -v debootstrap >/dev/null; then
    { apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends debootstrap
    } >/dev/null || cannot "apt-get could not install debootstrap"
    mirror=$(mirror)
  fi
  [ -n "$mirror" ] || cannot "apt's configuration names no mirror of Debian"
  rm -rf "$ROOT"
  debootstrap --variant=minbase --include=python3 trixie "$ROOT" "$mirror" >"$LANE/debootstrap.log" 2>&1 ||
    cannot "debootstrap failed: $(tail -1 "$LANE/debootstrap.log")"
  rm -rf "$ROOT"/var/cache/apt/archives/*.deb
  touch "$ROOT/complete"
}

# Where this machine's apt has Debian itself from.
mirror() {
  # shellcheck disable=SC1091,SC2016
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$(. /etc/os-release && echo "$VERSION_CODENAME")" '
      $1 == release && $2 == "main" && !mirror { mirror = $3 } END { print mirror }'
}

# --- the server ---------------------------------------------------------------------------------

start() {
  local run=("$VENV/bin/python" "$PWD/$HERE/mongoeco_server.py") port uris=()
  setup
  stop
  if [ -e "$LANE/uses-debian" ]; then
    mountpoint -q "$ROOT/proc" || mount -t proc proc "$ROOT/proc" || cannot "/proc cannot be mounted in $ROOT"
    install -D $HERE/mongoeco_server.py "$ROOT/opt/mongoeco_server.py"
    run=(chroot "$ROOT" /usr/bin/env -i PATH=/usr/bin LANG=C.UTF-8 PYTHONPATH=/opt/mongoeco
      /usr/bin/python3 /opt/mongoeco_server.py)
  fi
  for ((port = PORT; port < PORT + ${1:-1}; port++)); do
    started "$port" "${run[@]}" || { stop; echo "mongoeco: the server did not start" >&2; exit 1; }
    uris+=("$(<"$LANE/$port.uri")")
  done
  echo "${uris[*]}"
}

# started PORT COMMAND ... until it answers
started() {
  local port=$1 at=$LANE/$1 waited
  shift
  rm -f "$at.uri"
  setsid "$@" "$port" </dev/null >"$at.uri" 2>"$at.log" &
  echo $! >"$at.pid"
  # it prints its URI once it answers
  for ((waited = 0; waited < 300; waited++)); do
    [ ! -s "$at.uri" ] || return 0
    kill -0 "$(<"$at.pid")" 2>/dev/null || break
    sleep 0.1
  done
  tail -5 "$at.log" >&2
  return 1
}

stop() {
  local file
  for file in "$LANE"/*.pid; do
    [ ! -s "$file" ] || ended "$(<"$file")"
    rm -f "$file"
  done
  # or nothing could delete the root
  ! mountpoint -q "$ROOT/proc" || umount "$ROOT/proc"
}

ended() {
  local pid=$1 waited
  # a pid of long ago may be another's by now
  grep -qs mongoeco_server "/proc/$pid/cmdline" || return 0
  kill "$pid"
  for ((waited = 0; waited < 50; waited++)); do
    [ -e "/proc/$pid" ] || return 0
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
}

lock() {
  echo 'mongoeco[wire]' | .venv/bin/uv pip compile --quiet --upgrade --python-version 3.13 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "bash $HERE/mongoeco.sh lock" \
    --output-file $HERE/mongoeco.txt -
}

case ${1-} in
  setup | start | stop | lock) "$@" ;;
  *) sed -n '2,/^set /{ /^#/s/^# \{0,1\}//p; }' "$0" >&2; exit 2 ;;
esac
