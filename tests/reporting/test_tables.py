"""What reports are made of, and how a notebook shows it."""

from collections.abc import Callable
from html import escape
from math import inf, nan
from pathlib import Path

from support import DATA

import internvl_bridge
from internvl_bridge.reporting.tables import PLAIN_BARS, Facts, Table, as_html, bars, number_text


def test_bars_are_as_high_as_their_numbers():
    assert bars([0.0, 1e-9, 0.5, 1.0, nan]) == "\u00b7\u2581\u2585\u2588?"
    assert bars([]) == ""
    assert bars([0.0, inf, 1.0]) == "\u00b7\u2588\u2588"
    assert bars([0.0, 1e-9, 0.5, 1.0]).translate(PLAIN_BARS).isascii()


def test_numbers_have_three_digits():
    assert [number_text(value) for value in (0.0, 1234.5, 1.23456e-7, inf, nan)] == [
        "0",
        "1.23e+03",
        "1.23e-07",
        "inf",
        "nan",
    ]


def test_html_shows_names_of_strangers_as_text():
    table = Table(("Tensor", "L2"), "lr", (("  <b>&", "1"),))
    html = as_html(["a < b", Facts({"Path": "<script>"}), table])
    assert "<p>a &lt; b</p>" in html
    assert "<tr><th>Path</th><td>&lt;script&gt;</td></tr>" in html
    assert '<td style="text-align: left">&nbsp;&nbsp;&lt;b&gt;&amp;</td><td style="text-align: right">1</td>' in html


def test_every_report_is_a_table_in_a_notebook(custom: Callable[[str], Path], tmp_path: Path):
    source = custom("qwen2-300m")
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    adapter = DATA / "adapters" / "custom" / "qwen2-300m-rslora"
    reports = [
        report,
        internvl_bridge.inspect(source),
        internvl_bridge.inspect_adapter(adapter, base=source),
        internvl_bridge.verify(source, tmp_path / "hf"),
        internvl_bridge.verify_checksums(tmp_path / "hf"),
        internvl_bridge.verify_adapters(adapter, adapter, base=source),
        internvl_bridge.diagnose(tmp_path / "hf"),
        internvl_bridge.check_load(tmp_path / "hf", meta=True),
    ]
    for found in reports:
        html = found._repr_html_()
        assert html.startswith("<")
        assert html.count("<table>") == html.count("</table>")
        assert html.count("<tr>") == html.count("</tr>")
    assert '<td style="text-align: left">vision tower</td>' in internvl_bridge.inspect(source)._repr_html_()


def test_a_notebook_shows_the_warnings_that_a_terminal_has_shown_before(tmp_path: Path):
    report = internvl_bridge.repair(DATA / "hf" / "qwen3-300m-tied@5.4.0", tmp_path / "repaired")
    assert report.warnings
    assert all(escape(warning) in report._repr_html_() for warning in report.warnings)
