"""Find, download, read and write repositories on the hub: the one module that imports huggingface_hub.

Endpoint, token, cache, offline mode and xet are those of huggingface_hub: HF_ENDPOINT, ``hf auth login``, HF_HOME,
HF_HUB_OFFLINE (https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_url, snapshot_download
from huggingface_hub import utils as hub_utils
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from internvl_bridge.errors import BridgeError, CheckpointError, first_few
from internvl_bridge.places.names import HubName
from internvl_bridge.storage.stamps import changed_meanwhile, stamp_of, touched

_ATTEMPTS = 5
_PAUSE = 0.5
"""Seconds before a range is asked for once more; twice as many before each further time."""
_utils: Any = hub_utils
"""Its functions are documented, and not declared."""
_LONGEST = 10
"""Seconds of silence after which a request is given up."""
_SERVER_ERROR = 500
_OF_A_MODEL = (".safetensors", ".bin", ".index.json", "adapter_config.json", "adapter_model.bin")
"""How files end that loaders look for."""
_HttpError: Any = HfHubHTTPError.__mro__[1]
"""What the HTTP library of huggingface_hub raises: which one that is depends on the version."""
_REASONS = (
    (
        GatedRepoError,
        (
            "{what} is gated: only those may read it to whom its owner has given access.",
            "Ask for access on its page on the hub, then: hf auth login",
        ),
    ),
    (RevisionNotFoundError, ("{name.repository} has no revision {name.revision}.", "Look at its branches and tags.")),
    (
        RepositoryNotFoundError,
        (
            "{name.repository} is not a directory here, and not a repository on the hub, or a private one.",
            "Check the name. For a private repository: hf auth login",
        ),
    ),
    (
        (OfflineModeIsEnabled, LocalEntryNotFoundError),
        (
            "{what} is not in the cache, and the hub cannot be reached.",
            "Check the network, and HF_HUB_OFFLINE; or give a directory.",
        ),
    ),
    (EntryNotFoundError, ("{what} is not there.", "Look at the files of the repository on the hub.")),
    (HFValidationError, ("{what} is not a name that the hub can have.", "Check the name.")),
)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit: the sizes of its files in bytes, by their paths within the folder of its ``name``."""

    name: HubName
    commit: str
    files: Mapping[str, int]

    @property
    def place(self) -> str:
        """What it is called, with its commit."""
        return str(HubName(self.name.repository, self.commit, self.name.folder))

    def path_of(self, file: str) -> str:
        """The path of ``file`` in the whole repository."""
        return f"{self.name.folder}/{file}" if self.name.folder else file


def found_repository(name: HubName) -> Repository:
    """The repository ``name``; its branch or tag is resolved to a commit here, once.

    Raises CheckpointError if it is not there, may not be read, or cannot be reached.
    """
    with _refusals(name):
        info = HfApi().model_info(name.repository, revision=name.revision, files_metadata=True)
        prefix = f"{name.folder}/" if name.folder else ""
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    files = {path.removeprefix(prefix): size for path, size in sizes.items() if path.startswith(prefix)}
    if not files:
        raise _no_files(name)
    return Repository(name, str(info.sha), files)


def downloaded(
    name: HubName, patterns: Sequence[str], without: Sequence[str] = (), *, bars: bool = False, **options: Any
) -> Path:
    """The directory in huggingface_hub's cache that has the files of ``name`` that match ``patterns``.

    Those that match ``without``, and those in directories below, are left out.

    ``bars``: show how far it has come. ``options`` are those of ``snapshot_download``. What is there already is not
    downloaded again. Without a network, or with HF_HUB_OFFLINE, what is there is taken.
    Raises as :func:`found_repository`.
    """
    place = f"{escape(name.folder)}/" if name.folder else ""
    wanted = [place + pattern for pattern in patterns]
    unwanted = [f"{place}*/*", *(place + pattern for pattern in without)]
    with _refusals(name), _bars(shown=bars):
        at: dict[str, Any] = {} if name.revision is None else {"revision": name.revision}
        home = snapshot_download(name.repository, allow_patterns=wanted, ignore_patterns=unwanted, **at, **options)
    directory = Path(home) / name.folder
    if not directory.is_dir():
        raise _no_files(name)
    return directory


def _no_files(name: HubName) -> CheckpointError:
    return CheckpointError(
        f"{name} has no files of a checkpoint.",
        "Look at the repository on the hub: is the folder right? Without a network, only what was downloaded is there.",
    )


@contextmanager
def _bars(*, shown: bool) -> Iterator[None]:
    """Let huggingface_hub show its progress bars, or not."""
    if shown or _utils.are_progress_bars_disabled():
        yield
        return
    _utils.disable_progress_bars()
    try:
        yield
    finally:
        _utils.enable_progress_bars()


