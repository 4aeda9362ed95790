"""Whether the re-implemented rules agree with the peers' own planners, where those install.

PyTorch's PTRR (needs torch) on the block counts of its own masks, and Megatron's hybrid CP (needs
megatron-core; --megatron names the folder that holds `megatron/`) on the ranks a sample needs.
Run: python benchmarks/planners/agreement.py
"""

import argparse
import ast
from math import ceil, log2
from pathlib import Path

import numpy as np
from rules import hybrid_ranks, key_blocks, ptrr_groups

from traces import load, pack


def check_ptrr(packs, cp):
    """Compare block counts with flex_attention's mask and groups with torch's scheduler."""
    import torch  # noqa: PLC0415 - optional
    from torch.distributed.tensor.experimental._context_parallel._load_balancer import (  # noqa: PLC0415
        _PTRRLoadBalancer,
    )
    from torch.nn.attention.flex_attention import create_block_mask  # noqa: PLC0415

    same = 0
    for lengths in packs:
        short = lengths[np.cumsum(lengths) <= 8192]  # dense masks of whole packs do not fit
        short = np.append(short, 8192 - short.sum()) if short.sum() < 8192 else short
        owner = torch.from_numpy(np.repeat(np.arange(len(short)), short))

        def mask(batch, head, query, key, owner=owner):  # noqa: ARG001
            return (query >= key) & (owner[query] == owner[key])

        blocks = create_block_mask(mask, 1, 1, 8192, 8192, device="cpu", BLOCK_SIZE=128)
        counts = (blocks.kv_num_blocks + blocks.full_kv_num_blocks).flatten()
        groups = _PTRRLoadBalancer.ptrr_scheduling(counts, cp).numpy()
        ours = key_blocks(short, 128)
        same += (counts.numpy() == ours).all() and (groups == ptrr_groups(ours, cp)).all()
    print(f"PyTorch PTRR {torch.__version__}: {same} of {len(packs)} packs placed alike")


def check_megatron(packs, folder, cp):
    """Run Megatron's own `gpus_needed`, cut out of its scheduler, which imports its extensions."""
    path = Path(folder) / "megatron/core/pipeline_parallel/hybrid_cp_schedule.py"
    wanted = [
        node
        for part in ast.parse(path.read_text()).body
        if isinstance(part, ast.ClassDef) and part.name == "BalancedCPScheduler"
        for node in part.body
        if isinstance(node, ast.FunctionDef) and node.name == "gpus_needed"
    ]
    wanted[0].decorator_list = []
    names = {"ceil": ceil, "log2": log2}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), names)  # noqa: S102 - the peer's code
    scheduler = type("Scheduler", (), {"max_seq_len_per_rank": 131072 / cp})()
    lengths = [int(n) for p in packs for n in p]
    same = sum(names["gpus_needed"](scheduler, n) == hybrid_ranks(n, 131072 / cp) for n in lengths)
    print(f"Megatron hybrid CP: {same} of {len(lengths)} samples on as many ranks")


def main():
    """Print how many agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megatron")
    given = parser.parse_args()
    packing = pack(load("wlb-llm"), 131072, by="truncate", packs=50)
    packs = [packing.document_lengths(i) for i in range(len(packing))]
    check_ptrr(packs, 8)
    if given.megatron:
        check_megatron(packs, given.megatron, 8)


if __name__ == "__main__":
    main()
