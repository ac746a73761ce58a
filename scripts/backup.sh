#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/snapshots.sh"

usage() {
  cat <<END
usage: backup.sh [--test] [--cleanup] [--env FILE]

Has the service make a backup, copies it to BACKUP_DIR/<UTC time>/, checks the copy, drops its own
snapshots older than RETENTION_DAYS, then uploads if GDRIVE_ACCOUNT or BACKUP_REMOTE is set.

  --test      check what can be checked and say what would happen; changes nothing
  --cleanup   only drop old snapshots, here and at the remote
  --env FILE  take the settings from a file of NAME=value lines, as bash reads them

  FAISS_URL       the service (http://localhost:8900)
  FAISS_API_KEY   its key, if it has one
  FAISS_DATA_DIR  its data directory on this machine (the checkout's ./data)
  BACKUP_DIR      where snapshots go (~/backups/faiss-memory)
  RETENTION_DAYS  days that a snapshot stays; the newest always stays (30)

backup-gdrive.sh --help tells about the remote.
Exit status: 0 all done; 1 something failed, and a line says what; 75 another run is under way.
END
}

test_only=false cleanup_only=false env_file='' failed=false newest='' newest_files=''
while [ $# -gt 0 ]; do
  case $1 in
    --test) test_only=true ;;
    --cleanup) cleanup_only=true ;;
    --env) env_file=${2:?--env needs a file} && shift ;;
    -h | --help) usage && exit ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  shift
done

# ask METHOD PATH: prints the service's answer. The key goes through stdin, where ps does not see it.
ask() {
  local answer code
  answer=$(printf 'X-API-Key: %s\n' "$FAISS_API_KEY" |
    curl -sS -X "$1" -H @- -w '\n%{http_code}' --noproxy localhost,127.0.0.1,::1 \
      --connect-timeout 10 --max-time 3600 "${FAISS_URL%/}$2" 2>&1) ||
    fail "could not reach $FAISS_URL: ${answer%%$'\n'*}"
  code=${answer##*$'\n'}
  answer=${answer%$'\n'*}
  answer=${answer%$'\n'}
  [ "$code" = 200 ] || fail "$1 $2 of $FAISS_URL: FAISS API error $code: ${answer:0:300}"
  printf '%s\n' "$answer"
}

# field EXPRESSION JSON: what a Python expression makes of a document.
field() {
  printf '%s' "$2" | "$python" -IS -c "import json, sys; answer = json.load(sys.stdin); print($1)" \
    2>/dev/null || fail "the answer of $FAISS_URL is not one of FAISS Memory: ${2:0:300}"
}

backup_named() {
  local source=$FAISS_DATA_DIR/backups/$1
  [ -f "$source/manifest.json" ] ||
    fail "the service has the backup $1, but it is not in $FAISS_DATA_DIR/backups; set FAISS_DATA_DIR"
  printf '%s\n' "$source"
}

# copy_files SOURCE TARGET: the backup's files. Those the newest snapshot has already are hard links
# to it, so that a snapshot costs what changed; prints how many are not.
copy_files() {
  local files line name n_copied=0
  files=$(manifest_files "$1") || return
  while read -r line; do
    name=${line#* }
    case $'\n'$newest_files$'\n' in
      *$'\n'"$line"$'\n'*) ln -- "$BACKUP_DIR/$newest/$name" "$2/$name" 2>/dev/null && continue ;;
    esac
    cp -- "$1/$name" "$2/$name" || return
    n_copied=$((n_copied + 1))
  done <<<"$files"
  cp -- "$1/manifest.json" "$2/manifest.json" || return
  printf '%s\n' "$n_copied"
}

# try_restore SNAPSHOT: puts it together beside, as a restore does, if this checkout has its Python.
try_restore() {
  local answer beside=$1/.verify
  [ -x "$root/.venv/bin/python" ] || return 0
  mkdir -p -- "$beside/backups"
  ln -s -- ../.. "$beside/backups/snapshot_20000101_000000"
  answer=$(cd "$root" && nice -n 10 .venv/bin/python -m scripts.store verify --data-dir "$beside" 2>&1) || {
    if (cd "$root" && .venv/bin/python -c 'import scripts.store') 2>/dev/null; then
      fail "the copy cannot be restored: ${answer##*$'\n'}"
    fi
    say "warning: $root/.venv is broken; the copy's hashes were checked, but no restore was tried"
  }
  rm -rf -- "$beside"
}

take_snapshot() {
  local answer name source stamp n_copied damage
  answer=$(ask POST '/backup?prefix=scheduled') || exit
  name=$(field 'answer["backup_path"].rsplit("/", 1)[-1]' "$answer") || exit
  stamp=${name#scheduled_}
  [[ $stamp =~ $snapshot_name ]] || fail "the service made a backup of an unknown name: $name"
  source=$(backup_named "$name") || exit
  [ ! -e "$BACKUP_DIR/$stamp" ] || fail "$BACKUP_DIR/$stamp exists already"
  scratch=$BACKUP_DIR/.$stamp.partial
  mkdir -- "$scratch"
  n_copied=$(copy_files "$source" "$scratch") || fail "could not copy $source to $scratch"
  damage=$(damage_in "$scratch")
  if [ -n "$damage" ]; then
    fail "the copy of $source is damaged: ${damage//$'\n'/; }. Ask the service: POST /backup/verify"
  fi
  # With nothing new in it, it is what was checked before.
  [ "$n_copied" = 0 ] || try_restore "$scratch"
  sync_files "$scratch"/* "$scratch"
  mv -- "$scratch" "$BACKUP_DIR/$stamp"
  scratch=
  sync_files "$BACKUP_DIR"
  say "snapshot $stamp: $n_copied files copied, all checked"
}

sync_files() { sync -- "$@" 2>/dev/null || sync; }

# look_at_newest: notices what has rotted since it was written, and knows what can be shared.
look_at_newest() {
  local damage
  newest=$(newest_snapshot)
  [ -n "$newest" ] || return 0
  damage=$(damage_in "$BACKUP_DIR/$newest")
  if [ -z "$damage" ]; then
    newest_files=$(manifest_files "$BACKUP_DIR/$newest")
  else
    complain "the newest snapshot, $newest, is damaged: ${damage//$'\n'/; }"
    failed=true
  fi
}

# old_snapshots: ours older than RETENTION_DAYS, never the newest.
old_snapshots() {
  local name newest oldest_kept
  newest=$(newest_snapshot)
  oldest_kept=$(days_ago "$RETENTION_DAYS")
  for name in $(snapshots); do
    if [[ $name < $oldest_kept ]] && [ "$name" != "$newest" ]; then printf '%s\n' "$name"; fi
  done
}

# foreign_in SNAPSHOT: what is in it that no snapshot holds.
foreign_in() {
  local path
  for path in "$1"/* "$1"/.[!.]*; do
    if [ ! -e "$path" ] && [ ! -L "$path" ]; then continue; fi
    case ${path##*/} in manifest.json | verified | base_*.db | delta_*.db) ;; *) printf '%s\n' "${path##*/}" ;; esac
  done
}

