#!/usr/bin/env bash
# Connectomes of the synthetic runs by giga_connectome: run.sh OUTPUT_DIR RESULTS [OPTION…]
# OUTPUT_DIR is an output of `--output-layout fmriprep`. Needs `giga_connectome` on the PATH, in an
# environment of its own, and its templates and atlas in TEMPLATEFLOW_HOME or from the network.
set -euo pipefail
out=$1 results=$2
shift 2
exec giga_connectome "$out" "$results" participant --denoise-strategy simple \
    --work-dir "${WORK_DIR:-$results-work}" "$@"
