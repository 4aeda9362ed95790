import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from costmodel import load_profile
from costmodel.calibrated import calibrated_profile
from costmodel.calibrated_points import TransferPoint
from costmodel.profile_file import bundled_profiles, profile_text, write_profile
from tests.costmodel.calibration_points import all_points, conditions


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


@pytest.mark.parametrize("columns", [20, 40, 60])
@pytest.mark.parametrize("words", ["list", "show h100-sxm", "validate a100-sxm"])
def test_no_terminal_is_too_narrow_for_a_word_or_a_number(words: str, columns: int) -> None:
    output = flashcp("hardware", *words.split(), columns=columns).stdout
    assert "…" not in output
    if words == "list":
        for name in bundled_profiles():
            assert f"\n {name} " in output


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


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibrated") / "mine.json"
    made = calibrated_profile("mine", conditions(), all_points(), load_profile("h100-sxm"))
    write_profile(made, path)
    return path


def test_show_draws_a_calibrations_points_over_its_fit_within_80_columns(calibrated: Path) -> None:
    output = printed("hardware", "show", str(calibrated))
    for words in ("Measured calls, forward, head size 128", "GFLOP", "◆", "send_recv over 2"):
        assert words in output
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output
    shown = printed_json("hardware", "show", str(calibrated))
    assert len(shown["attention_calls"]) == 120
    for call in shown["attention_calls"]:
        assert call["model_us"] == pytest.approx(call["measured_us"], rel=0.15)
    sizes = [p for p in shown["collective_curves"] if p["collective"] == "all_gather"]
    assert all(point["measured_us"] is not None for point in sizes)


def test_uneven_parts_and_groups_across_nodes_are_drawn_as_well(tmp_path: Path) -> None:
    across = [
        replace(point, ranks=4, ranks_per_node=2, us=2 * point.us)
        for point in all_points()
        if isinstance(point, TransferPoint)
    ]
    made = calibrated_profile(
        "two", conditions(), [*all_points(), *across], load_profile("h100-sxm")
    )
    path = tmp_path / "two.json"
    write_profile(made, path)
    output = printed("hardware", "show", str(path))
    titles = [
        f"{name} over {group}, {rate} over S"
        for group in ("2 ranks", "4 ranks, 2 a node")
        for name, rate in (("all_to_all_v", "sent"), ("all_gather", "bus bandwidth"))
    ]
    for words in (*titles, "4 (2)", "reduce_scatter "):
        assert words in output
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output
    curves = printed_json("hardware", "show", str(path))["collective_curves"]
    assert all(point["measured_us"] is not None for point in curves)
    assert {(p["ranks"], p["ranks_per_node"]) for p in curves} == {(2, 2), (4, 2)}
    printed("hardware", "show", str(path), "--html", str(tmp_path / "page.html"))
    assert "all_to_all_v over 4 ranks, 2 a node" in (tmp_path / "page.html").read_text()


def test_html_is_one_page_that_needs_nothing_else(calibrated: Path, tmp_path: Path) -> None:
    for profile in (str(calibrated), "h100-sxm"):
        page = tmp_path / "page.html"
        printed("hardware", "show", profile, "--html", str(page))
        text = page.read_text()
        assert "<svg" in text
        assert "left out of the fit" in text
        assert not re.search(r"(src|href)=\"(https?:)?//", text)
        assert "<script" not in text
        assert list(tmp_path.iterdir()) == [page]


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "none" / "p.html"
    assert "is not a folder" in refused("hardware", "show", "h100-sxm", "--html", str(missing))


def run_results(**changed: Any) -> dict[str, Any]:
    def rank(measured: float, predicted: float) -> dict[str, Any]:
        return {
            "measured_us": {"forward": measured, "backward": 2 * measured, "total": 4 * measured},
            "predicted_us": {
                "forward": predicted,
                "backward": 2 * predicted,
                "total": 4 * predicted,
            },
        }

    plan = {"measured_us": 400.0, "predicted_us": 440.0, "ranks": [rank(100, 110), rank(80, 76)]}
    return {"hardware": "mine", "comparable": True, "plans": {"per-doc": plan}} | changed


def test_runs_are_held_against_their_predictions(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(run_results()))
    found = {
        (e["what"], e["bucket"]): e
        for e in printed_json("hardware", "validate", "--against", str(path))["errors"]
    }
    assert found["plans, slowest rank", "all"]["bias"] == pytest.approx(0.1)
    assert found["ranks", "forward"]["mean"] == pytest.approx((0.1 + 0.05) / 2)
    # Measured shares 1.111 and 0.889, predicted 1.183 and 0.817.
    shares = found["ranks' shares of attention", "all"]
    assert shares["worst"] == pytest.approx(0.0806, abs=2e-4)
    path.write_text(json.dumps(run_results(comparable=False)))
    only = printed_json("hardware", "validate", "--against", str(path))["errors"]
    assert {e["what"] for e in only} == {"ranks' shares of attention"}


def test_results_of_another_profile_or_of_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(run_results()))
    line = refused("hardware", "validate", "h100-sxm", "--against", str(path))
    assert "were predicted with mine, not h100-sxm; run again with --hardware h100-sxm" in line
    path.write_text("{}")
    assert "hardware is missing" in refused("hardware", "validate", "--against", str(path))
    path.write_text(json.dumps(run_results(plans={})))
    assert "plans is empty" in refused("hardware", "validate", "--against", str(path))


def test_a_profile_without_points_has_nothing_to_validate_against(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(profile_text(load_profile("a100-sxm")))
    assert "no measured points" in refused("hardware", "validate", str(path))


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
