"""Whether transformers does something without a warning."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


@contextmanager
def in_silence() -> Iterator[None]:
    """Fail for whatever transformers logs as a warning. (What it warns of in Python's way is an error anyway.)"""
    records: list[logging.LogRecord] = []
    handler, library = logging.Handler(), logging.getLogger("transformers")
    handler.emit = records.append
    level = library.level
    transformers_logging.warning_once.cache_clear()
    library.addHandler(handler)
    library.setLevel(logging.WARNING)
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(level)
    assert [record.getMessage() for record in records] == []
