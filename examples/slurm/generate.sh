#!/usr/bin/env bash
#SBATCH --job-name=fmrisynth-generate
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
# Write the runs of one participant with the model there is:
# generate.sh BIDS_DIR OUTPUT_DIR WORK_DIR LIST, as task N of an array for line N of LIST.
set -euo pipefail
label=$(sed -n "${SLURM_ARRAY_TASK_ID:?submit this script as an array job}p" "$4")
# --model makes a missing model an error; without it each task would start to train one
# shellcheck disable=SC2086 # options are words
exec "$FMRISYNTH_APP" "$1" "$2" "$3" participant \
    --participant-label "${label:?$4 has no line $SLURM_ARRAY_TASK_ID}" \
    --model "$2/model" ${GENERATE_OPTIONS:-}
