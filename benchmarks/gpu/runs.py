"""The emulated runs that run_all.sh saved, with the plans that they ran, for scripts beside it."""

import json

import flashcp
from costmodel import load_model
from flashcp.prediction import Setting

PUBLISHED = "-published"  # ends the names of runs whose baselines copy shard by shard
MODELS = ("paper-h32", "llama3-8b")


def runs_of(folder, profile, *, published=False):
    """Yield run, plan, setting and ranks, of every plan that ran as executed, or as published.

    A plan that is made otherwise today is named and left out.
    """
    for path in sorted(folder.glob("*.run.json")):
        name = path.name.removesuffix(".run.json")
        if name.endswith(PUBLISHED) != published:
            continue
        name = name.removesuffix(PUBLISHED)
        left, cp = name.rsplit("-cp", 1)
        model = next(m for m in MODELS if left.endswith(m))
        copies = "published" if published else "in-place"
        setting = Setting(profile=profile, model=load_model(model), copies=copies)
        trace = flashcp.load_trace(left.removesuffix(f"-{model}"))
        lengths = flashcp.pack(trace, 131072, packs=1).document_lengths(0)
        for strategy, found in json.loads(path.read_text())["plans"].items():
            plan = flashcp.plan(lengths, int(cp), strategy, setting)
            if plan.fingerprint == found["fingerprint"]:
                yield name, plan, setting, found["ranks"]
            else:
                print(f"{name} {strategy}: planned otherwise today; left out")
