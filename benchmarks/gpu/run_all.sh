#!/usr/bin/env bash
# Everything useful on one GPU in under nine minutes: benchmarks/gpu/run_all.sh [FOLDER]
#
# Needs a Python with CUDA PyTorch and this project's light dependencies (click, numba, numpy, pandas,
# pyarrow, rich; pytest and hypothesis for the tests); nothing is installed or downloaded. PYTHON names the
# interpreter. Each step has a time limit and a log of its own; one that fails does not stop the next.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-gpu-results}
python=${PYTHON:-python3}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$root" || exit 1
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
budget_s=520
failed=0

step() { # name, limit in seconds, command...
  local name=$1 limit=$2 left=$((budget_s - SECONDS))
  shift 2
  if ((left < 15)); then
    echo "$name: left out, the time is up"
    return
  fi
  if timeout "$((limit < left ? limit : left))" "$@" >"$out/$name.log" 2>&1; then
    echo "$name: done at ${SECONDS}s"
  else
    echo "$name: FAILED with status $? at ${SECONDS}s; last line: $(tail -n 1 "$out/$name.log")"
    failed=1
  fi
}

gpu=$("$python" -c 'import torch; print(torch.cuda.get_device_name())') || exit 1
case $gpu in
  *H200*) hardware=h200-sxm ;;
  *A100*) hardware=a100-sxm ;;
  *) hardware=h100-sxm ;;
esac
"$python" - >"$out/environment.json" <<'PY'
import json, torch
from executor.device import provenance
print(json.dumps(provenance(torch.device("cuda", 0))))
PY
echo "$gpu, predicted with $hardware"

step tests 150 "$python" -m pytest -m gpu tests/executor -q -p no:cacheprovider
for cp in 8 4; do
  for trace in wlb-llm code papers; do
    for model in llama3-8b paper-h32; do
      name=$trace-$model-cp$cp
      step "$name" 60 "$python" -m flashcp_cli run "$trace" --emulate --device cuda --nproc "$cp" \
        --context 128k --model "$model" --hardware "$hardware" --warmups 1 --repetitions 3 \
        --results "$out/$name.run.json" --timeline "$out/$name.timeline.json"
    done
  done
done
step bare-attention 60 "$python" benchmarks/gpu/bare_attention.py "$out/bare-attention.json"
# Several ranks on one GPU, where this NCCL allows it: correctness and bytes, not speed.
NCCL_MULTI_RANK_GPU_ENABLE=1 step nccl-2-ranks 60 "$python" -m flashcp_cli run wlb-llm \
  --device cuda --nproc 2 --context 16k --hardware "$hardware" --warmups 1 --repetitions 3 \
  --timeout 40 --results "$out/nccl-2-ranks.json"
tail -n 1 "$out/bare-attention.log" 2>/dev/null
"$python" benchmarks/gpu/summary.py "$out" | tee "$out/summary.txt"
exit $failed
