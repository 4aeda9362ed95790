import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from costmodel import load_profile
from costmodel.profile_file import bundled_profiles, profile_text


def flashcp(*arguments: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does, in a terminal of so many columns."""
    code = "import sys; from flashcp_cli.main import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"},
    )


def printed(*arguments: str) -> str:
    result = flashcp(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def printed_json(*arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(printed(*arguments, "--json"))
    return document


def refused(*arguments: str) -> str:
    result = flashcp(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_list_shows_every_bundled_profile_within_80_columns() -> None:
    output = printed("hardware", "list")
    for name in bundled_profiles():
        assert name in output
    assert "thread a GPU" in output
    assert "Apache-2.0" in output
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output


def test_list_gives_the_provenance_as_json() -> None:
    profiles = printed_json("hardware", "list")["profiles"]
    assert [profile["name"] for profile in profiles] == bundled_profiles()
    for profile in profiles:
        assert profile["driver"] is None  # not recorded, so not invented
        assert profile["held_out"]


def test_show_prints_parameters_with_sources_and_measured_points_beside_the_models() -> None:
    output = printed("hardware", "show", "h100-sxm")
    for words in ("reported", "measured", "extrapolated", "NDR 400", "TFLOP/s", "◆", "alpha"):
        assert words in output
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output


def test_show_gives_curves_as_json() -> None:
    document = printed_json("hardware", "show", "h200-sxm")
    assert document["name"] == "h200-sxm"
    attention = {point["tokens"]: point for point in document["attention_curve"]}
    assert attention[4096]["measured_us"] == pytest.approx(attention[4096]["model_us"], rel=0.2)
    assert attention[131072]["measured_us"] is None
    assert attention[131072]["source"] == "extrapolated"
    for point in document["collective_curves"]:
        if point["measured_us"] is not None and point["total_bytes"] > 65536:
            assert point["measured_us"] == pytest.approx(point["model_us"], rel=0.13)


def test_show_reads_a_profile_file_and_claims_no_measured_points_for_another_profile(
    tmp_path: Path,
) -> None:
    document = json.loads(profile_text(load_profile("a100-sxm")))
    document["overlap_factor"]["value"] = 1.5
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(document))
    shown = printed_json("hardware", "show", str(path))
    assert shown["overlap_factor"]["value"] == 1.5
    curves = shown["attention_curve"] + shown["collective_curves"]
    assert all(point["measured_us"] is None for point in curves)


def test_validate_reports_errors_inside_and_outside_by_bucket() -> None:
    document = printed_json("hardware", "validate", "a100-sxm")
    errors = document["errors"]
    assert {error["inside"] for error in errors} == {True, False}
    assert {error["profile"] for error in errors} == {"a100-sxm"}
    assert {"from 64 tokens", "above 64 KB", "all"} <= {error["bucket"] for error in errors}
    for error in errors:
        assert 0 <= error["p50"] <= error["p90"] <= error["worst"]
        assert abs(error["bias"]) <= error["mean"] + 1e-4


def test_validate_prints_tables_within_80_columns() -> None:
    output = printed("hardware", "validate", "a100-sxm")
    for words in ("inside the sampled range", "outside the sampled range", "bias", "above 64 KB"):
        assert words in output
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("show", "h100"), "did you mean 'h100-sxm'?"),
        (("show", "none.json"), "none.json does not exist"),
        (("show",), "NAME_OR_PATH"),
        (("validate", "b200"), "no measured tables of 'b200'"),
        (("lst",), "lst"),
        (("list", "--jsn"), "--jsn"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refused("hardware", *arguments)


def test_a_broken_profile_file_is_one_line_and_exit_2(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{"format": "flashcp-profile", "version": 9}')
    assert "version is 9, but this program reads 1" in refused("hardware", "show", str(path))


@pytest.mark.parametrize("command", ["list", "show", "validate"])
def test_help_imports_no_model(command: str) -> None:
    code = (
        "import sys; from flashcp_cli.hardware import hardware;"
        f"hardware([{command!r}, '--help'], standalone_mode=False);"
        "print(sorted({'numpy', 'numba', 'rich', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip().endswith("[]")
