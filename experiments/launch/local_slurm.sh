#!/usr/bin/env bash
# A SLURM of two nodes, node1 and node2, on this one machine, to try job scripts. Each has two CPUs and
# two GPUs that are files. Needs root and Debian's slurm-wlm and munge; adds the nodes to /etc/hosts.
#   experiments/launch/local_slurm.sh start DIR       then: export SLURM_CONF=DIR/slurm.conf
#   experiments/launch/local_slurm.sh kill DIR node2  as if its power failed, job included
#   experiments/launch/local_slurm.sh boot DIR node2
#   experiments/launch/local_slurm.sh stop DIR
set -euo pipefail
verb=${1:?start, kill, boot or stop}
dir=$(mkdir -p "${2:?DIR}" && cd "$2" && pwd)
export SLURM_CONF=$dir/slurm.conf

boot() { # NODE
  slurmd -N "$1" -L "$dir/$1.log"
  scontrol update NodeName="$1" State=RESUME 2>/dev/null || true # if it counts as down
}

processes_of() { # NODE: of SLURM itself and of jobs
  local own
  for own in /proc/[0-9]*; do
    if tr '\0' ' ' 2>/dev/null <"$own/cmdline" | grep -- "slurmd -N $1 -L $dir" >/dev/null; then
      basename "$own"
    elif grep -zqx "SLURM_CONF=$dir/slurm.conf" "$own/environ" 2>/dev/null &&
      grep -zqx "SLURMD_NODENAME=$1" "$own/environ" 2>/dev/null; then
      basename "$own"
    fi
  done
} 2>/dev/null # of processes that have just ended

put_down() { # NODE
  local own
  for own in $(processes_of "$1"); do kill -9 "$own" 2>/dev/null || true; done
}

case $verb in
start)
  mkdir -p "$dir/state" "$dir/spool/node1" "$dir/spool/node2"
  for node in node1 node2; do
    grep -qw "$node" /etc/hosts || echo "127.0.0.1 $node" >>/etc/hosts
    touch "$dir/$node-gpu0" "$dir/$node-gpu1"
  done
  (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
    --pid-file="$dir/munge.pid" --log-file="$dir/munge.log" --seed-file="$dir/munge.seed"
  cat >"$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=${SLURM_PORT:-16817}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=30
KillWait=10
MessageTimeout=100
BatchStartTimeout=300
GresTypes=gpu
NodeName=node1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((${SLURM_PORT:-16817} + 1)) CPUs=2 Gres=gpu:2
NodeName=node2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((${SLURM_PORT:-16817} + 2)) CPUs=2 Gres=gpu:2
PartitionName=all Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
CONF
  for node in node1 node2; do echo "NodeName=$node Name=gpu File=$dir/$node-gpu[0-1]"; done >"$dir/gres.conf"
  slurmctld -L "$dir/slurmctld.log"
  for node in node1 node2; do boot "$node"; done
  for _ in {1..60}; do
    if [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ]; then exit 0; fi
    sleep 1
  done
  echo "error: the nodes do not come up; see $dir/*.log" >&2
  exit 1
  ;;
kill) put_down "${3:?NODE}" ;;
boot) boot "${3:?NODE}" ;;
stop)
  scancel --state=RUNNING --state=PENDING --user="$(id -un)" 2>/dev/null || true
  sleep 1
  for node in node1 node2; do put_down "$node"; done
  for file in slurmctld.pid munge.pid; do
    if [ -f "$dir/$file" ]; then kill "$(cat "$dir/$file")" 2>/dev/null || true; fi
  done
  ;;
*)
  echo "error: $verb: choose start, kill, boot or stop" >&2
  exit 2
  ;;
esac
