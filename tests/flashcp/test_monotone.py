"""What a faster link does: no plan becomes slower; `auto`, which searches anew, hardly ever."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flashcp.auto import auto_plan
from flashcp.planning import default_setting, plan
from flashcp.prediction import Setting, predict
from flashcp.search.placement import find_placements
from flashcp.search.weights import search_weights
from flashcp.simulation.what_if import WhatIf
from flashcp.strategies import NAMES
from tests.flashcp.packs import cp_degrees, lengths
from traces import load, pack

SETTING = default_setting()


def faster(setting: Setting, bandwidth: float, latency: float) -> Setting:
    what_if = WhatIf(link_bandwidth=bandwidth, link_latency=latency)
    return replace(setting, profile=what_if.profile(setting.profile))


@given(
    documents=lengths(),
    cp=cp_degrees(8),
    bandwidth=st.floats(1, 50),
    latency=st.floats(0.02, 1),
    strategy=st.sampled_from(NAMES),
    per_node=st.sampled_from([None, 1]),
)
@settings(max_examples=80, deadline=None)
def test_a_faster_link_makes_no_plan_slower(documents, cp, bandwidth, latency, strategy, per_node):
    setting = replace(SETTING, ranks_per_node=per_node)
    made = plan(documents, cp, strategy, setting, effort=0.05)
    before = predict(made, setting).total_us
    after = predict(made, faster(setting, bandwidth, latency)).total_us
    assert after <= before * (1 + 1e-9)


def test_a_faster_link_makes_auto_faster_on_the_whole():
    """A search under other weights ends elsewhere, so a pack may lose; the mean must not."""
    packing = pack(load("code"), 131072, packs=12)
    ratios = []
    for i in range(len(packing)):
        documents = packing.document_lengths(i)
        times = [
            predict(auto_plan(documents, 8, setting), setting).total_us
            for setting in (SETTING, faster(SETTING, 4.0, 0.5))
        ]
        ratios.append(times[1] / times[0])
    assert np.mean(ratios) < 1
    assert max(ratios) < 1.05


@given(documents=lengths(10), cp=cp_degrees(6), data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_order_of_documents_changes_nothing_that_is_found(documents, cp, data):
    """Of the search: per-seq and rings depend on it, and `auto` must not be slower than they."""
    order = data.draw(st.permutations(range(len(documents))))
    found = []
    for lengths_ in (documents, documents[list(order)]):
        rank, document, start, stop = find_placements(
            lengths_, cp, search_weights(lengths_, cp, SETTING), 0.2, again=False
        )[0].T
        found.append(sorted(zip(rank, lengths_[document], start, stop, strict=True)))
    assert found[0] == found[1]
