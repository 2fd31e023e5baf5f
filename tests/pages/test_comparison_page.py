"""The picture of a fine-tune: its numbers are those of ``--json``, and its words are about them."""

import json
import sys
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from pages.reading import figure, lists_in, read_page, section
from support import copy_custom, rewrite
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.pages.comparison_figures import distribution_figure
from internvl_bridge.pages.comparison_page import comparison_page
from internvl_bridge.pages.html import as_page
from internvl_bridge.pages.page import Made
from internvl_bridge.reporting.tables import number_text
from internvl_bridge.verification.distribution import Distribution
from internvl_bridge.verification.tensor_difference import TensorDifference
from internvl_bridge.verification.tensors import Comparison

MADE = Made("", "", "")


def trained(tensors: dict[str, torch.Tensor]) -> None:
    """Change some tensors of every component but the tower, by more in later layers."""
    generator = torch.Generator().manual_seed(0)
    for key, tensor in tensors.items():
        if not key.startswith("vision_model") and "norm" not in key:
            amount = 0.3 if ".layers.1." in key else 0.01
            noise = amount * torch.randn(tensor.shape, generator=generator)
            tensor.copy_((tensor.float() * (1 + noise)).to(tensor.dtype))


def finetune(tmp_path: Path) -> tuple[Path, Path]:
    left, right = (copy_custom("qwen3moe-6b", tmp_path / name) for name in ("base", "tuned"))
    rewrite(right, trained)
    return left, right


def as_text(value: float | str) -> str:
    return number_text(float(value))


def test_all_numbers_are_those_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    left, right = finetune(tmp_path)
    report = tmp_path / "report.html"
    command = ["verify", str(left), str(right), "--json", "--report", str(report)]
    monkeypatch.setattr(sys, "argv", ["internvl-bridge", *command])
    found: dict[str, Any] = json.loads(CliRunner().invoke(app, command).stdout)["result"]
    page = read_page(report.read_text())
    assert f"internvl-bridge verify {left} {right} --json --report {report}" == page.all("code")[0].text

    [rows] = lists_in(page)
    assert {row["Tensor"]: row["L2"] for row in rows} == found["tensors"]
    for row in rows[: len(found["differences"])]:
        stated = found["differences"][row["Tensor"]]
        assert (row["Relative"], row["Largest"], row["Elements"]) == (
            stated["relative_l2"],
            stated["largest"],
            stated["elements"],
        )
        assert row["From element"] == found["first_differing_element"][row["Tensor"]]
    relative = [row["Relative"] for row in rows]
    assert relative == sorted(relative, reverse=True)

    cells = figure(page, "The language model, layer by layer and group by group")
    groups = ["attention", "router", "experts", "norms, scales"]
    places = {
        (place["group"], place["layer"]): place for place in found["places"] if place["component"] == "language model"
    }
    assert cells == [[f"{n}", *(as_text(places[group, n]["relative_l2"]) for group in groups)] for n in (0, 1)]

    layers = figure(page, "The language model, layer by layer")
    assert layers == [[f"layer {n}", as_text(v)] for n, v in enumerate(found["layers"]["language model"])]

    components, names = section(page, "What changed most").tables()
    assert [row[1:] for row in components[1:]] == [numbers(stated) for stated in found["components"]]
    assert {row[0]: row[1:] for row in names[1:]} == {name: numbers(s) for name, s in found["groups"].items()}

    assert [*found["distributions"]] == ["projector", "language model", "output head"]
    for component, stated in found["distributions"].items():
        rows = figure(page, f"The {component}, element by element")
        counts = [int(text.split(" ")[0].replace(",", "")) for _, text in rows]
        assert [*filter(None, counts)] == [*stated["octaves"].values()]
    assert "The vision tower is untouched: every bit is equal." in page.text
    titles = [image.all("title")[0].text for image in page.all("svg")]
    assert not any(title.startswith("The vision tower") for title in titles)
    bars = dict(figure(page, "By component"))
    assert bars["vision tower: attention"] == "no difference (6 tensors)"
    assert "language model" not in bars


def numbers(stated: dict[str, Any]) -> list[str]:
    measured = [as_text(stated[name]) for name in ("l2", "relative_l2", "largest")]
    return [f"{stated['tensors']}", f"{stated['differing']}", *measured]


def test_the_elements_of_a_distribution_are_those_that_differ(tmp_path: Path):
    left, right = finetune(tmp_path)
    found = internvl_bridge.verify(left, right, distributions=True)
    assert sum(part.elements for part in found.distributions.values()) == sum(d.elements for d in found.differences)
    assert internvl_bridge.verify(left, right).distributions == {}


