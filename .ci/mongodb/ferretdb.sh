#!/usr/bin/env bash
# A server with real indexes that speaks MongoDB's protocol, for the tests of the MongoDB store:
# FerretDB before PostgreSQL with the DocumentDB extension.
#
#   .ci/mongodb/ferretdb.sh setup             install everything; quick when it is there
#   .ci/mongodb/ferretdb.sh start             start on empty data; the last line printed is the URI
#   .ci/mongodb/ferretdb.sh stop              stop; the data stay until the next start
#   .ci/mongodb/ferretdb.sh kill-database     kill -9 PostgreSQL, not FerretDB, as a crash would
#   .ci/mongodb/ferretdb.sh restart-database  start PostgreSQL on the data that a crash left
#
# PORT (27117) is FerretDB's, PORT + 1 PostgreSQL's; servers on several ports live side by side.
# MONGODB_LANE (build/mongodb) is the folder. Exit code 75: this machine cannot do it.
set -euo pipefail
cd "$(dirname "$0")/../.."

FERRETDB=github.com/FerretDB/FerretDB/v2/cmd/ferretdb@v2.7.0
POSTGRESQL=18
PORT=${PORT:-27117}
LANE=$(realpath -m "${MONGODB_LANE:-build/mongodb}")
ROOT=$LANE/root                # a Debian of its own: only unstable has DocumentDB
RUN=$LANE/run-$PORT            # pids and logs of this port's server
DATA=/srv/mongodb-$PORT        # in ROOT
BIN=/usr/lib/postgresql/$POSTGRESQL/bin  # in ROOT
SKIPPED=75

# --- setup --------------------------------------------------------------------------------------

setup() {
  command -v go >/dev/null || cannot "go missing, which builds FerretDB"
  command -v apt-get >/dev/null || cannot "this is no Debian"
  unshare --mount true 2>/dev/null || cannot "this machine lets nobody mount, which a Debian root needs"
  mkdir -p "$LANE"
  exec 9>"$LANE/lock"  # two lanes may come at once
  flock 9
  local ferretdb
  { [ -x "$LANE/bin/ferretdb" ] || build_ferretdb; } &
  ferretdb=$!
  [ -e "$ROOT/ready" ] || build_root
  wait "$ferretdb"
}

# Built beside its place and moved, so that an interrupted build is not taken for a whole one.
build_ferretdb() {
  GOBIN=$LANE/bin.new go install "$FERRETDB" >"$LANE/go.log" 2>&1 ||
    cannot "go could not build FerretDB: $(tail -n 1 "$LANE/go.log")"
  rm -rf "${LANE:?}/bin"
  mv "$LANE/bin.new" "$LANE/bin"
}

