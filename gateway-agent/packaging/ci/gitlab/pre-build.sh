#!/bin/sh
# For `pre_build_script` of a GitLab runner: binds the job to its identity before its first line of script.
# Whatever fails here fails the job.
set -eu

agent=${GATEWAY_AGENT:-/usr/bin/gateway-agent}
: "${GATEWAY_ID_TOKEN:?the job has no \`id_tokens: GATEWAY_ID_TOKEN: { aud: … }\`}"

if [ -n "${CI_DISPOSABLE_ENVIRONMENT:-}" ]; then
    # Docker executor: the container is a cgroup of its own.
    exec "$agent" enroll --token-env GATEWAY_ID_TOKEN
fi

# Shell executor: this shell is the one that goes on to run the script.
shell=$PPID
sudo -n "${GATEWAY_JOB:-/usr/lib/gateway/gateway-job}" enter "gitlab-${CI_JOB_ID:?}" "$shell"
exec "$agent" enroll --token-env GATEWAY_ID_TOKEN
