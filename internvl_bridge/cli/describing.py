"""What the commands do that say what is there: in a directory, or known of releases."""

import time
from dataclasses import replace
from pathlib import Path

from internvl_bridge.checkpoint.adapter_directory import is_adapter_directory
from internvl_bridge.checkpoint.adapter_inspection import inspect_adapter
from internvl_bridge.checkpoint.adapter_report import adapter_report
from internvl_bridge.checkpoint.inspection import inspect as inspect_checkpoint
from internvl_bridge.checkpoint.inspection_report import inspection_report
from internvl_bridge.checkpoint.looking import looked_at
from internvl_bridge.cli.abandoned_reports import abandoned_as_json, abandoned_lines
from internvl_bridge.cli.answers import Answer, PlaceRead, PrintOptions, answer
from internvl_bridge.cli.release_reports import release_report, releases_as_json
from internvl_bridge.storage.abandoned import abandoned_outputs, remove_abandoned


def inspect(path: Path, config: Path | None, state_dict: str | None, base: Path | None, show: PrintOptions) -> None:
    """Describe a checkpoint, or an adapter."""

    def work() -> Answer:
        with looked_at(path) as look:
            if is_adapter_directory(look.directory):
                adapter = inspect_adapter(look.directory, base=base)
                return Answer("adapter", adapter.as_json, lambda: adapter_report(adapter), place=PlaceRead.of(look))
            found = replace(inspect_checkpoint(look.directory, config=config, state_dict=state_dict), path=look.name)
            return Answer("inspection", found.as_json, lambda: inspection_report(found), place=PlaceRead.of(look))

    answer("inspect", work, show)


def clean(directory: Path, *, remove: bool, as_json: bool) -> None:
    """List what runs have left in ``directory`` and work on no more, and remove it if that is wanted."""

    def work() -> Answer:
        found = abandoned_outputs(directory)
        removed = [left for left in found if remove and left.reason_to_keep is None]
        for left in removed:
            remove_abandoned(left)
        return Answer(
            "abandoned",
            lambda: abandoned_as_json(found, removed),
            lambda: abandoned_lines(directory, found, removed, time.time()),
        )

    answer("clean", work, PrintOptions(as_json=as_json, verbose=False, quiet=False))


def models(*, as_json: bool) -> None:
    """Say which releases are known."""

    def work() -> Answer:
        return Answer("models", releases_as_json, release_report)

    answer("models", work, PrintOptions(as_json=as_json, verbose=False, quiet=False))
