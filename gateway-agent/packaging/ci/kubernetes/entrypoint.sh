#!/bin/sh
# entrypoint.sh CMD ARGS…: entry point of a runner's container on Kubernetes. Binds the container's cgroup to the pod's
# service-account token before anything else runs in it, then becomes the command. Whatever fails here fails the pod.
set -eu
[ $# -gt 0 ] || { echo "usage: entrypoint.sh CMD ARGS…" >&2; exit 2; }
token=${GATEWAY_TOKEN_FILE:-/var/run/secrets/gateway/token}
"${GATEWAY_AGENT:-/usr/bin/gateway-agent}" enroll --token-file "$token"
exec "$@"
