#!/usr/bin/env bash
# Snapshots on this machine: their names, hashes and ages, and the log and lock around them.
# Sourced by backup.sh, backup-gdrive.sh and install-cron.sh; needs bash 3.2.
set -Eeuo pipefail
umask 077
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
program=${0##*/}
log_file=
scratch=
# A snapshot's name is the UTC time of its backup; _2 is the second one of that second.
snapshot_name='^[0-9]{8}_[0-9]{6}(_[0-9]+)?$'

say() {
  local line
  line="$(date -u +%Y-%m-%dT%H:%M:%SZ) $program: $*"
  printf '%s\n' "$line"
  [ -z "$log_file" ] || printf '%s\n' "$line" >>"$log_file" || true
}
complain() { say "FAILED: $*" >&2; }
fail() {
  complain "$@"
  exit 1
}

# Whatever ends a script, it leaves no scratch directory, says why, and exits with 0, 1 or 75.
trap 'complain "line $LINENO: $BASH_COMMAND"' ERR
trap 'end $?' EXIT
trap 'exit 1' HUP INT TERM
end() {
  trap - ERR EXIT
  [ -z "$scratch" ] || rm -rf -- "$scratch"
  case $1 in 0 | 75) exit "$1" ;; *) exit 1 ;; esac
}

# read_settings FILE: the environment, or what the file says; then the defaults.
read_settings() {
  if [ -n "$1" ]; then
    [ -r "$1" ] || fail "cannot read the settings in $1"
    set -a
    # shellcheck source=/dev/null
    . "$1"
    set +a
  fi
  : "${FAISS_URL:=http://localhost:8900}" "${FAISS_API_KEY:=}" "${FAISS_DATA_DIR:=$root/data}"
  : "${BACKUP_DIR:=${HOME:-}/backups/faiss-memory}" "${RETENTION_DAYS:=30}"
  : "${GDRIVE_ACCOUNT:=}" "${GDRIVE_FOLDER_NAME:=faiss-memory-backups}" "${BACKUP_REMOTE:=}"
  : "${UPLOAD_INTERVAL_MIN:=55}" "${GDRIVE_RETENTION_DAYS:=7}"
  local name
  for name in RETENTION_DAYS UPLOAD_INTERVAL_MIN GDRIVE_RETENTION_DAYS; do
    [[ ${!name} =~ ^[0-9]{1,6}$ ]] || fail "$name=${!name}: expected a whole number"
  done
  case $BACKUP_DIR in /*) ;; *) BACKUP_DIR=$PWD/$BACKUP_DIR ;; esac
  python=$root/.venv/bin/python
  [ -x "$python" ] || python=$(command -v python3) || fail "needs python3 to read JSON"
}

open_log() {
  mkdir -p -- "$BACKUP_DIR" || fail "cannot make $BACKUP_DIR; set BACKUP_DIR"
  log_file=$BACKUP_DIR/backup.log
  [ -z "$(find "$log_file" -size +2048 2>/dev/null)" ] || mv -- "$log_file" "$log_file.1"
}

# take_lock NAME: held through file descriptor 9 until that is closed. macOS has no flock command.
take_lock() {
  local status=0
  exec 9>>"$BACKUP_DIR/.$1.lock"
  "$python" -IS -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(75)' || status=$?
  case $status in
    0) ;;
    75)
      say "another run is under way in $BACKUP_DIR; nothing was done"
      exit 75
      ;;
    *) fail "cannot lock $BACKUP_DIR/.$1.lock" ;;
  esac
}

# days_ago N: the snapshot name of a time; names sort by time.
days_ago() {
  date -u -d "$((10#$1)) days ago" +%Y%m%d_%H%M%S 2>/dev/null || # GNU
    date -u -v "-$((10#$1))d" +%Y%m%d_%H%M%S # BSD
}

sha256_of() {
  if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi <"$1" | cut -c 1-64
}

# manifest_files DIRECTORY: "sha256 name" for each file of the backup in it.
manifest_files() {
  "$python" -IS -c '
import json, re, sys
try:
    with open(sys.argv[1], encoding="utf-8") as manifest:
        files = [(file["sha256"], file["name"]) for file in json.load(manifest)["files"]]
    if not files or not all(re.fullmatch(r"[0-9a-f]{64} \w[\w.-]*", " ".join(f)) for f in files):
        raise ValueError("it names no files")
except (OSError, ValueError, KeyError, TypeError) as exc:
    sys.exit("manifest.json: %s" % exc)
for file in files:
    print(*file)' "$1/manifest.json"
}

# damage_in DIRECTORY: what is not as its manifest says; nothing when it is whole.
damage_in() {
  local files sha name
  files=$(manifest_files "$1" 2>&1) || {
    printf '%s\n' "${files##*$'\n'}"
    return
  }
  while read -r sha name; do
    if [ ! -f "$1/$name" ]; then
      printf '%s is missing\n' "$name"
    elif [ "$(sha256_of "$1/$name")" != "$sha" ]; then
      printf '%s is not the file that was written\n' "$name"
    fi
  done <<<"$files"
}

# snapshots: the names of ours in BACKUP_DIR, oldest first: named after a time, with a manifest.
snapshots() {
  local path
  for path in "$BACKUP_DIR"/[0-9]*; do
    if [[ ${path##*/} =~ $snapshot_name ]] && [ ! -L "$path" ] && [ -f "$path/manifest.json" ]; then
      printf '%s\n' "${path##*/}"
    fi
  done
}
newest_snapshot() { snapshots | tail -n 1; }
