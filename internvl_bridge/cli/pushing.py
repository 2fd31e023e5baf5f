"""Bring what a command made to the hub, if that is wanted."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_bridge.cli.answers import PrintOptions
from internvl_bridge.cli.terminal import warn
from internvl_bridge.convert.options import Execution
from internvl_bridge.errors import OptionError
from internvl_bridge.reporting.commands import typed_path
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.reporting.tables import Part, Table

if TYPE_CHECKING:
    from internvl_bridge.sharing.pushing import Pushed


def check_push(execution: Execution, show: PrintOptions) -> None:
    """Refuse, before the work, what cannot be pushed after it."""
    if show.push_to is None:
        if show.private:
            raise OptionError("--private is about what --push-to-hub creates.", "Add --push-to-hub REPO.")
        return
    if not execution.verify:
        raise OptionError("Only what was verified is pushed.", "Leave out --no-verify.")
    from internvl_bridge.places.hub import check_login  # noqa: PLC0415 (imports huggingface_hub)
    from internvl_bridge.sharing.pushing import repository_name  # noqa: PLC0415

    check_login(repository_name(show.push_to))


def push_output(output: Path, show: PrintOptions, *, is_ok: bool = True) -> "Pushed | None":
    """Push ``output``, if that is wanted and it ``is_ok``: what was pushed."""
    if show.push_to is None:
        return None
    if not is_ok:
        warn(f"Warning: {output} is not pushed, as its reference contradicts it.")
        return None
    from internvl_bridge.sharing.pushing import push_to_hub  # noqa: PLC0415 (imports huggingface_hub)

    try:
        return push_to_hub(output, show.push_to, private=show.private)
    except BaseException as error:
        again = f"internvl-bridge push {typed_path(output)} {shlex.quote(show.push_to)}"
        error.add_note(f"{output} is complete. To try again: {again}{' --private' if show.private else ''}")
        raise


def with_push(values: Mapping[str, Any], pushed: "Pushed | None") -> dict[str, Any]:
    """The ``values`` of a conversion, and what was ``pushed`` of it."""
    return {**values, "pushed": None if pushed is None else pushed.as_json()}


def pushed_parts(pushed: "Pushed | None") -> Iterator[Part]:
    """What was brought to the hub."""
    if pushed is not None:
        size = human_size(sum(pushed.files.values()))
        yield f"Pushed {len(pushed.files)} files ({size}) to {pushed.repository}: {pushed.url}"
        rows = tuple((name, human_size(length)) for name, length in pushed.files.items())
        yield Table(("File", "Size"), "lr", rows)
