"""Compiled code is kept on disk, is never stale, and needs neither a cache nor a compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALLER = """
from costmodel.callee import inner
from groundwork.jit import jit

@jit
def outer(x):
    return inner(x) + 1
"""
CALLEE = """
from groundwork.jit import jit_as

@jit_as("i8(i8)")
def inner(x):
    return {factor} * x
"""


@pytest.fixture
def package(tmp_path):
    """A package called costmodel, which the cache knows, with one function calling another."""
    folder = tmp_path / "costmodel"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "caller.py").write_text(CALLER)
    (folder / "callee.py").write_text(CALLEE.format(factor=2))
    return folder


def run(package, code="from costmodel.caller import outer; print(outer(10))", **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, cwd=package.parent,
        env={**os.environ, "PYTHONPATH": f"{package.parent}:{ROOT}", "NUMBA_DEBUG_CACHE": "1",
             **environment},
    )  # fmt: skip


def test_a_second_process_loads_what_the_first_compiled(package):
    first, second = run(package), run(package)
    assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[-1] == "21"
    assert "data saved" in first.stdout
    assert "data loaded" in second.stdout
    assert "data saved" not in second.stdout


def test_a_changed_callee_in_another_file_is_compiled_into_its_caller_anew(package):
    assert run(package).stdout.splitlines()[-1] == "21"
    (package / "callee.py").write_text(CALLEE.format(factor=3))
    assert run(package).stdout.splitlines()[-1] == "31"


def test_without_a_folder_for_a_cache_it_compiles_all_the_same(package):
    """numba's own answer to no cache folder is an error when the module is imported."""
    code = (
        "from numba.core.caching import CacheImpl\n"
        "CacheImpl._locator_classes = []\n"
        "from costmodel.caller import outer\n"
        "print(outer(10))\n"
    )
    done = run(package, code)
    assert done.stdout.splitlines()[-1] == "21", done.stderr


def test_without_compilation_the_same_code_runs(package):
    done = run(package, NUMBA_DISABLE_JIT="1")
    assert done.stdout.splitlines()[-1] == "21", done.stderr
