#!/bin/sh
# slurm.sh NODES COMMAND...: runs the command where a small Slurm is up: its machines n1, n2, ... are slurmds of this one,
# each with an address of its own. All of it is in a temporary folder, and in namespaces that end with the command.
# Needs root and Debian's slurm-wlm, slurmd, slurmctld, slurm-client, munge.
set -eu
if [ "$1" != --inside ]; then
  count=$1
  shift
  names=$(seq -f n%g "$count")
  # shellcheck disable=SC2086 -- a name per word
  exec sh "$(dirname "$0")/hosts.sh" $names -- sh "$0" --inside "$count" "$@"
fi
count=$2
shift 2

state=$(mktemp -d)
# Its daemons end a little later than the command, and write until then.
clean() {
  for _ in 1 2 3 4 5 6 7 8 9; do
    rm -rf "$state" 2>/dev/null && return
    sleep 0.3
  done
  rm -rf "$state"
}
trap clean EXIT
chmod 755 "$state"
head -c 1024 /dev/urandom >"$state/key"
chmod 600 "$state/key"
munged --force --socket="$state/munge" --key-file="$state/key" --pid-file="$state/munge.pid" \
  --log-file="$state/munge.log" --seed-file="$state/seed" 2>/dev/null

cat >"$state/slurm.conf" <<CONF
ClusterName=small
SlurmctldHost=one(127.0.0.1)
SlurmctldPort=6800
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/%n
SlurmctldPidFile=$state/controller.pid
SlurmdPidFile=$state/%n.pid
SlurmctldLogFile=$state/controller.log
SlurmdLogFile=$state/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=2
SlurmdParameters=config_overrides
PartitionName=all Nodes=n[1-$count] Default=YES State=UP
CONF
for i in $(seq "$count"); do
  echo "NodeName=n$i NodeHostname=one NodeAddr=10.77.0.$i Port=$((6800 + i)) CPUs=4 RealMemory=1000" >>"$state/slurm.conf"
done
export SLURM_CONF="$state/slurm.conf"
mkdir "$state/controller"
slurmctld -c
for i in $(seq "$count"); do
  mkdir "$state/n$i"
  slurmd -N "n$i"
done
tries=100
while [ "$(sinfo --noheader --Node --states=idle --format=%N 2>/dev/null | wc -l)" -lt "$count" ]; do
  tries=$((tries - 1))
  if [ "$tries" = 0 ]; then
    echo "slurm.sh: its machines did not become idle within 20 s" >&2
    tail -n 5 "$state"/*.log >&2
    exit 1
  fi
  sleep 0.2
done
"$@"
