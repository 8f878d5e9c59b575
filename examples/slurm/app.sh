#!/usr/bin/env bash
# How a job starts fmrisynth: app.sh BIDS_DIR OUTPUT_DIR WORK_DIR OPTION...
# Threads follow the job's --cpus-per-task by themselves.
set -euo pipefail
bids=$1 out=$2 work=$3
shift 3
if [ -z "${FMRISYNTH_SIF:-}" ]; then
    exec fmrisynth "$bids" "$out" "$@" --work-dir "$work"
fi
gpu=()
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then gpu=(--nv); fi
# Paths stay the same inside, so that links between datasets and options mean the same. --cleanenv
# keeps the host's Python out; the job's share of the CPUs is passed on by name.
exec apptainer run --cleanenv --env "SLURM_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-}" \
    "${gpu[@]}" -B "$bids:$bids:ro" -B "$out:$out" -B "$work:$work" \
    "$FMRISYNTH_SIF" "$bids" "$out" "$@" --work-dir "$work"
