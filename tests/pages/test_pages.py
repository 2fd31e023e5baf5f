"""A page shows names of strangers as text; a picture is XML that any program draws."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from pages.reading import lists_in, read_page
from support import ROOT
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli import comparing
from internvl_bridge.cli.app import app
from internvl_bridge.errors import BridgeError
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.pages import saving
from internvl_bridge.pages.figures import Bar, BarChart, ColumnChart, HeatMap, Panel, Segment
from internvl_bridge.pages.html import as_page
from internvl_bridge.pages.page import Made, Page, Section, joined
from internvl_bridge.pages.palette import DARK, LIGHT
from internvl_bridge.pages.picture import as_picture
from internvl_bridge.pages.saving import check_report_place, save
from internvl_bridge.pages.tensor_list import Column, Size, TensorList, TensorRow
from internvl_bridge.reporting.tables import Facts, Table
from internvl_bridge.verification.checksums import ChecksumReport

EVIL = "</script></title><img src=x onerror=alert(1)>&quot;'\"\x1b\u202e\u2028]]>"
SEEN = EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\u2028", "\\u2028")
MADE = Made(EVIL, EVIL, EVIL)


def page(text: str) -> Page:
    """A page that has ``text`` wherever a text can be."""
    bar = Bar(text, (Segment(text, 1.0, text),), text)
    row = TensorRow(text, (text, Size(5, text)))
    parts = (
        text,
        Facts({text: text}),
        Table((text, text), "lr", ((text, text), (f"  {text}", text))),
        HeatMap(text, text, (text,), ((1.0, 0.0),), text, text),
        ColumnChart(text, text, (text,), (1.0,), (text,), {0: text}, text, text, 0),
        BarChart(text, text, (Panel(text, (bar,)),), {text: 0, "other": 1}),
        TensorList(text, (Column(text, "choice"), Column("size", "size", is_shared=True)), (row,)),
    )
    return Page(text, text, "good", (Section(text, parts), Section(text, ())))


def test_a_page_shows_names_of_strangers_as_text():
    found = read_page(as_page(page(EVIL), MADE))
    assert found.all("img") == []
    assert found.all("h1")[0].text == SEEN
    assert [term.text for term in found.all("dt")] == [SEEN]
    assert [row["Tensor"] for rows in lists_in(found) for row in rows] == [SEEN]
    assert found.all("code")[0].text == SEEN
    assert found.all("desc") == []


def test_a_picture_shows_names_of_strangers_as_text():
    picture = ET.fromstring(as_picture(page(EVIL), MADE).encode())  # noqa: S314 (ours)
    space = "{http://www.w3.org/2000/svg}"
    assert picture.find(f"{space}title").text == SEEN  # type: ignore[union-attr]
    names = {element.tag.removeprefix(space) for element in picture.iter()} - {ET.Comment}
    assert names <= {"svg", "title", "desc", "style", "rect", "text", "g"}
    titles = [group.find(f"{space}text").text for group in picture.iter(f"{space}g")]  # type: ignore[union-attr]
    assert len(titles) == 3
    assert all(title and title.startswith(SEEN[:40]) for title in titles)


def test_a_picture_states_its_colours_plainly():
    text = as_picture(page("x"), MADE)
    assert "var(" not in text
    assert "@media" not in text
    assert f".h8{{fill:{LIGHT['h8']}}}" in text


def contrast(one: str, other: str) -> float:
    """As https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio has it."""

    def luminance(color: str) -> float:
        parts = (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_told_from_their_paper(palette: dict[str, str]):
    for name in ("text", "quiet", "link", "good", "notice", "bad"):
        assert contrast(palette[name], palette["background"]) >= 4.5, name
        assert contrast(palette[name], palette["raised"]) >= 4.5, name
    for place in range(5):
        assert contrast(palette[f"s{place}"], palette["background"]) >= 3.0, place
    shades = [contrast(palette[f"h{place}"], palette["background"]) for place in range(9)]
    assert shades == sorted(shades)
    assert LIGHT.keys() == DARK.keys()


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path):
    place = tmp_path / "report.html"
    size = save(page("first"), place, "x")
    assert place.stat().st_size == size
    save(page("second"), place, "x")
    assert "second" in place.read_text()
    for other, contents in (("notes.html", "<title>internvl-bridge</title>"), ("empty.html", "")):
        (tmp_path / other).write_text(contents)
        with pytest.raises(BridgeError, match="is not a report of this program"):
            save(page("third"), tmp_path / other)
        assert (tmp_path / other).read_text() == contents
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.html", "notes.html", "report.html"]


@pytest.mark.parametrize("stated", ["9" * 30, "-1", "tomorrow"])
def test_a_date_that_no_calendar_has(stated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", stated)
    save(page("x"), tmp_path / "report.HTML")
    assert " on 20" in (tmp_path / "report.HTML").read_text()


@pytest.mark.parametrize(
    ("name", "output", "reason"),
    [
        ("report", None, "neither a page nor a picture"),
        ("report.pdf", None, "neither a page nor a picture"),
        ("nowhere/report.html", None, "mkdir -p"),
        ("directory.html", None, "is not a report of this program"),
        ("out/report.svg", "out", "for instance as .*out-report.svg"),
        ("out/deep/report.svg", "out", "would be in .*out"),
        ("out.html", "out.html", "would be in"),
        ("made/report.html", None, "would be in .*made"),
        (f"{'n' * 300}.html", None, "File name too long"),
        ("a\0.html", None, "neither a page"),
        ("loop.html", None, "is not a report of this program"),
        ("report.html", "/", "would be in /"),
        ("link/report.svg", "out", "would be in .*out"),
    ],
)
def test_places_where_no_report_is_saved(name: str, output: str | None, reason: str, tmp_path: Path):
    (tmp_path / "directory.html").mkdir()
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "loop.html").symlink_to("loop.html")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / SIDECAR_FILE).touch()
    with pytest.raises(BridgeError, match=reason):
        check_report_place(tmp_path / name, None if output is None else tmp_path / output)


def test_places_near_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    check_report_place(Path("out/../report.html"), Path("out"))
    check_report_place(Path("out.html"), Path("out"))
    with pytest.raises(BridgeError, match="would be in"):
        check_report_place(Path("report.html"), Path())


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(BridgeError, match=r"report\.html: No space left on device\. Everything else is done"):
        save(page("x"), tmp_path / "report.html")
    assert [*tmp_path.iterdir()] == []


def test_a_directory_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", failing)
    with pytest.raises(BridgeError, match=r"report\.html: Read-only file system"):
        check_report_place(tmp_path / "report.html")


def test_who_interrupts_learns_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupting(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "write_bytes", interrupting)
    monkeypatch.setattr(comparing, "verify_checksums", lambda *_, **__: ChecksumReport("x", (), (), (), (), ()))
    command = ["verify", "--checksums", str(tmp_path), "--report", str(tmp_path / "report.html")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 130
    assert "Only the report is missing: everything else is done." in result.stderr
    assert [*tmp_path.iterdir()] == []


def test_a_picture_without_figures_has_the_verdict(tmp_path: Path):
    save(Page("t", "verdict", "good", ()), tmp_path / "report.svg")
    picture = ET.parse(tmp_path / "report.svg").getroot()  # noqa: S314 (ours)
    assert [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")] == ["t", "verdict"]
    assert float(picture.attrib["height"]) > 60


def test_the_date_can_be_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    save(page("x"), tmp_path / "report.html")
    assert " on 1970-01-01." in (tmp_path / "report.html").read_text()


def test_the_gallery_is_made_by_this_code():
    script = (ROOT / "internvl_bridge" / "pages" / "templates" / "page.js").read_text()
    mark = f'content="internvl-bridge {internvl_bridge.__version__}"'
    pages = [path.read_text() for path in sorted((ROOT / "docs" / "gallery").glob("*.html"))]
    assert pages
    assert all(script in text and mark in text for text in pages), "run 'make gallery'"


def test_a_page_of_several_outputs_is_as_bad_as_the_worst():
    pages = {name: Page("t", f"{name}.", name, (Section("In short", ()),)) for name in ("good", "bad", "notice")}
    both = joined("title", pages)
    assert (both.state, both.verdict) == ("bad", "The good: good. The bad: bad. The notice: notice.")
    assert both.sections[1].title == "The bad: in short"
