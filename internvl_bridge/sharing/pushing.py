"""Bring an output to the hub, in one commit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CheckpointError, OptionError, first_few
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.places.names import hub_name
from internvl_bridge.sharing.card import CARD_FILE, model_card
from internvl_bridge.verification.checksums import verify_checksums
from internvl_bridge.work.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was brought to the hub: the ``repository``, the ``commit``, its address, and the sizes of files by name."""

    repository: str
    commit: str
    url: str
    files: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return {"repository": self.repository, "commit": self.commit, "url": self.url, "files": self.files}


def push_to_hub(
    output: str | Path,
    repository: str,
    *,
    private: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Pushed:
    """Bring ``output``, a directory that a conversion made, to the hub: all files and a model card, in one commit.

    Its files are compared with their checksums first. A repository that is not there is created. Weights that are
    there and would not be replaced are refused: nobody could say which of them are meant.

    Args:
        output: Directory that a conversion made, and verified.
        repository: "owner/name" on the hub.
        private: Create a repository that only its owner reads.
        workers: Files to read at a time. By default one for each core, at most four.
        progress: As for :func:`internvl_bridge.to_hf`.

    Returns:
        The commit, and what is in it.

    Raises:
        OptionError: ``repository`` is not the name of one.
        CheckpointError: A file is not as it was written, or has no checksum; or the hub refuses.

    Example:
        >>> import internvl_bridge
        >>> pushed = internvl_bridge.push_to_hub("my-finetune-HF", "me/my-finetune-HF")  # doctest: +SKIP
    """
    home = Path(output)
    name = repository_name(repository)
    card = model_card(home, name=name)
    found = verify_checksums(home, workers=workers, progress=progress)
    if not found.intact:
        wrong = sorted((*found.changed, *found.missing, *found.unproved))
        raise CheckpointError(
            f"{home} is not as it was made, or was not verified: {first_few(wrong)}.",
            "Convert again, and push what that makes.",
        )
    from internvl_bridge.places.hub import commit_files  # noqa: PLC0415 (imports huggingface_hub)

    wanted = {*found.equal, SIDECAR_FILE} - {CARD_FILE}  # its own card takes the place of one that was carried along
    files = {path.name: path for path in sorted(home.iterdir()) if path.name in wanted}
    made = commit_files(name, files, {CARD_FILE: card.encode()}, private=private)
    sizes = {file: path.stat().st_size for file, path in files.items()}
    return Pushed(name, made.commit, made.url, {**sizes, CARD_FILE: len(card.encode())})


def repository_name(text: str) -> str:
    """The "owner/name" that ``text`` names. Raises OptionError for anything else."""
    name = hub_name(text if text.startswith("hf:") else f"hf://{text}")
    if name is None or name.revision is not None or name.folder:
        raise OptionError(f"{text!r} is not the name of a repository.", "Give it as owner/name.")
    return name.repository
