#!/bin/sh
# hosts.sh NAME... -- COMMAND...: runs the command with a network, host names and processes of its own. Each NAME is an
# address (10.77.0.1, 10.77.0.2, ...) of this one machine. When the command ends, so does whatever it left running.
set -eu
if [ "${1:-}" != --inside ]; then
  exec unshare --mount --net --uts --pid --fork --kill-child --mount-proc sh "$0" --inside "$@"
fi
shift
hostname one
ip link set lo up
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "127.0.0.1 localhost one" >"$folder/hosts"
i=0
while [ "$1" != -- ]; do
  i=$((i + 1))
  ip address add "10.77.0.$i/32" dev lo
  echo "10.77.0.$i $1" >>"$folder/hosts"
  shift
done
shift
mount --bind "$folder/hosts" /etc/hosts
"$@"
