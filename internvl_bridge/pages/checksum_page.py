"""What a comparison of files with their checksums found, as a page."""

from internvl_bridge.pages.page import Page, Section
from internvl_bridge.reporting.tables import Table
from internvl_bridge.verification.checksum_report import checksum_verdict
from internvl_bridge.verification.checksums import ChecksumReport


def checksum_page(found: ChecksumReport) -> Page:
    """The page of ``found``: every file, and what its checksum showed."""
    states = {
        "changed or damaged": found.changed,
        "missing": found.missing,
        "no checksum is known": found.unknown,
        "as it was written": found.equal,
    }
    rows = tuple((name, state) for state, names in states.items() for name in names)
    return Page(
        title=f"Checksums of {found.path}",
        verdict=checksum_verdict(found),
        state="bad" if found.changed or found.missing else "good" if found.intact else "notice",
        sections=(Section("All files", (Table(("File", "State"), "ll", rows),)),),
    )
