#!/bin/sh
# ACTIONS_RUNNER_HOOK_JOB_COMPLETED of a self-hosted runner: ends the identity, its sessions and what the job left
# running. The cgroup goes with Runner.Worker.
set -eu
exec sudo -n "${GATEWAY_JOB:-/usr/lib/gateway/gateway-job}" end