drop_old_snapshots() {
  local name foreign
  for name in $(old_snapshots); do
    foreign=$(foreign_in "$BACKUP_DIR/$name")
    if [ -n "$foreign" ]; then
      say "snapshot $name is old, but left alone: it holds ${foreign//$'\n'/, }"
      continue
    fi
    # The rename comes first: half removed, it is no snapshot.
    if mv -- "$BACKUP_DIR/$name" "$BACKUP_DIR/.$name.partial" &&
      rm -rf -- "$BACKUP_DIR/.$name.partial"; then
      say "dropped snapshot $name, older than $RETENTION_DAYS days"
    else
      complain "could not drop snapshot $name"
      failed=true
    fi
  done
}

# sweep: what a killed run left.
sweep() {
  local path name
  for path in "$BACKUP_DIR"/.[0-9]*.partial; do
    name=${path##*/.}
    if [[ ${name%.partial} =~ $snapshot_name ]] && [ -d "$path" ]; then rm -rf -- "$path"; fi
  done
}

upload() {
  local status=0
  [ -n "$GDRIVE_ACCOUNT$BACKUP_REMOTE" ] || return 0
  "$root/scripts/backup-gdrive.sh" "$@" || status=$?
  # An upload of an earlier run may still be under way; the next one takes this snapshot along.
  [ "$status" = 0 ] || [ "$status" = 75 ] || failed=true
}

rehearse() {
  local answer name source needed_kb free_kb existing
  answer=$(ask GET /backups) || exit
  name=$(field 'answer["backups"][0]["name"] if answer["backups"] else ""' "$answer") || exit
  say "test: the service answers at $FAISS_URL"
  if [ -n "$name" ]; then
    source=$(backup_named "$name") || exit
    say "test: its newest backup is $source; a new one would be made and copied to $BACKUP_DIR/<UTC time>"
    needed_kb=$((2 * $(du -sk -- "$source" | cut -f 1)))
  else
    [ -d "$FAISS_DATA_DIR" ] || fail "there is no $FAISS_DATA_DIR; set FAISS_DATA_DIR"
    say "test: it has no backup yet; one would be made in $FAISS_DATA_DIR/backups"
    needed_kb=0
  fi
  existing=$BACKUP_DIR
  while [ ! -e "$existing" ]; do existing=$(dirname -- "$existing"); done
  { [ -d "$existing" ] && [ -w "$existing" ]; } || fail "cannot write to $existing; set BACKUP_DIR"
  # The column before the percentage: names of devices and mount points may have spaces.
  free_kb=$(df -Pk -- "$existing" | awk 'NR == 2 { for (n = 2; n <= NF; n++) if ($n ~ /^[0-9]+%$/) { print $(n - 1); exit } }')
  [ "$free_kb" -gt "$needed_kb" ] ||
    fail "$existing has $free_kb KB free; a snapshot and the trial of it take up to $needed_kb KB"
}

read_settings "$env_file"
if $test_only; then
  if ! $cleanup_only; then rehearse; fi
  look_at_newest
  say "test: the newest snapshot is ${newest:-none yet}"
  for name in $(old_snapshots); do say "test: would drop snapshot $name"; done
  if $cleanup_only; then upload --test --cleanup; else upload --test; fi
else
  open_log
  take_lock snapshots
  sweep
  look_at_newest
  if ! $cleanup_only; then take_snapshot; fi
  drop_old_snapshots
  exec 9>&- # a slow upload does not keep the next snapshot waiting
  if $cleanup_only; then upload --cleanup; else upload; fi
fi
if $failed; then exit 1; fi
