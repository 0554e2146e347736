#!/usr/bin/env bash
# Asks for a Cloud TPU slice as a queued resource, trains on it, and gives it back. A slice that is taken
# away (SPOT=--spot) is asked for again, and the run continues.
#   experiments/launch/tpu_queue.sh TPU_NAME ZONE ACCELERATOR_TYPE CONFIG WORKDIR [--config.key=value ...]
# WORKDIR and the data folder must outlive the slice and be readable from all hosts: SETUP is a command
# that each host runs first, for instance to install the package and mount a bucket.
set -euo pipefail
tpu=${1:?TPU_NAME}
zone=${2:?ZONE}
kind=${3:?ACCELERATOR_TYPE, such as v5litepod-16}
shift 3
setup=${SETUP:?SETUP, a command that makes ~/afd_jax, its packages, and the folders ready}
every=${EVERY:-30} # seconds between two looks
queue=(gcloud compute tpus queued-resources)

state() { # ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ...; nothing if there is none
  "${queue[@]}" describe "$tpu" --zone="$zone" --format='value(state.state)' 2>/dev/null || true
}

give_back() { "${queue[@]}" delete "$tpu" --zone="$zone" --force --quiet; }

while true; do
  if [ -z "$(state)" ]; then
    "${queue[@]}" create "$tpu" --node-id="$tpu" --zone="$zone" --accelerator-type="$kind" \
      --runtime-version="${RUNTIME:-tpu-ubuntu2204-base}" ${SPOT:+"$SPOT"}
  fi
  until [ "$(state)" = ACTIVE ]; do
    case $(state) in
    FAILED) # for want of quota, say: asking again would not help
      echo "$tpu: the request failed; gcloud compute tpus queued-resources describe $tpu says why" >&2
      exit 1
      ;;
    SUSPENDED) break ;;
    esac
    sleep "$every"
  done
  status=1
  if [ "$(state)" = ACTIVE ]; then
    status=0
    gcloud compute tpus tpu-vm ssh "$tpu" --zone="$zone" --worker=all --command="$setup" || status=$?
    if [ "$status" -eq 0 ]; then
      "$(dirname "$0")/tpu_vm.sh" "$tpu" "$zone" "$@" || status=$?
    fi
    case $status in
    75 | 130 | 255) sleep "$every" ;; # hosts that leave may be seen before the slice's own state
    esac
    # Still there: it was not the slice that failed.
    if [ "$(state)" = ACTIVE ]; then
      give_back
      exit "$status"
    fi
  fi
  if [ -n "$(state)" ]; then give_back; fi
done
