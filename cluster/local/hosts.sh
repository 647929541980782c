#!/usr/bin/env bash
# Several hosts on one Linux machine, each with a node of one Ray cluster; host 0 is the head. For tests and demos.
#
#   sudo cluster/local/hosts.sh up 4             # start host 0 to host 3
#   sudo cluster/local/hosts.sh exec 0 python examples/digits.py
#   sudo cluster/local/hosts.sh kill 2           # all its processes at once, as a machine that is taken away
#   sudo cluster/local/hosts.sh start 2          # and back
#   sudo cluster/local/hosts.sh cut 2            # its link goes down: nothing answers, and nothing says so
#   sudo cluster/local/hosts.sh mend 2
#   sudo cluster/local/hosts.sh shape 1gbit      # every link, in both directions
#   sudo cluster/local/hosts.sh unshape
#   sudo cluster/local/hosts.sh delay 2          # milliseconds that every link takes, in each direction; 0 for none
#   sudo cluster/local/hosts.sh address          # of the head, as RAY_ADDRESS wants it
#   sudo cluster/local/hosts.sh down             # end all, and remove all that was made
#
# A host is a set of namespaces: network, processes, mounts, host name. It has its own address, /tmp and /dev/shm, and so its
# own object store; of the rest it sees the machine's files. The bridge between them lies in a namespace as well, so that the
# machine's own network is never touched. Wants root, iproute2 and util-linux. The token is one of this cluster's own.
set -euo pipefail

readonly FOLDER=${RAYFEED_HOSTS_FOLDER:-/var/tmp/rayfeed-hosts} # not in /tmp, of which each host has one
readonly NAME=${RAYFEED_HOSTS_NAME:-rayfeed}
readonly NETWORK=${RAYFEED_HOSTS_NETWORK:-10.77.0}
readonly CPUS=${RAYFEED_HOSTS_CPUS:-2}
readonly STORE_MB=${RAYFEED_HOSTS_STORE_MB:-160}
readonly DASHBOARD=${RAYFEED_HOSTS_DASHBOARD:-false} # true: jobs can be submitted from host 0, at http://127.0.0.1:8265
readonly PORT=6379
readonly READY_S=120
readonly BRIDGE="${NAME}-bridge"
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly ROOT
export RAY_AUTH_MODE=token RAY_free_objects_period_milliseconds=50 RAY_USAGE_STATS_ENABLED=0

fail() {
    echo "hosts.sh: $*" >&2
    exit 1
}

hosts() { # the numbers of the hosts that there are
    find "$FOLDER" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' 2> /dev/null | sort -n
}

address_of() { echo "$NETWORK.$(($1 + 1))"; }

first_process() { # of a host, as the machine counts it; fails where the host does not run
    local outer
    outer=$(cat "$FOLDER/$1/pid" 2> /dev/null) || return 1
    [[ $(cat "/proc/$outer/comm" 2> /dev/null) == unshare ]] || return 1
    pgrep --parent "$outer" | head -n 1 | grep .
}

make_bridge() {
    mkdir -p "$FOLDER"
    chmod 700 "$FOLDER"
    (umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32))' > "$FOLDER/token")
    ip netns add "$BRIDGE"
    ip -n "$BRIDGE" link add br0 type bridge
    ip -n "$BRIDGE" link set br0 up
    ip -n "$BRIDGE" addr add "$NETWORK.254/24" dev br0
}

plug() { # a new host into the bridge
    local namespace="$NAME-$1"
    mkdir -p "$FOLDER/$1"
    ip netns add "$namespace"
    ip -n "$namespace" link set lo up
    ip link add eth0 netns "$namespace" type veth peer name "port$1" netns "$BRIDGE"
    ip -n "$namespace" addr add "$(address_of "$1")/24" dev eth0
    ip -n "$namespace" link set eth0 up
    ip -n "$namespace" route add default via "$NETWORK.254" # Ray asks which of its addresses leads outside
    ip -n "$BRIDGE" link set "port$1" master br0 up
}

