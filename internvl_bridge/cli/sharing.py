"""What the commands for others do: call the library, and answer."""

from pathlib import Path

from internvl_bridge.cli.answers import Answer, PrintOptions, answer
from internvl_bridge.cli.pushing import pushed_parts
from internvl_bridge.cli.terminal import progress_bar
from internvl_bridge.sharing.card import model_card
from internvl_bridge.sharing.pushing import push_to_hub


def push(output: Path, repository: str, workers: int | None, show: PrintOptions, *, private: bool) -> None:
    """Bring ``output`` to the hub."""

    def work() -> Answer:
        with progress_bar(quiet=show.quiet) as progress:
            pushed = push_to_hub(output, repository, private=private, workers=workers, progress=progress)
        return Answer("push", pushed.as_json, lambda: pushed_parts(pushed))

    answer("push", work, show)


def card(output: Path, show: PrintOptions) -> None:
    """Print the model card of ``output``."""

    def work() -> Answer:
        text = model_card(output)
        return Answer("card", lambda: {"text": text}, text.splitlines)

    answer("card", work, show)
