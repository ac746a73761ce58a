#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/snapshots.sh"

usage() {
  cat <<END
usage: install-cron.sh install [--systemd] | uninstall | status

  install    run backup.sh every 30 minutes: by one line in your crontab, or by a systemd user timer
  uninstall  take line, timer and settings file away again; nothing else is touched
  status     say what is installed, and when the last snapshot was made; 1 if nothing is installed

install and status also name lines of the crontab that run backup.sh of the original service.

The settings that backup.sh --help names are taken from the environment and kept, key included, in
$settings_file, readable by you only.
Install again to change some; the others stay as they are. A failed run is mailed by cron, or is in
the journal, and is always in BACKUP_DIR/backup.log.
END
}

config_dir=${XDG_CONFIG_HOME:-${HOME:?}/.config}
settings_file=$config_dir/faiss-memory/backup.env
unit_dir=$config_dir/systemd/user
unit=faiss-memory-backup
mark='# faiss-memory backup'
names="FAISS_URL FAISS_API_KEY FAISS_DATA_DIR BACKUP_DIR RETENTION_DAYS GDRIVE_ACCOUNT
GDRIVE_FOLDER_NAME BACKUP_REMOTE UPLOAD_INTERVAL_MIN GDRIVE_RETENTION_DAYS RCLONE_CONFIG PATH"

# write_settings: those of the environment, then those kept before. cron and systemd have neither.
write_settings() {
  local name value
  mkdir -p -- "${settings_file%/*}"
  for name in $names; do
    value=${!name-}
    # shellcheck source=/dev/null
    [ -n "$value" ] || [ ! -f "$settings_file" ] || value=$(. "$settings_file" && printf '%s' "${!name-}")
    [ -n "$value" ] || continue
    case $name:$value in
      FAISS_DATA_DIR:/* | BACKUP_DIR:/* | RCLONE_CONFIG:/*) ;;
      FAISS_DATA_DIR:* | BACKUP_DIR:* | RCLONE_CONFIG:*) value=$PWD/$value ;;
    esac
    printf '%s=%q\n' "$name" "$value"
  done >"$settings_file.partial"
  mv -- "$settings_file.partial" "$settings_file"
}

# table: the crontab as it is. An unreadable one is an error, not an empty one.
table() {
  local status=0
  crontab -l >"$scratch/table" 2>"$scratch/error" || status=$?
  if [ "$status" != 0 ]; then
    grep -qiE 'no crontab|no such file' "$scratch/error" ||
      fail "cannot read the crontab: $(tail -n 1 "$scratch/error")"
    : >"$scratch/table"
  fi
}

has_crontab() { command -v crontab >/dev/null; }
in_crontab() { table && grep -q -- "$mark\$" "$scratch/table"; }

# others: every line of the crontab but ours.
others() { awk -v mark="$mark" 'substr($0, length($0) - length(mark) + 1) != mark' "$scratch/table"; }

# script_in LINE: the backup.sh that a line of the crontab runs, as far as it can be told.
script_in() {
  local script directory
  script=$(grep -oE "[^[:space:]\"'=;|&(]*backup(-gdrive)?\.sh" <<<"$1" | head -n 1)
  directory=$(sed -n "s/.*cd  *[\"']*\([^\"' ;&]*\).*/\1/p" <<<"$1")
  case $script in
    /*) ;;
    \~/* | \$HOME/*) script=$HOME/${script#*/} ;;
    *) script=${directory:-$HOME}/$script ;;
  esac
  printf '%s\n' "$script"
}

