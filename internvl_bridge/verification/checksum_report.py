"""What a comparison of files with their checksums found, as a report."""

from collections.abc import Iterator

from internvl_bridge.errors import first_few
from internvl_bridge.reporting.tables import Part
from internvl_bridge.verification.checksums import ChecksumReport


def checksum_report(found: ChecksumReport) -> Iterator[Part]:
    """What ``found`` says, and which files it concerns."""
    yield checksum_verdict(found)
    for what, names in (("changed", found.changed), ("missing", found.missing), ("no checksum", found.unknown)):
        yield from (f"  {what}: {name}{' (linked, not read)' if name in found.linked else ''}" for name in names)
    if found.linked:
        yield "Linked files are the source's own. Convert with --link and --read-links to take their checksums."
    if {*found.unproved} - {*found.linked}:
        yield "Weights without a checksum can be compared with their source: internvl-bridge verify SOURCE OUTPUT."


def checksum_verdict(found: ChecksumReport) -> str:
    """The result in a sentence."""
    count = len(found.equal) + len(found.changed) + len(found.missing)
    if found.changed or found.missing:
        bad = sorted((*found.changed, *found.missing))
        return f"Changed or damaged: {len(bad)} of {count} files of {found.path}: {first_few(bad)}."
    if found.unproved:
        return f"Not proved: {first_few(found.unproved)} of {found.path} do not have a checksum."
    return f"Intact: all {count} files of {found.path} have the checksum that they were written with."
