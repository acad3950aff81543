#!/bin/sh
# Two hosts made of Linux namespaces: node1 and node2 have networks, names, processes and shared
# memory of their own, and a cable between them.
#
#     two_hosts.sh COMMAND...           on node1
#     two_hosts.sh -x HOST COMMAND...   what a launcher calls in place of ssh
set -e
if [ "$1" = -x ]; then
    host=$2
    shift 2
    set -- sh -c "$*"
elif [ -z "$TWO_HOSTS" ]; then
    TWO_HOSTS=1 exec unshare --user --map-root-user --net --mount "$0" "$@"
else
    host=node1
    mount -t tmpfs run /run
    printf '127.0.0.1 localhost\n10.0.0.1 node1\n10.0.0.2 node2\n' > /run/hosts
    mount --bind /run/hosts /etc/hosts
    ip netns add node1
    ip netns add node2
    ip link add cable netns node1 type veth peer name cable netns node2
    for k in 1 2; do
        ip -n node$k address add 10.0.0.$k/24 dev cable
        ip -n node$k link set lo up
        ip -n node$k link set cable up
    done
    for k in 1 2; do
        until ip -n node$k link show cable | grep -q "state UP"; do sleep 0.05; done
    done
fi
exec ip netns exec "$host" \
    unshare --uts --ipc --pid --mount --fork --kill-child --mount-proc sh -c '
        hostname "$0"
        mount -t tmpfs memory /dev/shm
        exec "$@"' "$host" "$@"
