"""Whether the re-implemented rules agree with the peers' own planners, where those install.

PyTorch's PTRR (needs torch) on the block counts of its own masks, and the bucket scheduler of
Megatron's hybrid CP (needs megatron-core; --megatron names the folder that holds `megatron/`).
Run: python benchmarks/planners/agreement.py
"""

import argparse
import sys
import warnings

import numpy as np
from rules import hybrid, key_blocks, ptrr_groups

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


def check_megatron(traces, folder, cp):
    """Run Megatron's own bucket scheduler on a group of `cp` ranks that torch only pretends.

    The scheduler asks the group for nothing but its size. It may spread a pack over several groups
    of samples, which run one after another; a rank's samples are those of all of them.
    """
    sys.path.insert(0, folder)
    warnings.simplefilter("ignore")  # of Megatron's missing extensions
    import torch.distributed as dist  # noqa: PLC0415 - optional
    from megatron.core.pipeline_parallel.hybrid_cp_schedule import (  # noqa: PLC0415
        BalancedCPScheduler,
    )
    from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=cp)
    scheduler = BalancedCPScheduler(131072 / cp, dist.group.WORLD)
    for name, packs in traces.items():
        alike, as_many, samples, groups = 0, 0, 0, 0
        imbalance = np.zeros((len(packs), 2))
        for i, lengths in enumerate(packs):
            found = scheduler.get_groups_and_subsamples(
                [(sample, int(n)) for sample, n in enumerate(lengths)], None
            )[1]
            theirs = [
                {rank for group in found for rank in range(cp) if sample in group[rank]}
                for sample in range(len(lengths))
            ]
            rows = hybrid(lengths, cp)
            ours = [set(rows[rows[:, 1] == s][:, 0].tolist()) for s in range(len(lengths))]
            alike += theirs == ours
            as_many += sum(len(a) == len(b) for a, b in zip(theirs, ours, strict=True))
            samples += len(lengths)
            groups += len(found)
            imbalance[i] = [_imbalance(lengths, placed, cp) for placed in (theirs, ours)]
        print(
            f"Megatron hybrid CP, {name}: {alike} of {len(packs)} packs placed alike, "
            f"{as_many} of {samples} samples on as many ranks; {groups / len(packs):.2f} groups a "
            f"pack; imbalance {imbalance[:, 0].mean():.3f}, ours {imbalance[:, 1].mean():.3f}"
        )
    dist.destroy_process_group()


def _imbalance(lengths, placed, cp):
    work = np.zeros(cp)
    for n, ranks in zip(lengths.astype(np.float64), placed, strict=True):
        work[list(ranks)] += n * n / len(ranks)
    return work.max() / work.mean()


def main():
    """Print how many agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megatron")
    given = parser.parse_args()
    traces = {}
    for name in ("wlb-llm", "code", "papers", "long-sft", "wiki"):
        packing = pack(load(name), 131072, by="truncate", packs=50)
        traces[name] = [packing.document_lengths(i) for i in range(len(packing))]
    check_ptrr(traces["wlb-llm"], 8)
    if given.megatron:
        check_megatron(traces, given.megatron, 8)


if __name__ == "__main__":
    main()
