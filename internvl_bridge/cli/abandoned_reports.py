"""What "clean" found, for people and for programs."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from internvl_bridge.convert.resuming import resuming_command
from internvl_bridge.reporting.commands import typed_path
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.storage.abandoned import AbandonedOutput

_UNITS = {"day": 86400, "hour": 3600, "minute": 60}
"""Seconds."""


def abandoned_lines(
    directory: Path, found: Sequence[AbandonedOutput], removed: Sequence[AbandonedOutput], now: float
) -> Iterator[str]:
    """What was left in ``directory`` and what was ``removed`` of it, at the time ``now``, line by line."""
    if not found:
        yield f"Nothing unfinished is left in {directory}."
        return
    for left in found:
        yield f"{left.partial}: {human_size(left.size)}, {_age(now - left.changed)} old. {_state(left)}"
        if left in removed:
            yield "  Removed."
        elif left.reason_to_keep is not None:
            yield f"  Not to be removed: {left.reason_to_keep}. {_way_out(left)}"
        elif command := _command(left):
            yield f"  Goes on with: {command}"
    if removed:
        yield f"Removed {len(removed)} of {len(found)}, {human_size(sum(left.size for left in removed))}."
    elif can_go := [left for left in found if left.reason_to_keep is None]:
        yield f"Add --yes to remove {len(can_go)}, {human_size(sum(left.size for left in can_go))}."


def abandoned_as_json(found: Sequence[AbandonedOutput], removed: Sequence[AbandonedOutput]) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "abandoned": [
            {
                "directory": str(left.partial),
                "output": str(left.output),
                "bytes": left.size,
                "changed": int(left.changed),
                "finished": left.finished,
                "complete": left.is_complete,
                "command": _command(left),
                "reason_to_keep": left.reason_to_keep,
                "removed": left in removed,
            }
            for left in found
        ]
    }


def _command(left: AbandonedOutput) -> str | None:
    if left.record is None or left.is_complete:
        return None
    if left.by_workers:
        return f"internvl-bridge finish {typed_path(left.output)}"
    return resuming_command(left.record.identity, left.output)


def _state(left: AbandonedOutput) -> str:
    if left.is_complete:
        return f"{left.output} is complete, and this is what was left of the work."
    return f"{left.finished} file(s) of weights are finished."


def _way_out(left: AbandonedOutput) -> str:
    replaced = left.partial / "replaced"
    if replaced.is_dir() and not left.output.exists():
        return f"Bring it back: {shlex.join(['mv', str(replaced), str(left.output)])}"
    if (command := _command(left)) and left.record is not None and left.record.consumed:
        return f"Goes on with: {command}"
    return "Look at it, and remove it yourself."


def _age(seconds: float) -> str:
    """How long that is, in the largest unit that has one."""
    for unit, length in _UNITS.items():
        if count := int(seconds // length):
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
