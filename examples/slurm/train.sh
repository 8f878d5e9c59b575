#!/usr/bin/env bash
#SBATCH --job-name=fmrisynth-train
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --gres=gpu:1
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@300
# Train the model and write no runs: train.sh BIDS_DIR OUTPUT_DIR WORK_DIR
# Five minutes before its time is up SLURM sends USR1; the training writes its state and ends, and
# the same submission goes on from there. `exec` lets the signal reach it.
set -euo pipefail
# shellcheck disable=SC2086 # options are words
exec "$FMRISYNTH_APP" "$1" "$2" "$3" participant --train-only ${TRAIN_OPTIONS:-}
