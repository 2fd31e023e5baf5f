"""What a person sees of a report: in a real browser, without a network."""

import shutil
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from pages.test_pages import EVIL, MADE, page
from playwright.sync_api import Browser, Page, expect
from safetensors.torch import load_file, save_file
from synthetic import PRESETS, make

import internvl_bridge
from internvl_bridge.pages.drawing.shapes import WIDTH
from internvl_bridge.pages.html import as_page
from internvl_bridge.pages.page import Page as Report
from internvl_bridge.pages.page import Section
from internvl_bridge.pages.tensor_list import Column, TensorList, TensorRow
from internvl_bridge.reporting.tables import number_text

SCHEMES = ["light", "dark"]
REPORTS = ["finetune", "conversion"]


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the reports of a fine-tune and of a conversion, as pages and pictures."""
    home = tmp_path_factory.mktemp("reports")
    make(home / "base", PRESETS["tiny"])
    shutil.copytree(home / "base", home / "tuned")
    for path in (home / "tuned").glob("*.safetensors"):
        tensors = load_file(path)
        for key, tensor in tensors.items():
            if ".layers.2." in key or key.startswith("mlp1"):
                tensor.copy_((tensor.float() * (1 + 0.1 * torch.rand(tensor.shape))).to(tensor.dtype))
        save_file(tensors, path, metadata={"format": "pt"})
    found = internvl_bridge.verify(home / "base", home / "tuned", distributions=True)
    done = internvl_bridge.to_hf(home / "base", home / "hf")
    for suffix in ("html", "svg"):
        internvl_bridge.save_report(found, home / f"finetune.{suffix}", left="base", right="tuned")
        internvl_bridge.save_report(done, home / f"conversion.{suffix}")
    return home


def opened(browser: Browser, path: Path, **settings: Any) -> Page:
    """A page that has asked for no other file and has met no error."""
    seen = browser.new_page(**settings)
    seen.set_default_timeout(5_000)
    asked: list[str] = []
    told: list[str] = []
    seen.on("request", lambda request: asked.append(request.url))
    seen.on("console", lambda message: told.append(message.text))
    seen.on("pageerror", lambda error: told.append(str(error)))
    seen.on("dialog", lambda dialog: told.append(dialog.message))
    seen.goto(path.as_uri())
    assert asked == [path.as_uri()]
    assert told == []
    return seen


def names(seen: Page) -> list[str]:
    """The keys that the list of tensors shows."""
    return seen.locator(".tensor-list tbody th").all_inner_texts()


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [360, 1280])
def test_a_page_fits_any_window_in_both_colour_schemes(
    report: str, scheme: str, width: int, browser: Browser, reports: Path
):
    seen = opened(browser, reports / f"{report}.html", color_scheme=scheme, viewport={"width": width, "height": 800})
    assert seen.evaluate("document.documentElement.scrollWidth") <= width
    paper = seen.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is (scheme == "light")
    cell = seen.evaluate("getComputedStyle(document.querySelector('svg rect')).fill")
    assert cell not in {paper, "rgb(0, 0, 0)"}
    expect(seen.locator("h1")).to_be_in_viewport()
    expect(seen.locator("#verdict")).to_be_in_viewport()


@pytest.mark.parametrize("report", [f"{report}.{suffix}" for report in REPORTS for suffix in ("html", "svg")])
def test_no_word_of_a_figure_hides_another(report: str, browser: Browser, reports: Path):
    seen = opened(browser, reports / report, viewport={"width": 1280, "height": 800})
    for drawing in seen.locator("svg").all():
        paper = drawing.bounding_box()
        assert paper is not None
        boxes = drawing.evaluate(
            "svg => [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect().toJSON()])"
        )
        assert boxes
        for text, box in boxes:
            assert box["left"] >= paper["x"] - 1, text
            assert box["right"] <= paper["x"] + paper["width"] + 1, text
        for (one, left), (other, right) in combinations(boxes, 2):
            across = min(left["right"], right["right"]) - max(left["left"], right["left"])
            down = min(left["bottom"], right["bottom"]) - max(left["top"], right["top"])
            assert across <= 1 or down <= 5, (one, other)


def test_the_layer_that_was_trained_stands_out(browser: Browser, reports: Path):
    seen = opened(browser, reports / "finetune.html")
    title = "The language model, layer by layer and group by group"
    cells = seen.get_by_role("img", name=title).locator("rect:has(title)")
    shades = {cell.locator("title").text_content(): cell.get_attribute("class") for cell in cells.all()}
    assert {name for name, shade in shades.items() if shade != "none"} == {
        name for name in shades if name and name.startswith("layer 2, ")
    }
    expect(seen.get_by_text("The vision tower", exact=False).first).to_be_visible()
    seen.locator("summary").first.click()
    expect(seen.locator("details table").first).to_be_visible()


def test_tensors_are_searched_chosen_and_sorted(browser: Browser, reports: Path):
    seen = opened(browser, reports / "conversion.html")
    status = seen.get_by_role("status")
    every = status.inner_text()
    search = seen.get_by_role("searchbox")
    search.fill("layer.1. Q_PROJ")
    expect(status).to_have_text(f"2 of {every.split(' ')[2]} tensors")
    assert names(seen) == [f"vision_tower.encoder.layer.1.attention.q_proj.{part}" for part in ("bias", "weight")]
    expect(seen.locator(".tensor-list tbody td").first).to_have_text(
        "vision_model.encoder.layers.1.attn.qkv.bias[0:64]"
    )
    search.fill("")
    seen.get_by_label("How", exact=True).select_option("split")
    assert all("attention" in name for name in names(seen))
    seen.get_by_label("How", exact=True).select_option("all")
    assert status.inner_text() == every
    size = seen.get_by_role("button", name="Size")
    size.click()
    expect(seen.locator("th[aria-sort=descending]")).to_have_text("Size")
    assert names(seen)[0] in {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"}
    size.click()
    expect(seen.locator("th[aria-sort=ascending]")).to_have_text("Size")


def test_a_group_of_tensors_is_shown(browser: Browser, reports: Path):
    seen = opened(browser, reports / "conversion.html")
    group = seen.locator("tr", has_text="mlp.up_proj").first
    group.get_by_role("button").click()
    expect(seen.get_by_role("searchbox")).to_be_focused()
    assert names(seen) == [f"language_model.model.layers.{n}.mlp.up_proj.weight" for n in range(3)]
    seen.get_by_role("button", name="show all groups").click()
    assert len(names(seen)) > 3
    expect(seen.get_by_role("searchbox")).to_be_focused()


def test_numbers_are_written_as_everywhere_else(browser: Browser, tmp_path: Path):
    values = [0.0, 1.0, 2.0**-5, 0.0012345, 9.999e-5, 99.95, 999.4, 999.6, 1234.5, 1.5e300, 5e-324, 1.125, 0.1, 3.125]
    values += [float("nan"), float("inf")]
    rows = tuple(TensorRow(f"t{n}", (value,)) for n, value in enumerate(values))
    shown = TensorList("tensors", (Column("Value", "measure"),), rows)
    (tmp_path / "page.html").write_text(as_page(Report("t", "v", "good", (Section("s", (shown,)),)), MADE))
    seen = opened(browser, tmp_path / "page.html")
    assert seen.locator(".tensor-list td").all_inner_texts() == [*map(number_text, values)]


def test_what_is_odd_comes_first(browser: Browser, tmp_path: Path):
    values: list[float | str] = [0.5, float("nan"), "", 2.0]
    rows = tuple(TensorRow(f"t{n}", (value,)) for n, value in enumerate(values))
    shown = TensorList("tensors", (Column("Value", "measure"),), rows)
    (tmp_path / "page.html").write_text(as_page(Report("t", "v", "good", (Section("s", (shown,)),)), MADE))
    seen = opened(browser, tmp_path / "page.html")
    seen.get_by_role("button", name="Value").click()
    assert names(seen) == ["t1", "t3", "t0", "t2"]


def test_a_page_can_be_read_without_its_script(browser: Browser, reports: Path):
    seen = opened(browser, reports / "conversion.html", java_script_enabled=False)
    expect(seen.get_by_text("Searching single tensors needs JavaScript.")).to_be_visible()
    expect(seen.get_by_role("cell", name="vision_model.encoder.layers.*.attn.qkv.weight[0:64]")).to_be_visible()
    assert seen.get_by_role("button", name="Show ").count() == 0


def test_keys_reach_everything(browser: Browser, reports: Path):
    seen = opened(browser, reports / "conversion.html")
    seen.keyboard.press("Tab")
    expect(seen.get_by_text("Skip to the content")).to_be_focused()
    expect(seen.get_by_text("Skip to the content")).to_be_in_viewport()
    for element in seen.locator("[role=img], [role=group]").all():
        assert element.get_attribute("aria-label") or element.get_attribute("aria-labelledby")


def test_names_of_strangers_do_nothing(browser: Browser, tmp_path: Path):
    (tmp_path / "page.html").write_text(as_page(page(EVIL), MADE))
    seen = opened(browser, tmp_path / "page.html")
    assert seen.locator("img").count() == 0
    seen.get_by_role("searchbox").fill("onerror")
    assert len(names(seen)) == 1


def test_a_model_of_many_tensors_can_be_searched(browser: Browser, tmp_path: Path):
    make(tmp_path / "many", PRESETS["many"])
    report = internvl_bridge.to_hf(tmp_path / "many", tmp_path / "hf")
    start = time.perf_counter()
    internvl_bridge.save_report(report, tmp_path / "page.html")
    print(f"saved in {time.perf_counter() - start:.2f} s, {(tmp_path / 'page.html').stat().st_size:,} bytes")
    start = time.perf_counter()
    seen = opened(browser, tmp_path / "page.html")
    expect(seen.get_by_role("status")).to_have_text("37,630 of 37,630 tensors, the first 100 are listed")
    print(f"opened in {time.perf_counter() - start:.2f} s")
    assert len(names(seen)) == 100
    seen.get_by_role("button", name="Show more").click()
    assert len(names(seen)) == 600
    start = time.perf_counter()
    seen.get_by_role("searchbox").fill("layers.93.mlp.experts.127. up")
    expect(seen.get_by_role("status")).to_have_text("1 of 37,630 tensors")
    print(f"searched in {time.perf_counter() - start:.2f} s")
    assert names(seen) == ["language_model.model.layers.93.mlp.experts.127.up_proj.weight"]


def test_a_picture_opens_alone(browser: Browser, reports: Path):
    seen = opened(browser, reports / "finetune.svg")
    assert seen.evaluate("document.documentElement.localName") == "svg"
    assert seen.evaluate("document.documentElement.viewBox.baseVal.width") == WIDTH + 48
    paper = seen.evaluate("getComputedStyle(document.querySelector('.background')).fill")
    assert paper == "rgb(255, 255, 255)"
