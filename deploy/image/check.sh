#!/usr/bin/env bash
# Build the image without Docker, run it and check it. Fails when the image is broken, and only
# then: where it cannot be built, or not in time, one sentence says so.
#
#   IMAGE_LIMIT_S   how long the build and the checks may take, 2400
set -euo pipefail
cd "$(dirname "$0")/../.."
limit_s=${IMAGE_LIMIT_S:-2400}
tools=(buildah runc debootstrap)

skip() {
  echo "The image was not checked: $*."
  exit 0
}

[ "$(uname -s)" = Linux ] || skip "it needs Linux"
[ "$(id -u)" = 0 ] || skip "it needs root"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [ "$(command -v "${tools[@]}" | wc -l)" -lt "${#tools[@]}" ]; then
  command -v apt-get >/dev/null || skip "it needs ${tools[*]}"
  { timeout 300 apt-get update -qq &&
    timeout 600 apt-get install -y -qq --no-install-recommends "${tools[@]}"; } >"$log" 2>&1 ||
    skip "${tools[*]} cannot be installed: $(tail -n 1 "$log")"
fi
unshare --fork --mount --pid --net --ipc --uts true 2>"$log" || skip "$(tail -n 1 "$log")"
timeout 900 deploy/image/build.sh --base >"$log" 2>&1 ||
  skip "Debian's packages for it cannot be had: $(tail -n 1 "$log")"

# SIGINT, so that the tests end their containers.
status=0
timeout --signal=INT --kill-after=90 "$limit_s" make image-test || status=$?
case $status in
124 | 137) skip "build and checks were not done after $limit_s s" ;;
*) exit "$status" ;;
esac
