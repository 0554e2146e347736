#!/usr/bin/env bash
# The way of somebody with photographs, networks and a teacher of their own: train, stop, continue,
# look, export the students and use them. Needs the extras train, tensorboard and onnx.
#
#   experiments/walk.sh FOLDER [PHOTOGRAPHS [TEACHER]]
#
# FOLDER is new. PHOTOGRAPHS holds a subfolder for each of three classes; if left out, pictures are
# drawn. TEACHER is NETWORK=FILE, PyTorch weights with three classes, named as in mdistiller:
# resnet20=FILE.pth; if left out, a ResNet-8 is made up. STEPS (24) is the length of the run.
set -euo pipefail
here=$(cd "$(dirname "$0")/walk" && pwd)
export PYTHONPATH="$here/../..${PYTHONPATH:+:$PYTHONPATH}" # this checkout, installed or not
mkdir -p "$1"
photographs=${2:+$(realpath "$2")} teacher=${3:+${3%%=*}=$(realpath "${3#*=}")} steps=${STEPS:-24}
cd "$1"
cp "$here/my_networks.py" .
[[ -n $photographs ]] || { python "$here/photographs.py" photographs && photographs=photographs; }
[[ -n $teacher ]] || { python "$here/teacher.py" teacher.safetensors && teacher=resnet8=teacher.safetensors; }

afd() { # COMMAND ARGUMENTS
    echo "+ afd-$*"
    "afd-$1" "${@:2}"
}

train=(--config=folder_afd:my_networks:InLinen,my_networks:InNNX --workdir=run
    "--config.data.data_dir=$photographs" --config.data.image_size=32
    "--config.teachers=('$teacher',)"
    --config.method.adversarial_weight=0.0 --config.twins=True
    --config.data.mixup=0.2 --config.optimizers.logit.schedule.warmup=0.1
    "--config.writers=('tensorboard',)" --config.batch_size=16 "--config.duration=$steps steps"
    "--config.checkpoint_every=2 steps" "--config.log_every=2 steps" "--config.eval_every=12 steps")

afd train "${train[@]}" --dry-run

echo "+ afd-train, stopped after its first checkpoint"
afd-train "${train[@]}" &
process=$!
until compgen -G "run/checkpoints/[0-9]*" >/dev/null || ! kill -0 $process; do sleep 0.1; done
kill -INT $process 2>/dev/null || true
wait $process && code=0 || code=$?
[[ $code == 130 || $code == 0 ]] || exit 1
afd train "${train[@]}"

ls run/tensorboard
afd eval run --trust --per-class # the networks are our own
afd report run --trust
for name in InLinen InNNX; do
    afd export run --trust --network "$name" --to "$name" --formats safetensors,stablehlo,onnx
    python "$here/use_run.py" run "$name"
    (cd "$name" && python -I "$here/use_onnx.py") # without afd_jax and without JAX
done
