"""What a comparison of files with their checksums found, as a report."""

from collections.abc import Iterator

from internvl_bridge.errors import first_few
from internvl_bridge.reporting.tables import Part
from internvl_bridge.verification.checksums import ChecksumReport


def checksum_report(found: ChecksumReport) -> Iterator[Part]:
    """What ``found`` says, and which files it concerns."""
    count = len(found.equal) + len(found.changed) + len(found.missing)
    if found.changed or found.missing:
        bad = sorted((*found.changed, *found.missing))
        yield f"Changed or damaged: {len(bad)} of {count} files of {found.path}: {first_few(bad)}."
    elif found.unproved:
        yield f"Not proved: {first_few(found.unproved)} of {found.path} do not have a checksum."
    else:
        yield f"Intact: all {count} files of {found.path} have the checksum that they were written with."
    for what, names in (("changed", found.changed), ("missing", found.missing), ("no checksum", found.unknown)):
        yield from (f"  {what}: {name}" for name in names)
    if found.unproved:
        yield "Weights without a checksum can be compared with their source: internvl-bridge verify SOURCE OUTPUT."
