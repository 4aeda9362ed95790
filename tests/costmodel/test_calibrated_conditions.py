"""A profile that is not of what runs here is told in what it differs."""

from dataclasses import replace

import pytest

from costmodel import load_profile
from costmodel.calibrated_conditions import (
    differences,
    kernel_family,
    launch_mode,
    measured_dtype,
)

H100 = load_profile("h100-sxm")
SAME = replace(
    H100, provenance=replace(H100.provenance, launch_mode="one process a GPU", nccl="2.27.3")
)
HERE = {
    "device": "NVIDIA H100 80GB HBM3",
    "device_type": "cuda",
    "attention_kernel": "flash-attn 3.0.0",
    "nccl": "2.27.7",
    "threads": 16,
}


def test_the_same_conditions_differ_in_nothing():
    assert differences(SAME, HERE) == []


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"device": "NVIDIA H200"}, "the profile is of NVIDIA H100 SXM"),
        ({"attention_kernel": "flash-attn 2.7.4"}, "kernel flash-attn-3, here flash-attn 2.7.4"),
        ({"nccl": "2.21.5"}, "ran with NCCL 2.27.3, here with NCCL 2.21.5"),
        ({"device_type": "cpu", "threads": 2}, "on the CPU, 2 threads each"),
    ],
)
def test_each_difference_is_one_line_with_both_values(changed, line):
    found = [text for text in differences(SAME, HERE | changed) if line in text]
    assert len(found) == 1


def test_another_precision_is_told_where_the_profile_knows_its_own():
    known = replace(
        SAME, provenance=replace(SAME.provenance, attention_kernel_version="3.0.0, bfloat16")
    )
    assert (measured_dtype(known), measured_dtype(H100)) == ("bfloat16", None)
    assert differences(known, HERE | {"dtype": "bfloat16"}) == []
    (line,) = differences(known, HERE | {"dtype": "float32"})
    assert "attention is in bfloat16, this run's in float32" in line


def test_an_emulated_run_exchanges_nothing_that_could_differ():
    assert differences(H100, HERE | {"emulated": True, "nccl": None}) == []


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("flash-attn 2.7.4.post1", "flash-attn-2"),
        ("flash-attn-3", "flash-attn-3"),
        ("flash-attn 0.1 (CuTe)", "flash-attn-4"),
        ("torch 2.13.0 varlen", "torch-varlen"),
        ("torch-flash-cpu", "torch-flash-cpu"),
        ("something else", "something else"),
    ],
)
def test_kernels_are_told_apart_by_generation(name, family):
    assert kernel_family(name) == family


def test_launch_modes_say_the_threads_of_a_rank():
    assert launch_mode("cpu", 1) == "one process a rank on the CPU, 1 thread each"
    assert launch_mode("cuda", 7) == "one process a GPU"
