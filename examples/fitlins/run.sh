#!/usr/bin/env bash
# A general linear model of FitLins on the synthetic runs: run.sh BIDS_DIR OUTPUT_DIR RESULTS
# BIDS_DIR and OUTPUT_DIR are what fmrisynth got; MODEL names another BIDS Stats Model, WORK_DIR
# another place for what FitLins computes on the way than RESULTS-work. Needs `fitlins` on the PATH.
# For an output of `--output-layout fmriprep`, with confounds and their cosines in place of a drift model:
#     DESC=preproc DRIFT= MODEL=examples/fitlins/model_confounds.json run.sh BIDS_DIR OUTPUT_DIR RESULTS
#
# FitLins wants an environment of its own, away from fmrisynth's, and in it these pins:
#     pip install fitlins==0.11.0 'numpy<2' 'pandas<3' 'matplotlib<3.9'
# Its nilearn 0.9 calls matplotlib.cm.register_cmap, which matplotlib 3.9 removed, and it and
# pybids 0.15 are from before numpy 2 and pandas 3.
#
# If runs differ by an entity other than session, task and run (dir-AP and dir-PA), the model's
# "Input" must list its values: pybids 0.15 takes such runs for one otherwise, the first one's
# image with the last one's events, without a word.
set -euo pipefail
bids=$1 out=$2 results=$3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# the model by its absolute path: FitLins looks a relative one up in BIDS_DIR
model=$(realpath "${MODEL:-$here/model.json}")
exec fitlins "$bids" "$results" dataset -m "$model" -d "$out" \
    --space MNI152NLin2009cAsym --desc-label "${DESC:-synth}" ${DRIFT---drift-model cosine} \
    --work-dir "${WORK_DIR:-$results-work}"
