"""Read a page as a browser does: its elements, its texts, and what its lists hold."""

import json
import re
from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "br", "input", "wbr", "link"}


@dataclass
class Element:
    """An element of a page."""

    name: str
    attributes: dict[str, str | None]
    children: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, name: str) -> list["Element"]:
        """The elements of this name in it, in their order."""
        found = [self] if self.name == name else []
        return found + [e for child in self.children if isinstance(child, Element) for e in child.all(name)]

    def tables(self) -> list[list[list[str]]]:
        """The rows of all tables in it, each with the texts of its cells."""
        return [[[cell.text for cell in _cells(row)] for row in table.all("tr")] for table in self.all("table")]


def _cells(row: Element) -> list[Element]:
    return [child for child in row.children if isinstance(child, Element)]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("page", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(text: str) -> Element:
    """The page ``text``, which is well formed, loads nothing, and can be read without seeing it."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    page = parser.root
    assert parser.open == [page]
    _check_loads_nothing(page)
    _check_accessible(page)
    return page


def _check_loads_nothing(page: Element) -> None:
    [policy] = [meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes]
    allowed = dict(part.strip().split(" ", 1) for part in (policy or "").split(";"))
    assert allowed["default-src"] == "'none'"
    [style], [script] = page.all("style"), [s for s in page.all("script") if "type" not in s.attributes]
    for name, element in (("style-src", style), ("script-src", script)):
        assert allowed[name] == f"'sha256-{b64encode(sha256(element.text.encode()).digest()).decode()}'"
    everything = [page, *_below(page)]
    assert not any({"src", "style", "srcset", "onclick"} & element.attributes.keys() for element in everything)
    assert all((element.attributes.get("href") or "#").startswith("#") for element in everything)
    assert not re.search(r"url\(|@import", style.text)


def _check_accessible(page: Element) -> None:
    everything = _below(page)
    ids = [element.attributes["id"] for element in everything if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in everything:
        for name in ("aria-labelledby", "aria-describedby"):
            assert (element.attributes.get(name) or ids[0]) in ids
        assert (element.attributes.get("href") or f"#{ids[0]}")[1:] in ids
    assert page.all("html")[0].attributes["lang"] == "en"
    [heading], title = page.all("h1"), page.all("head")[0].all("title")[0]
    assert heading.text == title.text
    for image in page.all("svg"):
        assert image.attributes["role"] == "img"
    for header in (cell for table in page.all("thead") for cell in table.all("th")):
        assert header.attributes["scope"] == "col"


def _below(element: Element) -> list[Element]:
    some = [child for child in element.children if isinstance(child, Element)]
    return some + [below for child in some for below in _below(child)]


def section(page: Element, title: str) -> Element:
    """The section with this title."""
    [found] = [part for part in page.all("section") if part.all("h2")[0].text == title]
    return found


def figure(page: Element, title: str) -> list[list[str]]:
    """The numbers of a figure, without their header."""
    [found] = [part for part in page.all("figure") if part.all("h3")[0].text == title]
    [rows] = found.tables()
    return rows[1:]


def lists_in(page: Element) -> list[list[dict[str, Any]]]:
    """The rows of all lists of tensors, as the page's script unpacks them: by the names of columns."""
    return [_unpacked(json.loads(s.text)) for s in page.all("script") if s.attributes.get("type")]


def _unpacked(data: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for number, stars, *own in data["rows"]:
        name, *shared = data["groups"][number]
        numbers = stars.split()
        row = {"Tensor": _filled(name, numbers)}
        for column in data["columns"]:
            value = shared.pop(0) if column["shared"] else own.pop(0)
            if column["kind"] in {"text", "choice"}:
                value = _filled_words(value, numbers) if column["shared"] else data["words"][value]
            row[column["name"]] = value
        rows.append(row)
    return rows


def _filled_words(text: str, numbers: list[str]) -> str:
    return re.sub(r"[^\s,]+", lambda word: _filled(word[0], numbers), text)


def _filled(text: str, numbers: list[str]) -> str:
    rest = iter(numbers)
    return re.sub(r"\*", lambda _: next(rest, "*"), text)
