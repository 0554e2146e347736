#!/usr/bin/env bash
# One machine, all its GPUs, one process: pmap over the devices is the default.
#   experiments/launch/multi_gpu.sh CONFIG WORKDIR [--config.key=value ...]
# With PROCESSES=n it starts one process for each of n GPUs instead, over jax.distributed: the first n of
# CUDA_VISIBLE_DEVICES, if that is set. They meet at PORT, a free one by default.
set -euo pipefail
config=${1:?CONFIG, such as cifar100_afd:resnet32,resnet32}
workdir=${2:?WORKDIR}
shift 2

if [ "${PROCESSES:-1}" -eq 1 ]; then
  exec python -m afd_jax --config="$config" --workdir="$workdir" "$@"
fi

IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((PROCESSES - 1)))}"
if [ "${#gpus[@]}" -lt "$PROCESSES" ]; then
  echo "PROCESSES=$PROCESSES: CUDA_VISIBLE_DEVICES names ${#gpus[@]} GPUs; name one for each process" >&2
  exit 2
fi
free='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
export JAX_COORDINATOR_ADDRESS="127.0.0.1:${PORT:-$(python3 -c "$free")}" JAX_NUM_PROCESSES="$PROCESSES"
pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null' INT TERM HUP # all save the state and stop together
for ((i = 0; i < PROCESSES; i++)); do
  # A session each, so that Ctrl-C reaches them through the trap alone: two signals save nothing.
  JAX_PROCESS_ID=$i CUDA_VISIBLE_DEVICES=${gpus[i]} setsid \
    python -m afd_jax --config="$config" --workdir="$workdir" --distributed "$@" &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do
  code=0
  wait "$pid" || code=$?
  while kill -0 "$pid" 2>/dev/null; do # a signal ended the wait, not the process
    code=0
    wait "$pid" || code=$?
  done
  [ "$code" -eq 0 ] || status=$code
done
exit "$status"
