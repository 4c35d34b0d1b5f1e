#!/usr/bin/env bash
# Runs a command in a network namespace of its own, with loopback up and every address of 10.244.0.0/16 (the pods of the
# test stack) on it, and in a process namespace of its own: whatever the command leaves running dies with it.
#
#   tests/stack/in-netns.sh CMD [ARG...]
#
# There is no way out of the namespace: fetch and build before. The command finds in VOICEROLLOUT_ENTER how another
# program of the same user gets in while it runs: `$VOICEROLLOUT_ENTER kubectl get pods`.
set -euo pipefail

PODS=10.244.0.0/16
export PATH=$PATH:/usr/sbin:/sbin

if (($# == 0)); then
  sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
for tool in ip unshare; do
  if ! command -v "$tool" >/dev/null; then
    echo "in-netns: '$tool' is missing; install the package iproute2 (ip) or util-linux (unshare)" >&2
    exit 1
  fi
done

# What the new namespace runs first. The shell stays as the parent of the command, so that orphans are reaped.
# shellcheck disable=SC2016
inside='ip link set lo up && ip route add local "$0" dev lo && { "$@"; exit $?; }'

# Root needs no user namespace and keeps its file rights; others map themselves to root inside.
ways=("--user --map-root-user")
((EUID == 0)) && ways=("" "${ways[@]}")
for way in "${ways[@]}"; do
  # shellcheck disable=SC2206
  flags=($way --net --pid --fork --kill-child --mount-proc)
  if unshare "${flags[@]}" bash -c "$inside" "$PODS" true 2>/dev/null; then
    # unshare itself ignores SIGTERM, so this shell stays to pass the end on: with unshare goes all that is inside.
    (
      enter="nsenter --target $BASHPID --net"
      [[ -z $way ]] || enter+=" --user --preserve-credentials"
      export VOICEROLLOUT_ENTER=$enter
      exec unshare "${flags[@]}" bash -c "$inside" "$PODS" "$@"
    ) <&0 &
    trap 'kill -KILL "$!" 2>/dev/null || true' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    code=0
    wait "$!" || code=$?
    exit "$code"
  fi
done

# Where process namespaces or user namespaces are forbidden: a named network namespace, as root.
name=voicerollout-$$
if ((EUID == 0)) && ip netns add "$name" 2>/dev/null; then
  # shellcheck disable=SC2329,SC2317
  finish() {
    local pids
    pids=$(ip netns pids "$name" || true)
    # shellcheck disable=SC2086
    [[ -z $pids ]] || kill -KILL $pids 2>/dev/null || true
    ip netns delete "$name"
  }
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  VOICEROLLOUT_ENTER="ip netns exec $name" ip netns exec "$name" bash -c "$inside" "$PODS" "$@"
  exit
fi

echo "in-netns: no network namespace can be made here: it takes root, or a kernel that lets users make namespaces
  (sysctl kernel.unprivileged_userns_clone=1, or user.max_user_namespaces above 0)" >&2
exit 1
