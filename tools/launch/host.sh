#!/usr/bin/env bash
# One host's share of a run on several: start the same line in the checkout of each of them, within ten minutes.
#
#   HEAD=node1 HOSTS=2 tools/launch/host.sh experiment=mlm_ende_1024 data.path=/shared/prepared run=/shared/runs/first
#
# HEAD       the host where the others report: its name or address in the network that they share
# HOSTS      how many there are; with 1:2 one goes on alone when the other is lost, and takes it in again
# PROCESSES  of each host; else one a GPU
# INTERFACE  of that network; else the one by which this host reaches HEAD. The processes talk over no other
# PORT       on HEAD, 29400; RUN_ID tells two runs on one HEAD apart
# RESTARTS   how often a run goes on by itself from its last checkpoint when a process or a host is lost, 3
# GRACE      seconds that processes have for a checkpoint when they are told to stop, 240
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 2
}

# Cut off from HEAD, torchrun waits for its answer without a time limit (torch 2.13), and does not even notice that the
# processes it started have ended: they stay behind as zombies. This watches it, process $1, as long as it lives.
watch_torchrun() {
    local unnoticed=0
    while sleep 2 && grep -qs "^PPid:[[:space:]]*$1\$" "/proc/$BASHPID/status"; do
        grep -qs ") Z $1 " /proc/[0-9]*/stat && unnoticed=$((unnoticed + 2)) || unnoticed=0
        if [ "$unnoticed" -ge 30 ]; then
            echo "error: a process has ended, and torchrun has not noticed for $unnoticed s; is HEAD=$HEAD cut off?" >&2
            kill -KILL "$1"
        fi
    done
}

[ -n "${HEAD:-}" ] || fail "HEAD=... is missing: the name or the address of the first host"
[ -n "${HOSTS:-}" ] || fail "HOSTS=... is missing: the number of hosts"
head=$(getent ahostsv4 "$HEAD" | awk 'NR == 1 {print $1}') || fail "HEAD=$HEAD: no such host is known here"
if [ -n "${INTERFACE:-}" ]; then
    address=$(ip -o -4 addr show dev "$INTERFACE" | awk 'NR == 1 {sub("/.*", "", $4); print $4}') || address=
    [ -n "$address" ] || fail "INTERFACE=$INTERFACE: no interface with an address; see ip -brief address"
    [[ $head != 127.* ]] || head=$address # what Debian calls a host by its own name
else
    [[ $head != 127.* ]] || fail "HEAD=$HEAD is $head here, which other hosts cannot reach; give its address"
    address=$(ip -o -4 route get "$head" | sed -n 's/.* src \([0-9.]*\).*/\1/p') || fail "HEAD=$HEAD: no way to $head"
    INTERFACE=$(ip -o -4 addr show to "$address" | awk 'NR == 1 {print $2}')
fi

PATH=$PATH:$PWD/.venv/bin
export GLOO_SOCKET_IFNAME=$INTERFACE NCCL_SOCKET_IFNAME=$INTERFACE
# Else a host that joins a run under way is not told where rank 0 listens (torch 2.13).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
[ -n "$(ip -o -4 addr show to "$head")" ] && is_host=true || is_host=false
watch_torchrun $$ &
exec torchrun --nnodes="$HOSTS" --nproc-per-node="${PROCESSES:-gpu}" --local-addr="$address" \
    --rdzv-backend=c10d --rdzv-endpoint="$head:${PORT:-29400}" --rdzv-id="${RUN_ID:-xlmtrain}" \
    --rdzv-conf="is_host=$is_host,last_call_timeout=10" --max-restarts="${RESTARTS:-3}" \
    --shutdown-timeout="${GRACE:-240}" --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    train.py "$@"
