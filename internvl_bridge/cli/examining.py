"""What the commands that examine a directory do: call the library, and answer."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from internvl_bridge.checkpoint.looking import looked_at, whole
from internvl_bridge.cli.answers import Answer, PlaceRead, PrintOptions, answer
from internvl_bridge.cli.terminal import DIFFERS, progress_bar, warn
from internvl_bridge.diagnosis.diagnosis_report import diagnosis_report
from internvl_bridge.diagnosis.examination import diagnose
from internvl_bridge.errors import OptionError
from internvl_bridge.places.fetching import fetched


@dataclass(frozen=True, slots=True)
class Examined:
    """What is examined: a directory, and where the rest of it is."""

    path: Path
    config: Path | None
    state_dict: str | None
    base: Path | None


def doctor(examined: Examined, workers: int | None, show: PrintOptions, *, deep: bool) -> None:
    """Say what is wrong or odd about a directory."""

    def work() -> Answer:
        looking = whole(examined.path) if deep else looked_at(examined.path)
        with looking as look, progress_bar(quiet=show.quiet) as progress:
            found = diagnose(
                look.directory,
                config=examined.config,
                state_dict=examined.state_dict,
                base=examined.base,
                deep=deep,
                workers=workers,
                progress=progress,
            )
        named = replace(found, path=look.name)
        code = 0 if found.healthy else DIFFERS
        return Answer(
            "diagnosis", named.as_json, lambda: diagnosis_report(named), exit_code=code, place=PlaceRead.of(look)
        )

    answer("doctor", work, show)


def check_load(path: Path, against: Path | None, show: PrintOptions, *, layers: int | None, meta: bool) -> None:
    """Open a checkpoint with the installed transformers."""

    def work() -> Answer:
        place = fetched(path, bars=show.bars).directory
        other = None if against is None else fetched(against, bars=show.bars).directory
        os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: a directory needs no hub
        try:
            from internvl_bridge.in_memory.load_check import check_load as checked  # noqa: PLC0415
            from internvl_bridge.in_memory.load_check_report import load_check_report  # noqa: PLC0415
        except ImportError as error:
            raise OptionError(
                f"transformers cannot be imported here: {error}.",
                "Install it: pip install --upgrade transformers torch",
            ) from error
        if sys.stderr is not None and sys.stderr.isatty() and not show.quiet:
            warn(f"Opening {path} with transformers. A large model takes minutes.")
        found = checked(place, against=other, layers=layers, meta=meta)
        return Answer(
            "load_check", found.as_json, lambda: load_check_report(found), exit_code=0 if found.ok else DIFFERS
        )

    answer("check-load", work, show)
