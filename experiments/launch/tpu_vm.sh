#!/usr/bin/env bash
# All hosts of a Cloud TPU VM slice run the same command; jax.distributed finds the others itself.
#   experiments/launch/tpu_vm.sh TPU_NAME ZONE CONFIG WORKDIR [--config.key=value ...]
# Each host needs this repository at ~/afd_jax and `pip install -e '.[train,tpu]'` done once; WORKDIR and
# the data folder must be readable from all hosts, for instance a mounted bucket.
set -euo pipefail
tpu=${1:?TPU_NAME}
zone=${2:?ZONE}
config=${3:?CONFIG}
workdir=${4:?WORKDIR}
shift 4
printf -v command 'cd ~/afd_jax && python3 -m afd_jax --config=%q --workdir=%q --distributed' \
  "$config" "$workdir"
for argument in "$@"; do printf -v command '%s %q' "$command" "$argument"; done
exec gcloud compute tpus tpu-vm ssh "$tpu" --zone="$zone" --worker=all --command="$command"