def test_equal_checkpoints_are_shown_as_compared(tmp_path: Path):
    left = copy_custom("qwen3-300m", tmp_path / "left")
    page = read_page(as_page(comparison_page(internvl_bridge.verify(left, left), "a", "b"), MADE))
    assert page.all("p")[0].attributes["class"] == "verdict is-good"
    titles = [heading.text for heading in page.all("h2")]
    assert titles == ["In short", "What was compared", "All tensors that were compared"]
    assert {row["Relative"] for row in lists_in(page)[0]} == {0.0}
    fills = {cell.attributes["class"] for cell in page.all("rect")}
    assert fills == {"none"}


def difference(key: str, value: float) -> TensorDifference:
    return TensorDifference(key, 0, value, 1.0, value, 4, 8)


def test_what_cannot_be_measured_is_seen():
    layer = "language_model.model.layers"
    found = Comparison(
        missing=("a",),
        unexpected=tuple(f"b{n}" for n in range(300)),
        mismatched={f"{layer}.1.self_attn.q_proj.weight": "BF16 [2] was expected, F32 [2] found", "mlp1.0.bias": "x"},
        differences=(difference(f"{layer}.0.mlp.up_proj.weight", nan), difference("c", 0.5)),
        equal=(f"{layer}.1.mlp.up_proj.weight",),
    )
    page = read_page(as_page(comparison_page(found, "a", "b"), MADE))
    assert page.all("p")[0].attributes["class"] == "verdict is-bad"
    cells = figure(page, "The language model, layer by layer and group by group")
    assert cells == [["0", "", "nan"], ["1", "nan", "0"]]
    assert "The projector: 1 of 1 tensors differ; none of them could be measured." in page.text
    assert lists_in(page)[0][0]["Tensor"] == f"{layer}.0.mlp.up_proj.weight"
    lines = section(page, "What could not be compared")
    assert ["mismatched", "mlp1.0.bias", "x"] in lines.tables()[0]
    assert "and 103 more" in lines.text


@pytest.mark.parametrize(("octave", "name"), [(1023, "8.99e+307 to inf"), (-1023, "below 2.23e-308"), (0, "1 to 2")])
def test_the_largest_and_the_smallest_differences(octave: int, name: str):
    chart = distribution_figure("projector", Distribution(0, {octave: 2}, 1), range(octave, octave + 1))
    assert chart.names == (name,)
    assert chart.texts == ("2 (66.67%)",)
    assert "For 1 elements, the difference is infinite or NaN" in chart.text


def test_single_tensors_of_no_layer():
    found = Comparison((), (), {}, (difference("a", 0.5),), ("b",))
    page = read_page(as_page(comparison_page(found, "a", "b"), MADE))
    assert [image.all("title")[0].text for image in page.all("svg")] == ["By component"]
    assert "The other tensors: 1 of 2 tensors differ, by a relative distance of 0.5." in page.text
    nothing = Comparison(("a",), (), {}, (), ())
    page = read_page(as_page(comparison_page(nothing, "a", "b"), MADE))
    assert "Different: no tensor could be compared" in page.text
    assert lists_in(page) == [[]]


def test_powers_of_ten_stand_where_they_are():
    chart = distribution_figure("projector", Distribution(50, {-10: 25, -1: 25}, 0), range(-10, 4))
    assert chart.values[0] == 25.0
    for middle, word in chart.ticks.items():
        assert 2.0 ** (-10 + middle + 0.5) == pytest.approx(float(word))
    assert [*chart.ticks.values()] == ["0.001", "0.01", "0.1", "1", "10"]
    narrow = distribution_figure("projector", Distribution(0, {-6: 1}, 0), range(-6, -5))
    assert narrow.ticks == {-0.5: "0.0156"}


def test_only_differences_that_are_not_finite():
    found = replace(
        Comparison((), (), {}, (difference("a", nan),), ()), distributions={"other tensors": Distribution(3, {}, 1)}
    )
    page = read_page(as_page(comparison_page(found, "a", "b"), MADE))
    assert [image.all("title")[0].text for image in page.all("svg")] == ["By component"]


def test_values_are_not_bits(tmp_path: Path):
    left = copy_custom("qwen3-300m", tmp_path / "left")
    found = internvl_bridge.verify(left, left, ignore_dtype=True)
    assert "Every value is equal." in read_page(as_page(comparison_page(found, "a", "b"), MADE)).text