# What runs in a host before Ray: its own /tmp, in which the interpreter and this repository stay visible where they are in
# /tmp; and names from a file alone, since to wait for a name server that is not there takes Ray's start half a minute.
host_script() {
    local role=(--address="$(address_of 0):$PORT")
    if (($1 == 0)); then
        role=(--head --port="$PORT" --include-dashboard="$DASHBOARD" --dashboard-host=127.0.0.1)
    fi
    cat << SCRIPT
set -e
mount --make-rprivate /
mount -t tmpfs -o size=$((STORE_MB + 32))m,mode=1777 tmpfs /dev/shm
hostname $NAME-$1
for kept in "$ROOT" "$(python3 -c 'import sys; print(sys.prefix)')" "$(dirname "$(dirname "$RAY")")"; do
    case "\$kept" in /tmp/*)
        mkdir -p "$FOLDER/$1/tmp/\${kept#/tmp/}"
        mountpoint -q "$FOLDER/$1/tmp/\${kept#/tmp/}" || mount --bind "\$kept" "$FOLDER/$1/tmp/\${kept#/tmp/}" ;;
    esac
done
mount --rbind "$FOLDER/$1/tmp" /tmp
mount --bind "$FOLDER/names" /etc/hosts
mount --bind "$FOLDER/resolver" /etc/resolv.conf
export HOME="$FOLDER/$1/home" RAY_AUTH_TOKEN=\$(cat "$FOLDER/token") PATH="$(dirname "$RAY"):\$PATH"
cd "$ROOT"
"$RAY" start ${role[*]} --node-ip-address=$(address_of "$1") --num-cpus=$CPUS --num-gpus=0 \
    --object-store-memory=$((STORE_MB * 1000000)) --temp-dir=/tmp/ray --resources='{"host$1": 1}' --block &
wait \$! # this shell stays the host's first process, which takes on orphans
SCRIPT
}

start() {
    first_process "$1" > /dev/null && fail "host $1 runs already"
    rm -rf "${FOLDER:?}/$1/tmp" "${FOLDER:?}/$1/home"
    mkdir -p "$FOLDER/$1/home"
    mkdir -m 1777 "$FOLDER/$1/tmp"
    host_script "$1" > "$FOLDER/$1/script"
    # Each of these becomes the next, so that what is noted is unshare's: its death is the death of all that is in the host.
    setsid ip netns exec "$NAME-$1" unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc \
        bash "$FOLDER/$1/script" > "$FOLDER/$1/log" 2>&1 < /dev/null &
    echo $! > "$FOLDER/$1/pid"
}

await() {
    local deadline=$((SECONDS + READY_S))
    until grep -q "Ray runtime started" "$FOLDER/$1/log"; do
        if ((SECONDS > deadline)) || ! kill -0 "$(cat "$FOLDER/$1/pid")" 2> /dev/null; then
            cat "$FOLDER/$1/log" >&2
            fail "host $1 did not come up in $READY_S s; its log is above"
        fi
        sleep 0.1
    done
}

up() {
    local number
    [[ $(id -u) == 0 ]] || fail "namespaces are made by root alone"
    [[ ! -e $FOLDER ]] || fail "$FOLDER is there already: end those hosts first, with 'down'"
    trap 'trap "" INT TERM; down' EXIT # whatever ends it half way, and however often
    make_bridge
    echo "127.0.0.1 localhost" > "$FOLDER/names"
    printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' > "$FOLDER/resolver"
    for number in $(seq 0 $(($1 - 1))); do
        plug "$number"
        echo "$(address_of "$number") $NAME-$number" >> "$FOLDER/names"
    done
    start 0
    await 0
    for number in $(hosts); do
        ((number == 0)) || start "$number"
    done
    for number in $(hosts); do
        await "$number"
    done
    trap - EXIT
}

enter() {
    local number=$1 process
    shift
    process=$(first_process "$number") || fail "host $number does not run"
    env PATH="$(dirname "$RAY"):$PATH" HOME="$FOLDER/$number/home" RAY_AUTH_TOKEN="$(cat "$FOLDER/token")" \
        RAY_ADDRESS="$(address_of 0):$PORT" \
        nsenter --target "$process" --mount --uts --ipc --net --pid --wdns="$ROOT" -- "$@"
}

end() { # a host, with all its processes; returns when they are gone
    local outer
    outer=$(cat "$FOLDER/$1/pid" 2> /dev/null) || return 0
    while [[ $(cat "/proc/$outer/comm" 2> /dev/null) == unshare ]]; do
        kill -KILL "$outer" 2> /dev/null || true
        sleep 0.05
    done
}

shape() {
    local number
    unshape
    for number in $(hosts); do
        tc -n "$NAME-$number" qdisc add dev eth0 root tbf rate "$1" burst 256kb latency 50ms
        tc -n "$BRIDGE" qdisc add dev "port$number" root tbf rate "$1" burst 256kb latency 50ms
    done
}

unshape() {
    local number
    for number in $(hosts); do # fails where there is none
        tc -n "$NAME-$number" qdisc del dev eth0 root 2> /dev/null || true
        tc -n "$BRIDGE" qdisc del dev "port$number" root 2> /dev/null || true
    done
}

delay() {
    local number relay pairs=()
    relay=$(cat "$FOLDER/relay" 2> /dev/null || true)
    if [[ -n $relay ]]; then
        kill "$relay" 2> /dev/null || true
        rm "$FOLDER/relay"
    fi
    for number in $(hosts); do
        ip -n "$BRIDGE" link delete "far$number" 2> /dev/null || true # there was no delay
        ip -n "$BRIDGE" link set "port$number" master br0
    done
    [[ $1 != 0 ]] || return 0
    for number in $(hosts); do # host - port - relay - far - near - bridge
        ip -n "$BRIDGE" link set "port$number" nomaster
        ip -n "$BRIDGE" link add "far$number" type veth peer name "near$number"
        ip -n "$BRIDGE" link set "near$number" master br0 up
        ip -n "$BRIDGE" link set "far$number" up
        pairs+=("port$number:far$number")
    done
    : > "$FOLDER/relay.log"
    setsid ip netns exec "$BRIDGE" python3 "$ROOT/cluster/local/delay.py" "$1" "${pairs[@]}" \
        > "$FOLDER/relay.log" 2>&1 < /dev/null &
    echo $! > "$FOLDER/relay"
    until grep -q ready "$FOLDER/relay.log"; do
        kill -0 "$(cat "$FOLDER/relay")" 2> /dev/null || fail "the links' delay did not start: $(cat "$FOLDER/relay.log")"
        sleep 0.05
    done
}

down() {
    local number
    if [[ -e $FOLDER/relay ]]; then
        delay 0
    fi
    for number in $(hosts); do
        end "$number"
        ip netns delete "$NAME-$number" 2> /dev/null || true # an 'up' that failed may not have made it
    done
    ip netns delete "$BRIDGE" 2> /dev/null || true
    rm -rf "$FOLDER"
}

RAY=$(command -v ray || echo "$ROOT/.venv/bin/ray")
readonly RAY
[[ -x $RAY ]] || fail "no ray on PATH, nor at $RAY: activate the environment, or run 'make demo' once"

case "${1:-}" in
    up) up "${2:?how many hosts}" ;;
    start)
        start "$2"
        await "$2"
        ;;
    exec)
        shift
        enter "$@"
        ;;
    kill) end "$2" ;;
    cut) ip -n "$BRIDGE" link set "port$2" down ;;
    mend) ip -n "$BRIDGE" link set "port$2" up ;;
    shape) shape "${2:?a rate such as 1gbit}" ;;
    unshape) unshape ;;
    delay) delay "${2:?milliseconds}" ;;
    address) echo "$(address_of 0):$PORT" ;;
    down) down ;;
    *)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
        exit 2
        ;;
esac
