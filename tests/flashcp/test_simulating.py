"""`flashcp.simulate`: one value or several for each axis, and what the rows say of nodes."""

from dataclasses import replace

import pytest

import flashcp
from flashcp.simulation.results import load_results

SMALL = {"packs": 3, "processes": 1, "context_tokens": 16384, "plan_effort": 0.1}


def test_one_call_gives_a_row_a_setting_best_first(tmp_path):
    out = tmp_path / "rows.parquet"
    what_ifs = [flashcp.WhatIf(), flashcp.WhatIf(overlap="off")]
    found = flashcp.simulate(
        "papers", cp=[2, 4], strategies=["per-seq", "auto"], what_ifs=what_ifs, out=out, **SMALL
    )
    rows = found.summary()
    assert {(r.configuration.cp, r.configuration.overlap, r.strategy) for r in rows} == {
        (cp, overlap, name)
        for cp in (2, 4)
        for overlap in ("own", "off")
        for name in ("per-seq", "auto")
    }
    rates = [row.tokens_per_s_gpu for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert len(load_results(out)) == len(found.rows) == 8 * 3


def test_what_is_made_even_is_part_of_what_results_depend_on(tmp_path):
    settings = {**SMALL, "plan_effort": 1.0, "context_tokens": 65536}
    found = {
        balance: flashcp.simulate(
            "code",
            cp=8,
            strategies="auto",
            balance=balance,
            out=tmp_path / f"{balance}",
            **settings,
        ).summary()[0]
        for balance in (None, "work", "time")
    }
    assert found["time"].total_us.value < found["work"].total_us.value
    assert found[None].total_us.value == found["work"].total_us.value
    for before, said in (("work", '"work"'), ("None", "null")):
        with pytest.raises(flashcp.PlanError, match=f'balance {said} there, "time" now'):
            flashcp.simulate(
                "code", cp=8, strategies="auto", balance="time", out=tmp_path / before, **settings
            )


def test_a_single_name_is_not_taken_for_a_list_of_letters():
    found = flashcp.simulate(flashcp.load_trace("papers"), cp=2, strategies="per-seq", **SMALL)
    assert [row.strategy for row in found.summary()] == ["per-seq"]


def test_a_step_may_be_of_another_model_of_training():
    found = flashcp.simulate("papers", cp=2, strategies=["per-seq"], **SMALL)
    whole, lighter = found.summary(), found.summary(flashcp.StepModel(recompute="none"))
    assert whole[0].step_us.value > lighter[0].step_us.value
    assert found.summary(memory_gb=1.0)[0].fits is False


def test_wrong_values_are_refused_in_one_line():
    with pytest.raises(flashcp.PlanError, match="strategy 'autto' is unknown"):
        flashcp.simulate("papers", strategies="autto", **SMALL)
    with pytest.raises(flashcp.PlanError, match="the sweep is empty: cp has no values"):
        flashcp.simulate("papers", cp=[], **SMALL)


@pytest.mark.parametrize("exchange", ["own", "needed", "all-gather"])
def test_rows_hold_what_crosses_nodes(exchange):
    names = ["ring", "per-doc", "flashcp"]
    found = flashcp.simulate(
        "papers",
        cp=8,
        strategies=names,
        ranks_per_node=4,
        what_ifs=flashcp.WhatIf(exchange=exchange),
        **SMALL,
    )
    packing = next(iter(found.packings.values()))
    where = {"ring": "ring", "needed": "all-to-all-needed"}
    for configuration, name, frame in found.frames():
        for pack, row in enumerate(frame.itertuples()):
            plan = flashcp.plan(packing.document_lengths(pack), configuration.cp, name)
            rule = where.get("ring" if name == "ring" else exchange, exchange)
            if rule != "own":
                plan = _with(plan, rule)
            expected = flashcp.measure(plan, 4)
            assert row.across_tokens == expected.across_tokens > 0
            assert row.across_largest_tokens == expected.across_largest_tokens
    one_node = flashcp.simulate("papers", cp=8, strategies=names, **SMALL).rows
    assert not one_node["across_tokens"].any()


def _with(plan, exchange):
    return replace(plan, exchange=flashcp.Exchange(exchange))
