#!/usr/bin/env bash
# What a GPU is to tell, in under ten minutes, without network and W&B: see bench/gpu_day.py and docs/performance.md.
#   bash bench/gpu_day.sh          the same as `make gpu`
#   bash bench/gpu_day.sh --dry    as far as a CPU can, in minutes
set -eu
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 WANDB_MODE=disabled
if compgen -G "wheels/*.whl" > /dev/null; then  # carried here, as there is no network
    "${PYTHON:-python3}" -m pip install -q --no-index --no-deps --no-compile --upgrade --target wheels/site wheels/*.whl
    export PYTHONPATH="$PYTHONPATH:$PWD/wheels/site"
fi
exec "${PYTHON:-python3}" bench/gpu_day.py "$@"