build_root() {
  local mirror
  { apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends debootstrap
  } >/dev/null || cannot "apt-get could not install debootstrap"
  mirror=$(mirror)
  [ -n "$mirror" ] || cannot "apt gets Debian from nowhere here"
  rm -rf "$ROOT"
  ROOT=$ROOT POSTGRESQL=$POSTGRESQL MIRROR=$mirror PROXY=$(proxy) \
    unshare --mount bash -euo pipefail >"$LANE/root.log" 2>&1 <<'PRIVATE' ||
    # what is mounted here is unmounted when this shell ends
    [ -z "$PROXY" ] || export http_proxy=$PROXY https_proxy=$PROXY
    debootstrap --variant=minbase unstable "$ROOT" "$MIRROR"
    mountpoint -q "$ROOT/proc" || mount -t proc proc "$ROOT/proc"
    printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"  # a package starts no server
    chmod +x "$ROOT/usr/sbin/policy-rc.d"
    mkdir -p "$ROOT/etc/postgresql-common"
    echo 'create_main_cluster = false' >"$ROOT/etc/postgresql-common/createcluster.conf"
    # a mirror that is a snapshot is older than its index says it may be
    echo 'Acquire::Check-Valid-Until "false";' >"$ROOT/etc/apt/apt.conf.d/snapshot"
    chroot "$ROOT" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive chroot "$ROOT" apt-get install -qq --yes --no-install-recommends \
      "postgresql-$POSTGRESQL-documentdb"
    chroot "$ROOT" apt-get clean
    rm -rf "$ROOT"/var/lib/apt/lists/*
    touch "$ROOT/ready"
PRIVATE
    cannot "no PostgreSQL with DocumentDB: $(tail -n 1 "$LANE/root.log")"
}

# Where apt of this machine gets Debian from, and through what.
mirror() {
  local release
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  apt-get indextargets --format '$(CODENAME) $(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$release" '$1 == release && $2 == "Debian" { print $3; exit }'
}

proxy() {
  local proxy=
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  echo "${proxy:-${http_proxy-}}"
}

# --- the servers --------------------------------------------------------------------------------

start() {
  [ -e "$ROOT/ready" ] && [ -x "$LANE/bin/ferretdb" ] || setup
  stop
  local port
  for port in "$PORT" "$((PORT + 1))"; do
    ! taken "$port" || {
      echo "port $port is another server's; set PORT" >&2
      return 1
    }
  done
  rm -rf "$RUN" "${ROOT:?}$DATA"
  mkdir -p "$RUN" "$ROOT$DATA"
  chroot "$ROOT" chown postgres: "$DATA"
  in_root "$BIN/initdb" --pgdata="$DATA" --auth=trust --username=postgres --encoding=UTF8 \
    --locale=C.UTF-8 >"$RUN/initdb.log"
  # cron's jobs expire documents, as background workers, which need no connection. DocumentDB's two:
  # the batch that FerretDB's hello promises, and bounds on every column of an index on subdocuments.
  cat >>"$ROOT$DATA/postgresql.conf" <<CONFIGURATION
listen_addresses = '127.0.0.1'
port = $((PORT + 1))
unix_socket_directories = ''
shared_preload_libraries = 'pg_cron, pg_documentdb_core, pg_documentdb'
cron.database_name = 'postgres'
cron.use_background_workers = on
cron.log_statement = off
cron.log_run = off
documentdb.maxWriteBatchSize = 100000
documentdb.enableCompositeReducedCorrelatedTermsOnCommonSubPath = off
max_worker_processes = 16
deadlock_timeout = 50ms
fsync = on
full_page_writes = on
synchronous_commit = on
CONFIGURATION
  start_database
  in_root "$BIN/psql" --host=127.0.0.1 --port=$((PORT + 1)) --username=postgres --quiet \
    --command='SET client_min_messages TO warning; CREATE EXTENSION documentdb CASCADE'
  FERRETDB_TELEMETRY=disable DO_NOT_TRACK=1 setsid "$LANE/bin/ferretdb" --no-auth --log-level=WARN \
    --listen-addr="127.0.0.1:$PORT" --debug-addr=- --state-dir="$RUN" \
    --postgresql-url="postgres://postgres@127.0.0.1:$((PORT + 1))/postgres" \
    </dev/null >"$RUN/ferretdb.log" 2>&1 9>&- &
  echo $! >"$RUN/ferretdb.pid"
  local tries
  for tries in {1..100}; do
    if "$LANE/bin/ferretdb" ping --listen-addr="127.0.0.1:$PORT" >/dev/null 2>&1; then
      echo "mongodb://127.0.0.1:$PORT/"
      return
    fi
    pid ferretdb >/dev/null || break
    sleep 0.1
  done
  cat "$RUN/ferretdb.log" >&2
  echo "FerretDB does not answer" >&2
  return 1
}

start_database() {
  in_root "$BIN/pg_ctl" --pgdata="$DATA" --log="$DATA/log" --wait --silent start 9>&- || {
    tail "$ROOT$DATA/log" >&2
    return 1
  }
  head -n 1 "$ROOT$DATA/postmaster.pid" >"$RUN/postgresql.pid"
}

stop() {
  end TERM ferretdb
  end INT postgresql  # INT: without waiting for its clients
}

# All at once: a postmaster that is stopped starts no children, and sees none die.
kill_database() {
  local postmaster pids
  postmaster=$(pid postgresql)
  kill -STOP "$postmaster"
  pids=($(pgrep --parent "$postmaster" || true) "$postmaster")
  kill -KILL "${pids[@]}" 2>/dev/null || true
  gone "${pids[@]}"
}

restart_database() {
  end INT postgresql
  start_database
}

# --- helpers ------------------------------------------------------------------------------------

# in_root COMMAND ...: as postgres in the Debian root, with the file systems that PostgreSQL needs.
in_root() {
  ROOT=$ROOT unshare --mount bash -c '
    mount -t proc proc "$ROOT/proc"
    mount -t tmpfs shm "$ROOT/dev/shm"
    exec chroot --userspec=postgres: "$ROOT" env -i LC_ALL=C.UTF-8 PATH=/usr/bin:/bin "$@"
  ' in_root "$@"
}

# pid SERVER: of the one that runs. A file outlives a reboot, and its pid may be another's by then.
pid() {
  local pid
  pid=$(cat "$RUN/$1.pid" 2>/dev/null) && grep -qs "^${1%ql}" "/proc/$pid/comm" && echo "$pid"
}

end() {
  local pid
  ! pid=$(pid "$2") || { kill "-$1" "$pid" && gone "$pid"; }
  rm -f "$RUN/$2.pid"
}

# Read from the kernel's table: to connect would disturb the server that is there.
taken() {
  grep -qs ":$(printf %04X "$1") 0*:0000 0A" /proc/net/tcp /proc/net/tcp6
}

gone() {
  local tries
  for tries in {1..300}; do
    kill -0 "$@" 2>/dev/null || return 0
    sleep 0.1
  done
  echo "processes $* do not end" >&2
  return 1
}

cannot() {
  echo "$1" >&2
  exit $SKIPPED
}

# --- the command --------------------------------------------------------------------------------

# a root of Debian and a server of another user take root
if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null || cannot "this needs root, or sudo without a password"
  exec sudo -n --preserve-env=PATH,PORT,MONGODB_LANE bash "$PWD/.ci/mongodb/ferretdb.sh" "$@"
fi

case ${1-} in
  setup | start | stop) "$1" ;;
  kill-database) kill_database ;;
  restart-database) restart_database ;;
  *)
    sed -n '2,/^set /{/^#/p}' "$0" >&2
    exit 2
    ;;
esac