def read_range(repository: Repository, file: str, start: int, stop: int) -> bytes:
    """The bytes ``[start, stop)`` of ``file`` at the commit of ``repository``.

    What ends too soon, or is not what was asked for, is asked for again, a few times. Raises CheckpointError if that
    does not help.
    """
    url = hf_hub_url(repository.name.repository, repository.path_of(file), revision=repository.commit)
    wanted = f"bytes {start}-{stop - 1}/{repository.files[file]}"
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE * 2**attempt)
        with _refusals(repository.name, file, last=attempt == _ATTEMPTS - 1), _response(url, start, stop) as response:
            if response.headers.get("Content-Range") == wanted:
                data = _body(response, stop - start)
                if len(data) == stop - start:
                    return data
    raise CheckpointError(
        f"{repository.place}: what came of {file} is not what was asked for, again and again.", "Try again later."
    )


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that was made, and its address."""

    commit: str
    url: str


def check_login(repository: str) -> None:
    """Raise CheckpointError unless huggingface_hub has a token that the hub knows: nothing can be written without."""
    with _refusals(HubName(repository)):
        HfApi().whoami()


def commit_files(
    repository: str, files: Mapping[str, Path], texts: Mapping[str, bytes], *, private: bool = False
) -> Commit:
    """Write ``files`` and ``texts`` to ``repository``, which is created if it is not there, in one commit.

    Raises CheckpointError if the hub refuses, or if what is there would change the model. Also if a repository that
    shall be private is public, or if a file changes meanwhile.
    """
    name = HubName(repository)
    stamps = {path: stamp_of(path) for path in files.values()}
    with _refusals(name):
        api = HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        info = api.model_info(repository)
        there = [file.rfilename for file in info.siblings or ()]
    if private and not info.private:
        raise CheckpointError(f"{name} exists, and is public.", "Choose another repository, or change that on the hub.")
    if left := sorted(file for file in there if file.endswith(_OF_A_MODEL) and file not in files):
        raise CheckpointError(
            f"{name} holds files that would stay beside the new ones, and change the model: {first_few(left)}.",
            "Push to another repository, or remove them there.",
        )
    with _refusals(name):
        operations = [CommitOperationAdd(file, path) for file, path in files.items()]  # takes their checksums
        operations += [CommitOperationAdd(file, data) for file, data in texts.items()]
        for path in touched(stamps.items()):
            raise changed_meanwhile(path)
        made = api.create_commit(
            repository, operations, commit_message="Upload what internvl-bridge made", parent_commit=info.sha
        )
    return Commit(str(made.oid), str(made.commit_url))


@contextmanager
def _response(url: str, start: int, stop: int) -> Iterator[Any]:
    """The answer to a request of bytes; its body is not read yet, as it may be that of the whole file."""
    headers = {**_utils.build_hf_headers(), "Range": f"bytes={start}-{stop - 1}"}
    if hasattr(_utils, "http_stream_backoff"):
        with _utils.http_stream_backoff("GET", url, headers=headers, timeout=_LONGEST, max_retries=1) as response:
            _utils.hf_raise_for_status(response)
            yield response
    else:  # before 1.0, on top of requests
        response = _utils.http_backoff("GET", url, headers=headers, timeout=_LONGEST, max_retries=1, stream=True)
        try:
            _utils.hf_raise_for_status(response)
            yield response
        finally:
            response.close()


def _body(response: Any, length: int) -> bytes:
    """The first ``length`` bytes of the body, or fewer if it has no more, or ends too soon.

    Nothing is raised here: huggingface_hub does not take an error out of the ``with`` that it gives.
    """
    pieces = response.iter_bytes() if hasattr(response, "iter_bytes") else response.iter_content(1 << 16)
    data = bytearray()
    with suppress(OSError, _HttpError):
        for piece in pieces:
            data += piece
            if len(data) >= length:
                break
    return bytes(data[:length])


@contextmanager
def _refusals(name: HubName, file: str | None = None, *, last: bool = True) -> Iterator[None]:
    """Turn what huggingface_hub raises into refusals; not the ``last`` time, what may pass by itself is passed over.

    Its texts are not repeated: they have addresses, which can be signed.
    """
    what, refusal = str(name) if file is None else f"{name}: {file}", None
    try:
        yield
    except BridgeError:
        raise
    except Exception as error:  # noqa: BLE001 (what a hub may answer, and its client make of it, has no end)
        refusal = _refusal_of(error, name, what, last=last)
    if refusal is not None:
        raise refusal from None  # the error has addresses, which may be signed


def _refusal_of(error: Exception, name: HubName, what: str, *, last: bool) -> CheckpointError | None:
    """What is said of ``error``; nothing if what is asked once more may succeed."""
    known = next((texts for kind, texts in _REASONS if isinstance(error, kind)), None)
    if known is not None:
        return CheckpointError(*(text.format(what=what, name=name) for text in known))
    status = getattr(getattr(error, "response", None), "status_code", None)
    may_pass = isinstance(error, (OSError, _HttpError)) and (status is None or status >= _SERVER_ERROR)
    if may_pass and not last:
        return None
    told = type(error).__name__ if status is None else f"the hub answers {status}"
    return CheckpointError(
        f"{what} cannot be reached as is needed: {told}.",
        "Check the network and your access (hf auth whoami), and try again.",
    )
