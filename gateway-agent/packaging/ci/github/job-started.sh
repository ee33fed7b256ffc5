#!/bin/sh
# ACTIONS_RUNNER_HOOK_JOB_STARTED of a self-hosted runner: binds the job to its identity before its first step.
# Whatever fails here fails the job.
set -eu

helper=${GATEWAY_JOB:-/usr/lib/gateway/gateway-job}
agent=${GATEWAY_AGENT:-/usr/bin/gateway-agent}

# Runner.Worker starts this script by a shell of its own, and later every step: it has to be in the job's cgroup.
worker=$PPID
while [ "$(cat "/proc/$worker/comm")" != "${GATEWAY_WORKER:-Runner.Worker}" ]; do
    worker=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$worker/status")
    if [ "$worker" -le 1 ]; then
        echo "gateway: no Runner.Worker above this hook; is it the runner that calls it?" >&2
        exit 1
    fi
done

sudo -n "$helper" enter "github-${GITHUB_RUN_ID:?}-${GITHUB_RUN_ATTEMPT:?}-$(echo "${GITHUB_JOB:?}" | tr -c 'A-Za-z0-9\n' _)-$worker" "$worker"

# From inside the job's cgroup. The job needs `permissions: id-token: write`.
: "${ACTIONS_ID_TOKEN_REQUEST_URL:?the job has no \`permissions: id-token: write\`}"
: "${ACTIONS_ID_TOKEN_REQUEST_TOKEN:?}"
# shellcheck disable=SC2016 # expanded by the shell that runs it
exec "$agent" enroll --token-command '
    curl --fail --silent --show-error --max-time 30 --retry 3 \
        --header "Authorization: Bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" \
        "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=$GATEWAY_AUDIENCE" |
        sed -n '"'"'s/.*"value" *: *"\([^"]*\)".*/\1/p'"'"
