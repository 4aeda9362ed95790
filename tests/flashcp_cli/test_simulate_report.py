"""The report page: self-contained, drawn by a real browser without a complaint, its plots saved."""

import re
import shutil
import subprocess
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings

from flashcp.exchange import Exchange
from flashcp.simulation.matrix import exchange_matrix
from flashcp.strategies import shard
from flashcp_cli.main import cli
from tests.flashcp.packs import cp_degrees, lengths

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WORDS = ["papers", "--packs", "4", "--processes", "1", "--context", "8k,16k", "--cp", "2,4",
         "--strategy", "ring,per-seq,flashcp", "--picture", "0,2"]  # fmt: skip
PLOTS = ["across_cp", "across_window", "breakdown", "imbalance", "matrix", "moved", "shards",
         "timeline"]  # fmt: skip
# Sorts the table, changes every choice, and leaves what it saw in the page's attributes.
EXERCISE = """
<script>
addEventListener("load", async () => {
  while (!document.body.dataset.drawn) await new Promise((done) => setTimeout(done, 20));
  const seen = document.body.dataset;
  seen.plots = document.querySelectorAll(".chart svg.marks").length;
  seen.marks = document.querySelectorAll("#shards .mark-rect path").length;
  seen.wide = document.documentElement.scrollWidth - window.innerWidth;
  const heading = [...document.querySelectorAll("#rows th")].findIndex((h) => h.textContent === "ms a layer");
  const times = () => [...document.querySelectorAll("#rows tbody tr")].map((r) => Number(r.cells[heading].dataset.value));
  const ordered = (sign) => times().every((t, i, all) => i === 0 || sign * (t - all[i - 1]) >= 0);
  const button = document.querySelectorAll("#rows th button")[heading];
  button.click();
  const up = ordered(1);
  button.click();
  seen.sorted = String(up && ordered(-1) && times().length === 12);
  const sharding = document.getElementById("shards").innerHTML;
  for (const select of document.querySelectorAll(".controls select")) {
    select.selectedIndex = select.options.length - 1 === select.selectedIndex ? 0 : select.options.length - 1;
    select.dispatchEvent(new Event("change"));
  }
  await new Promise((done) => setTimeout(done, 500));
  seen.changed = String(document.getElementById("shards").innerHTML !== sharding);
  seen.exports = document.querySelectorAll(".vega-actions a[download]").length;
  seen.done = "yes";
});
</script>
"""  # noqa: E501 - the page's language


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    words = ["simulate", *WORDS, "--html", folder / "page.html", "--plots", folder / "plots"]
    result = CliRunner().invoke(cli, list(map(str, words)), prog_name="flashcp")
    assert result.exit_code == 0, result.output
    return folder


def without_scripts(text):
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_the_page_needs_nothing_but_itself(report):
    text = (report / "page.html").read_text(encoding="utf-8")
    shell = without_scripts(text)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", shell)
    assert "url(" not in shell
    assert "@import" not in shell
    assert "default-src 'none'" in shell
    assert len(text) < 3e6


def test_the_table_is_there_without_a_script(report):
    text = without_scripts((report / "page.html").read_text(encoding="utf-8"))
    assert text.count("<tr>") == 1 + 4 * 3
    assert "is best" in text
    assert "per-seq" in text


def test_a_best_baseline_is_not_compared_with_itself(tmp_path):
    # Two halves in two windows: in sequence they need no exchange and no copies.
    words = ["simulate", "fixed:length=8192", "--packs", "1", "--context", "16k", "--cp", "2",
             "--strategy", "per-doc,per-seq", "--processes", "1",
             "--html", str(tmp_path / "page.html")]  # fmt: skip
    result = CliRunner().invoke(cli, words, prog_name="flashcp")
    assert result.exit_code == 0, result.output
    text = without_scripts((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert re.search(r"per-seq is best\. Why: [\d.]+ ms before per-doc", text)


def test_every_plot_is_saved_as_svg_and_png(report):
    assert sorted(p.name for p in (report / "plots").iterdir()) == sorted(
        f"{name}.{suffix}" for name in PLOTS for suffix in ("png", "svg")
    )
    for name in PLOTS:
        root = ET.parse(report / "plots" / f"{name}.svg").getroot()  # noqa: S314 - ours
        assert len(root.findall(".//{*}path")) > 3, name
        assert (report / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1200, 500])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_it_without_a_complaint(report, tmp_path, width, scheme):
    page = tmp_path / "page.html"
    text = (report / "page.html").read_text(encoding="utf-8")
    before, after = text.rsplit("</body>", 1)  # the library holds one of its own
    page.write_text(f"{before}{EXERCISE}</body>{after}", encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
         f"--window-size={width},900", "--virtual-time-budget=30000", "--dump-dom",
         f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
         page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    body = re.search(r"<body[^>]*>", done.stdout)
    assert body, done.stderr
    seen = dict(re.findall(r'data-(\w+)="([^"]*)"', body[0]))
    assert seen.get("done") == "yes", done.stderr
    assert int(seen["plots"]) == len(PLOTS)
    assert int(seen["marks"]) >= 2
    assert int(seen["wide"]) <= 0  # nothing sticks out; wide tables scroll in their own box
    assert seen["sorted"] == "true"
    assert seen["changed"] == "true"
    assert int(seen["exports"]) == 2 * len(PLOTS)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []


def test_a_report_without_its_library_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    words = ["simulate", "papers", "--html", str(tmp_path / "page.html")]
    result = CliRunner().invoke(cli, words, prog_name="flashcp")
    assert result.exit_code == 2
    assert "pip install 'flashcp[report]'" in result.output


@given(pack=lengths(10), cp=cp_degrees(9))
@settings(max_examples=30, deadline=None)
def test_the_exchange_matrix_adds_up_to_what_plans_move(pack, cp):
    from dataclasses import replace

    for strategy in ("ring", "per-doc", "flashcp"):
        plan = shard(pack, cp, strategy)
        matrix = exchange_matrix(plan)
        assert not matrix.diagonal().any()
        if strategy == "ring" and cp > 1:
            received = plan.context_tokens - plan.rank_tokens
            np.testing.assert_array_equal(matrix.sum(axis=0), received)
            continue
        needed = replace(plan, exchange=Exchange.ALL_TO_ALL_NEEDED)
        matrix = exchange_matrix(needed)
        sent, received = needed.needed_tokens
        np.testing.assert_array_equal(matrix.sum(axis=1), sent)
        np.testing.assert_array_equal(matrix.sum(axis=0), received)
