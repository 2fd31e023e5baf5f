"""Lets the real huggingface_hub client talk to the hub of hub_server.py, and to nothing else."""

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_state import Hub
from huggingface_hub import close_session, constants, file_download, hf_api
from huggingface_hub.utils import _http


def client_environment(hub: Hub, home: Path, token: str | None = None) -> dict[str, str]:
    """The variables with which a new process talks to this hub only, and keeps its files in `home`."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_XET_CACHE": str(home / "xet"),
        "HF_TOKEN": token or "",
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_ETAG_TIMEOUT": "2",
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        "HF_OIDC_RESOURCE": "",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@contextmanager
def hub_client(hub: Hub, home: Path, token: str | None = None) -> Iterator[list[float]]:
    """Let the client in this process talk to this hub only; yields the seconds that it would have slept."""
    sleeps: list[float] = []
    clock = SimpleNamespace(**{**vars(time), "sleep": sleeps.append})
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # The client itself uploads in a way that its HTTP library has deprecated.
        warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
        # transformers enables the bars that are disabled here, if it is imported now.
        warnings.filterwarnings("ignore", "Cannot enable progress bars", UserWarning)
        for name, value in client_environment(hub, home, token).items():
            patch.setenv(name, value)
        for name, value in _constants(hub, home).items():  # read from the environment when they were imported
            patch.setattr(constants, name, value)
        patch.setattr(hf_api.api, "endpoint", hub.endpoint)
        patch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", True)
        patch.setattr(file_download, "_ETAG_RETRY_TIMEOUT", 2)
        for module in (_http, file_download):
            patch.setattr(module, "time", clock)
        close_session()  # which has read the proxies
        try:
            yield sleeps
        finally:
            close_session()


def _constants(hub: Hub, home: Path) -> dict[str, Any]:
    return {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HUGGINGFACE_HUB_CACHE": str(home / "hub"),
        "HF_ASSETS_CACHE": str(home / "assets"),
        "HF_XET_CACHE": str(home / "xet"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
        "HF_HUB_ETAG_TIMEOUT": 2,
        "HF_HUB_DOWNLOAD_TIMEOUT": 2,
    }
