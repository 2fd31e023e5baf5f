"""A report to look at, as a value: sections of sentences, facts, tables, figures and lists of tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from internvl_bridge.pages.figures import BarChart, ColumnChart, Figure, HeatMap
from internvl_bridge.pages.tensor_list import TensorList
from internvl_bridge.reporting.tables import Part

State = Literal["good", "notice", "bad"]
"""How the verdict is: as it should be, worth a look, or wrong."""
_STATES: tuple[State, ...] = ("good", "notice", "bad")
PagePart = Part | Figure | TensorList


@dataclass(frozen=True, slots=True)
class Section:
    """Some parts under a title."""

    title: str
    parts: tuple[PagePart, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A report: its ``title``, the ``verdict`` in a sentence, and the sections under them."""

    title: str
    verdict: str
    state: State
    sections: tuple[Section, ...]

    @property
    def figures(self) -> list[tuple[str, Figure]]:
        """All figures in their order, each with the title of its section."""
        parts = [(section.title, part) for section in self.sections for part in section.parts]
        return [(title, part) for title, part in parts if isinstance(part, HeatMap | ColumnChart | BarChart)]


def joined(title: str, pages: Mapping[str, Page]) -> Page:
    """The page of several outputs of one command, one after the other, by what they are called."""
    sections = (
        Section(f"The {name}: {section.title[0].lower()}{section.title[1:]}", section.parts)
        for name, page in pages.items()
        for section in page.sections
    )
    return Page(
        title=title,
        verdict=" ".join(f"The {name}: {page.verdict}" for name, page in pages.items()),
        state=max((page.state for page in pages.values()), key=_STATES.index),
        sections=tuple(sections),
    )


@dataclass(frozen=True, slots=True)
class Made:
    """Where a page comes from: the ``command`` that made it, the version of the program, and when (ISO 8601)."""

    command: str
    version: str
    when: str
