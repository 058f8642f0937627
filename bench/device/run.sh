#!/usr/bin/env bash
# Everything worth knowing from a machine with a GPU, in three calls of under nine minutes each.
#
#   bench/device/run.sh [1|2|3|all] [--dry-run]
#
#   1  machine, build for its GPU, the gpu tests, memory and race checks on short cases, launch overhead
#   2  microbenchmarks: attention in all sizes against all baselines, gate, packing, cache roll
#   3  end to end: training step, acting, memory replay, T-Maze; a profile of the slowest kernels
#
# Needs Python with torch, triton and pytest, nvcc and a C++ compiler, and fetches nothing. A stage that fails or runs out
# of its time is recorded and the next one runs. Per call, $OUT (default ./device-results) gets partN.json (stages and all
# results; `python -m bench report --add` takes it) and partN.log. The exit status is 1 if any stage failed.
#
# Where the sources are a copy without a repository, BENCH_COMMIT names the commit that the results are recorded for.
#
# --dry-run runs every stage on the CPU in tiny sizes, in a minute or two.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" bench/device/stages.py --out "${OUT:-device-results}" "$@"
