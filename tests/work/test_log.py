"""What a service sees of long work."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import edit_json, shard

import internvl_bridge
from internvl_bridge.work.log import LOG

Custom = Callable[[str], Path]


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    caplog.set_level(logging.INFO, "internvl_bridge")

    def taken() -> list[tuple[str, str]]:
        found = [(record.levelname, record.getMessage()) for record in caplog.records]
        caplog.clear()
        return found

    return taken


def test_a_conversion_says_what_begins_what_is_written_and_what_is_complete(custom: Custom, tmp_path: Path, events):
    source, output = custom("qwen2-300m"), tmp_path / "hf"
    shard(source, lambda key: "vision" in key)
    edit_json(source / "config.json", lambda config: config.update(use_thumbnail=False))
    report = internvl_bridge.to_hf(source, output)
    begun, *others, ended = events()
    assert begun == ("INFO", f"to-hf: {source} into {output}, {report.bytes} bytes of tensors")
    assert ended[1].startswith(f"to-hf: {output} is complete and verified, after ")
    assert [("WARNING", f"{output}: {warning}") for warning in report.warnings] == others[:1]
    assert sorted(message.split(": ")[0].split("/")[-1] for _, message in others[1:]) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    internvl_bridge.verify(source, output)
    assert [message for _, message in events()] == [
        f"verify: {source} with {output}",
        f"verify: {source} and {output} are identical",
    ]


def test_an_adapter_is_logged_alike(custom: Custom, tmp_path: Path, events):
    from support import DATA

    base = custom("qwen2-300m")
    internvl_bridge.to_hf(DATA / "adapters" / "custom" / "qwen2-300m-rslora", tmp_path / "out", base=base)
    messages = [message for level, message in events() if level == "INFO"]
    assert [message.startswith("to-hf: ") for message in messages] == [True, True]


def test_nothing_is_printed_unless_somebody_asks(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config.update(use_thumbnail=False))
    code = f"import internvl_bridge; internvl_bridge.to_hf({str(source)!r}, {str(tmp_path / 'hf')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert any(isinstance(handler, logging.NullHandler) for handler in LOG.handlers)


def test_a_progress_that_raises_stops_the_work_without_half_an_output(custom: Custom, tmp_path: Path):
    def progress(_task: str, _total: int, _files: int):
        raise ConnectionError("nobody listens")

    with pytest.raises(ConnectionError):
        internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf", progress=progress)
    assert not (tmp_path / "hf").exists()
