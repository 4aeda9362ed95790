"""Simulation: what a cluster would do with a trace, over every combination of settings.

    from flashcp.simulation.sweep import Sweep
    from flashcp.simulation.run import simulate

A `Sweep` names the values of every axis; `simulate` plans and predicts the same packs under each
combination, block by block, into one Parquet file that an interrupted run goes on with; `summary`
turns it into means with intervals, step times, memory and reasons.
"""
