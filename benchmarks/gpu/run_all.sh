#!/usr/bin/env bash
# Everything useful on one GPU in under nine minutes: benchmarks/gpu/run_all.sh [FOLDER]
#
# Needs a Python with CUDA PyTorch and this project's light dependencies but rich (click, numba, numpy,
# pandas, pyarrow; pytest for the tests); nothing is installed or downloaded. PYTHON names the interpreter,
# BUDGET_S the seconds to spend, ONLY a regular expression that names the steps. Each step has a time limit
# and logs of its own; one that fails does not stop the next, and whatever happens a short table comes last.
# What matters most runs first: what does not fit into the time is left out and said so.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
out=${1:-gpu-results}
python=${PYTHON:-python3}
mkdir -p "$out" && out=$(cd "$out" && pwd) && cd "$root" || exit 1
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True # one GPU holds all ranks
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
budget_s=${BUDGET_S:-510}
failed=0
: >"$out/steps.txt"

say() { echo "$*" | tee -a "$out/steps.txt"; }

finish() {
  trap - EXIT
  echo
  timeout -k 5 20 "$python" benchmarks/gpu/summary.py "$out" 2>"$out/summary.log" | tee "$out/summary.txt"
  if [[ ! -s "$out/summary.txt" ]]; then
    echo "no table: $(tail -n 1 "$out/summary.log"); the steps were:"
    cat "$out/steps.txt"
  fi
  exit "$failed"
}
trap finish EXIT
trap 'failed=130; exit' INT
trap 'failed=143; exit' TERM

step() { # name, limit in seconds, command...
  local name=$1 limit=$2 left=$((budget_s - SECONDS)) began=$SECONDS status
  shift 2
  [[ $name =~ ${ONLY:-.} ]] || return
  if ((left < 15)); then
    say "$name: left out, the time is up"
    return
  fi
  # -k: whoever does not heed SIGTERM, a rank that hangs in NCCL for one, is killed.
  timeout -k 5 "$((limit < left ? limit : left))" "$@" >"$out/$name.out" 2>"$out/$name.log"
  status=$?
  if ((status == 0)); then
    say "$name: done in $((SECONDS - began))s"
    return
  fi
  failed=1
  if ((status == 124 || status == 137)); then
    say "$name: FAILED, not done within its $((SECONDS - began))s"
  else
    say "$name: FAILED with status $status: $(cat "$out/$name.out" "$out/$name.log" | grep -v '^ *[]{}[]*,*$' | tail -n 1)"
  fi
}

if ! gpu=$(timeout -k 5 60 "$python" -c 'import torch; print(torch.cuda.get_device_name())' 2>"$out/gpu.log"); then
  failed=1
  say "no GPU: $(tail -n 1 "$out/gpu.log")"
  exit
fi
case $gpu in
  *H200*) hardware=h200-sxm ;;
  *A100*) hardware=a100-sxm ;;
  *) hardware=h100-sxm ;;
esac
nccl=$(timeout -k 5 60 "$python" -c 'import torch; print(*torch.cuda.nccl.version(), sep=".")' 2>/dev/null) || nccl=unknown
timeout -k 5 60 "$python" -c '
import json, torch
from executor.device import provenance
print(json.dumps(provenance(torch.device("cuda", 0))))' >"$out/environment.json" 2>"$out/environment.log"
say "$gpu, NCCL $nccl"

flashcp=("$python" -m flashcp_cli)
# Compiles what plans and predictions need, once for all the steps that follow.
step compile 120 "${flashcp[@]}" run wlb-llm --emulate --device cpu --nproc 2 --context 512 --q-heads 2 \
  --kv-heads 1 --head-dim 16 --repetitions 1 --warmups 0 --json
# Without --strict-config: pytest alone, without its plugin for time limits, refuses our configuration.
step tests 120 "$python" -m pytest -m gpu tests/executor/test_kernels.py tests/executor/test_gpu.py -q -p no:cacheprovider \
  -o addopts=--import-mode=importlib -W ignore::pytest.PytestConfigWarning

# Predictions are of the kernel that runs here, not of the bundled profile's; links are the bundled one's.
step calibrate 90 "${flashcp[@]}" calibrate --device cuda --nproc 1 --out "$out/profile.json" --name "$hardware-here" --json
measured=$hardware
[[ -s "$out/profile.json" ]] && measured=$out/profile.json
say "emulated runs are predicted with $measured"

# Several ranks on the one GPU: correctness and bytes, never speed. Ranks of different host ids are
# connected by sockets, as if on different nodes, whatever the NCCL; from 2.30 it can also share a GPU.
run_words=(wlb-llm --device cuda --context 16k --hardware "$hardware" --warmups 1 --repetitions 3 --timeout 30 --json)
for gradients in all-to-all reduce-scatter; do
  # As one word: torchrun would look for options of its own among them.
  words=$(printf '%q ' "${flashcp[@]}" run "${run_words[@]}" --gradients "$gradients" \
    --results "$out/nccl-hosts-$gradients.nccl.json")
  step "nccl-hosts-$gradients" 60 env NCCL_IB_DISABLE=1 "$python" -m torch.distributed.run --standalone \
    --nproc-per-node 4 --no-python bash -c "NCCL_HOSTID=rank\$RANK exec $words"
done
if [[ $(printf '%s\n' 2.30 "$nccl" | sort -V | head -n 1) == 2.30 && $nccl != unknown ]]; then
  step nccl-shared 60 env NCCL_MULTI_RANK_GPU_ENABLE=1 "${flashcp[@]}" run "${run_words[@]}" --nproc 4 \
    --results "$out/nccl-shared.nccl.json"
fi
step bare-attention 50 "$python" benchmarks/gpu/bare_attention.py "$out/bare-attention.json"

emulate() { # name, trace, model, CP degree, more words...
  local name=$1 trace=$2 model=$3 cp=$4
  shift 4
  step "$name" 60 "${flashcp[@]}" run "$trace" --emulate --device cuda --nproc "$cp" --context 128k \
    --model "$model" --hardware "$measured" --warmups 1 --repetitions 3 --json --results "$out/$name.run.json" "$@"
}
for cp in 8 4; do
  for model in paper-h32 llama3-8b; do
    for trace in wlb-llm code papers; do
      emulate "$trace-$model-cp$cp" "$trace" "$model" "$cp" --timeline "$out/$trace-$model-cp$cp.timeline.json"
      # The same baselines with the copies that they are published with; already verified as such by the tests.
      emulate "$trace-$model-cp$cp-published" "$trace" "$model" "$cp" --copies published --no-verify \
        --strategies per-seq,per-doc,flashcp
    done
  done
done
