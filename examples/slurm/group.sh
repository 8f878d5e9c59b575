#!/usr/bin/env bash
#SBATCH --job-name=fmrisynth-group
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=04:00:00
# Compare with held-out participants and write the report: group.sh BIDS_DIR OUTPUT_DIR WORK_DIR
set -euo pipefail
# shellcheck disable=SC2086 # options are words
exec "$FMRISYNTH_APP" "$1" "$2" "$3" group ${GROUP_OPTIONS:-}
