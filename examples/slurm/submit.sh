#!/usr/bin/env bash
# Train once, generate in an array job (one participant a task), group last.
#
#   examples/slurm/submit.sh BIDS_DIR OUTPUT_DIR WORK_DIR [LABEL...]
#
# Without labels every participant of BIDS_DIR gets synthetic runs; the report needs the held-out
# ones among them. Run it again after a failure: a training goes on from its last state, finished
# runs are kept. A job whose predecessor failed never starts; cancel it with scancel.
#
# From the environment:
#   FMRISYNTH_SIF     image to run with Apptainer; without it, fmrisynth of the PATH
#   TRAIN_OPTIONS     more options for the training, such as "--max-time 11:30:00"
#   GENERATE_OPTIONS  more options for the generation, such as "--n-samples 4"
#   GROUP_OPTIONS     more options for the report
#   MAX_TASKS         array tasks that run at once (default 20)
#   SBATCH_*          as sbatch reads them (SBATCH_ACCOUNT, SBATCH_PARTITION, …)
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,17s/^# \{0,1\}//p' "$0" >&2
    exit 64
fi
bids=$(realpath -e "$1")
out=$(realpath -m "$2")
work=$(realpath -m "$3")
shift 3
here=$(dirname "$(realpath "$0")")
mkdir -p "$out" "$work"

# sbatch runs a copy of a job's script, which cannot find its neighbours: it is told where they are
export FMRISYNTH_APP="$here/app.sh"
if [ -n "${FMRISYNTH_SIF:-}" ]; then
    FMRISYNTH_SIF=$(realpath -m "$FMRISYNTH_SIF")
    export FMRISYNTH_SIF
fi

# an array task is a line of this file, so that a resubmission with the same labels is the same
list="$work/participants.txt"
if [ $# -gt 0 ]; then
    printf '%s\n' "${@#sub-}" > "$list"
else
    find -L "$bids" -mindepth 1 -maxdepth 1 -type d -name 'sub-*' -printf '%f\n' \
        | sed 's/^sub-//' | sort > "$list"
fi
count=$(wc -l < "$list")
if [ "$count" -eq 0 ]; then
    echo "submit.sh: $bids has no sub-* folder" >&2
    exit 66
fi

train=$(sbatch --parsable --output="$work/train-%j.log" \
    "$here/train.sh" "$bids" "$out" "$work")
generate=$(sbatch --parsable --output="$work/generate-%A-%a.log" \
    --dependency="afterok:${train%%;*}" --array="1-$count%${MAX_TASKS:-20}" \
    "$here/generate.sh" "$bids" "$out" "$work" "$list")
group=$(sbatch --parsable --output="$work/group-%j.log" \
    --dependency="afterok:${generate%%;*}" \
    "$here/group.sh" "$bids" "$out" "$work")

echo "training ${train%%;*}, $count participants ${generate%%;*}, report ${group%%;*}"
echo "logs in $work, report in $out/group.html"