# name_old_lines: lines that run backup.sh of the original service, which finds nothing in our data
# and reports success. Not the line itself: it may hold a key.
name_old_lines() {
  local line script number=0
  has_crontab || return 0
  table
  while IFS= read -r line; do
    number=$((number + 1))
    if [[ $line =~ ^[[:space:]]*# || $line == *"$mark" || $line != *backup*.sh* ]]; then continue; fi
    script=$(script_in "$line") || continue
    if [ -f "$script" ]; then
      if grep -q 'snapshots\.sh' "$script" || ! grep -qi faiss "$script"; then continue; fi
    elif ! grep -qi faiss <<<"$line"; then
      continue
    fi
    say "line $number of the crontab runs $script of the original service: of this service's data it" \
      "makes empty snapshots and reports success; take the line out with: crontab -e"
  done <"$scratch/table"
}

put_crontab() {
  crontab - <"$1" || fail "crontab did not accept the table; it is as it was"
  table
  # Not byte by byte: some programs put a heading above what they list.
  if grep -vxFf "$scratch/table" "$1" >/dev/null; then
    fail "the crontab lacks lines that were given to it; see crontab -l"
  fi
}

# in_single_quotes TEXT: one word for sh; % is a line break to cron unless escaped.
in_single_quotes() {
  printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g; s/%/\\\\%/g")"
}

install_cron() {
  has_crontab || fail "there is no crontab program: sudo apt-get install cron, or install-cron.sh install --systemd"
  [ ! -e "$unit_dir/$unit.timer" ] || fail "the systemd timer is installed; uninstall it first"
  case $root$settings_file in *$'\n'*) fail "cron cannot run a path with a line break in it" ;; esac
  table
  write_settings
  {
    others
    printf '*/30 * * * * %s --env %s >/dev/null %s\n' "$(in_single_quotes "$root/scripts/backup.sh")" \
      "$(in_single_quotes "$settings_file")" "$mark"
  } >"$scratch/new"
  put_crontab "$scratch/new"
  say "installed in the crontab, every 30 minutes, with the settings in $settings_file"
  name_old_lines
}

# in_unit_quotes TEXT: one word of a unit file's command line.
in_unit_quotes() {
  printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/%/%%/g; s/\$/$$/g')"
}

install_systemd() {
  command -v systemctl >/dev/null || fail "there is no systemctl; use install-cron.sh install"
  if has_crontab && in_crontab; then fail "the crontab line is installed; uninstall it first"; fi
  write_settings
  mkdir -p -- "$unit_dir"
  cat >"$unit_dir/$unit.service" <<END
[Unit]
Description=Snapshot of FAISS Memory

[Service]
Type=oneshot
ExecStart=/usr/bin/env bash $(in_unit_quotes "$root/scripts/backup.sh") --env $(in_unit_quotes "$settings_file")
SuccessExitStatus=75
Nice=10
END
  cat >"$unit_dir/$unit.timer" <<END
[Unit]
Description=Snapshot of FAISS Memory every 30 minutes

[Timer]
OnCalendar=*:0/30
Persistent=true

[Install]
WantedBy=timers.target
END
  if ! { systemctl --user daemon-reload && systemctl --user enable --now "$unit.timer"; }; then
    rm -f -- "$unit_dir/$unit.timer" "$unit_dir/$unit.service"
    fail "systemd did not take the timer; nothing is installed"
  fi
  say "installed as a systemd user timer, every 30 minutes, with the settings in $settings_file"
  say "it runs while you are logged in; with 'loginctl enable-linger' always"
  name_old_lines
}

uninstall() {
  if has_crontab && in_crontab; then
    others >"$scratch/new"
    put_crontab "$scratch/new"
    say "taken out of the crontab"
  fi
  if [ -e "$unit_dir/$unit.timer" ]; then
    systemctl --user disable --now "$unit.timer" || fail "systemd did not stop the timer"
    rm -f -- "$unit_dir/$unit.timer" "$unit_dir/$unit.service"
    systemctl --user daemon-reload
    say "systemd timer taken away"
  fi
  if [ -e "$settings_file" ]; then
    rm -f -- "$settings_file"
    say "removed $settings_file"
  fi
  say "nothing is installed any more; snapshots stay"
}

status() {
  local installed=false newest
  name_old_lines
  if has_crontab && in_crontab; then
    installed=true
    say "in the crontab: $(grep -- "$mark\$" "$scratch/table")"
  fi
  if [ -e "$unit_dir/$unit.timer" ]; then
    installed=true
    say "systemd timer: $(systemctl --user is-active "$unit.timer" 2>/dev/null || true)"
  fi
  if ! $installed; then
    say "not installed"
    exit 1
  fi
  [ -f "$settings_file" ] || fail "$settings_file is missing; install again"
  read_settings "$settings_file"
  newest=$(newest_snapshot)
  say "newest snapshot in $BACKUP_DIR: ${newest:-none yet}"
  if [ -f "$BACKUP_DIR/backup.log" ]; then say "last line of its log: $(tail -n 1 "$BACKUP_DIR/backup.log")"; fi
}

scratch=$(mktemp -d "${TMPDIR:-/tmp}/faiss-memory.XXXXXX")
case ${1-}:${2-} in
  install:) install_cron ;;
  install:--systemd) install_systemd ;;
  uninstall:) uninstall ;;
  status:) status ;;
  -h: | --help:) usage ;;
  *)
    usage >&2
    exit 1
    ;;
esac
