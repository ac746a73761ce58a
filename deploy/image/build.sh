#!/usr/bin/env bash
# Build the image without Docker: base from Debian's packages, image with buildah. Needs root.
#
#   deploy/image/build.sh [name[:tag] [options of buildah build ...]]     default faiss-memory
#   deploy/image/build.sh --base     only the base; fails too when it finds no packages to install
#
# The base is Debian bookworm with its Python 3.11, tagged with the name in the Dockerfile's FROM
# line; it is made once. With Docker you need none of this: `docker build .` does it.
set -euo pipefail
cd "$(dirname "$0")/../.."

image=${1:-faiss-memory}
options=("${@:2}")
base=$(sed -n 's/^FROM \(.*python:[^ ]*\) AS .*/\1/p' Dockerfile | head -n 1)

for program in buildah debootstrap; do
  command -v "$program" >/dev/null || {
    echo "no $program here: apt-get install --no-install-recommends buildah runc debootstrap" >&2
    exit 1
  }
done

make_base() (
  rootfs=$(mktemp -d)
  trap 'rm -rf --one-file-system "$rootfs"' EXIT
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
    bookworm "$rootfs" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >&2
  # What Debian's slim images leave out.
  rm -rf "$rootfs"/var/cache/apt/* "$rootfs"/var/lib/apt/lists/* "$rootfs"/var/log/* \
    "$rootfs"/usr/share/{doc,man,info,locale,lintian}/*
  # Where python:3.11-slim has it.
  ln -s /usr/bin/python3.11 "$rootfs/usr/local/bin/python3"
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$rootfs" / >/dev/null
  buildah commit --quiet --rm "$container" "$base" >/dev/null
)

buildah inspect --type image "$base" >/dev/null 2>&1 || make_base
if [ "$image" = --base ]; then
  container=$(buildah from --pull-never "$base")
  trap 'buildah rm "$container" >/dev/null' EXIT
  buildah run --isolation chroot --network host "$container" -- apt-get update -qq --error-on=any
  exit
fi

# The host's certificates, for networks that have their own; the image does not keep them.
# HEALTHCHECK exists in Docker's image format only.
buildah build --isolation chroot --network host --pull-never --format docker --layers \
  --volume /etc/ssl/certs:/etc/ssl/certs:ro "${options[@]}" --tag "$image" .
