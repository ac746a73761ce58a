#!/bin/sh
# Runs one node of a cluster until it ends; systemd or another supervisor starts it again.
#
#   deploy/node.sh head|index|embedder
#   deploy/node.sh deploy     on the head: applies a changed SERVE_CONFIG to the running cluster
#
# HEAD_IP              address of the head, which every node reaches
# NODE_IP              address of this node, which every other node reaches
# RAY_AUTH_TOKEN_PATH  a file with the token of the cluster, the same on every node
# API_KEY, DATA_DIR    and other settings: the same on every node
# SERVE_CONFIG         instead of deploy/serve_cluster.yaml; the head reads it
# DASHBOARD            true: Ray's dashboard on the loopback of the head
# RAY_REDIS_ADDRESS, RAY_REDIS_PASSWORD  where the head keeps its state, if it shall outlive it
set -eu
: "${HEAD_IP:?set it to the address of the head}" "${NODE_IP:?set it to the address of this node}"
: "${RAY_AUTH_TOKEN_PATH:?set it to a file that holds the token of the cluster}"
: "${API_KEY:?set it, since every node listens}"
: "${DATA_DIR:?set it to a directory on the disk of the index node}"
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export PATH PYTHONPATH="$PWD" RAY_AUTH_MODE=token
# `auto` would ask the processor of whichever node builds the application.
export MODEL_PRECISION="${MODEL_PRECISION:-fp32}"
# A head that comes back under another address, see rayservice.yaml.
export RAY_max_direct_call_object_size=262144 RAY_grpc_client_keepalive_timeout_ms=20000
# As on one machine.
set -a
. scripts/launcher/variables/ray.env
. scripts/launcher/variables/haproxy.env
set +a
export RAY_SERVE_HAPROXY_BINARY_PATH="$PWD/deploy/haproxy.sh"
# Its configuration and admin socket where no other user of the machine may put theirs first; the
# path of a Unix socket ends at 107 bytes.
haproxy="${RAY_SERVE_HAPROXY_SERVER_STATE_BASE:-$(mktemp -d /tmp/fm-haproxy-XXXXXX)}"
export RAY_SERVE_HAPROXY_SERVER_STATE_BASE="$haproxy"
export RAY_SERVE_HAPROXY_CONFIG_FILE_LOC="$haproxy/haproxy.cfg"
export RAY_SERVE_HAPROXY_SOCKET_PATH="$haproxy/admin.sock"
export RAY_SERVE_HAPROXY_SERVER_STATE_FILE="$haproxy/state"
export RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH="$haproxy/metrics.sock"

role="${1:-}"
set -- --block --include-log-monitor=false --node-ip-address="$NODE_IP" \
  --object-store-memory=83886080

case "$role" in
head)
  # Nothing but the controller of Serve and HAProxy runs here.
  ray start --head --port=6379 --num-cpus=0 --no-monitor \
    --include-dashboard="${DASHBOARD:-false}" --redis-password="${RAY_REDIS_PASSWORD:-}" "$@" &
  # Starting takes a while, and each attempt costs a second of processor time.
  until sleep 5 && serve run --non-blocking --address="$NODE_IP:6379" \
    "${SERVE_CONFIG:-deploy/serve_cluster.yaml}"; do
    kill -0 $! 2>/dev/null || exit 1
  done
  wait $!
  ;;
index)
  exec ray start --address="$HEAD_IP:6379" --resources='{"faiss_memory_volume": 1}' "$@"
  ;;
embedder)
  exec ray start --address="$HEAD_IP:6379" --resources='{"faiss_memory_embedder": 1}' "$@"
  ;;
deploy)
  exec python -m scripts.deploy --address="$HEAD_IP:6379" \
    --config="${SERVE_CONFIG:-deploy/serve_cluster.yaml}"
  ;;
*)
  echo "usage: $0 head|index|embedder|deploy" >&2
  exit 2
  ;;
esac
