"""Reports as lines: for terminals of every width, and for files."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from support import rewrite
from thinning import rarely

import internvl_bridge
from internvl_bridge.cli.layout import lines_of
from internvl_bridge.reporting.commands import unbroken
from internvl_bridge.reporting.tables import Facts, Table

BRIDGE = [sys.executable, "-m", "internvl_bridge"]
INHERITED = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
Custom = Callable[[str], Path]
NAMES = Table(
    ("Name", "L2"),
    "lr",
    (("language_model.model.layers.*.mlp.down_proj.weight", "1"), ("  b", "12345"), ("[red]x[/red]", "")),
)


def lines(*parts, width: int | None = None, color: bool = False) -> list[str]:
    return [*lines_of(parts, width, color=color)]


def on_terminal(columns: int, *arguments: object, **environment: str) -> str:
    """What a program prints on a terminal of so many columns."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        [*BRIDGE, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env={**INHERITED, "TERM": "xterm", **environment},
    ):
        os.close(terminal)
        shown = b""
        while True:
            try:
                data = os.read(main, 4096)
            except OSError:
                break
            shown += data
    os.close(main)
    return shown.decode().replace("\r\n", "\n")


def test_without_a_width_no_sentence_is_wrapped():
    sentence = "word " * 100 + "end"
    assert lines(sentence, Facts({"Name": sentence})) == [sentence, f"Name: {sentence}"]


def test_words_are_wrapped_and_never_broken():
    path = "/a/very/long/path/that/is/longer/than/a/line"
    assert lines(f"  from {path} to b", width=20) == ["  from", f"    {path}", "    to b"]
    assert lines(Facts({"From": path, "To": "one two three four five"}), width=30) == [
        f"From: {path}",
        "To:   one two three four five",
    ]
    assert lines(Facts({"From": path, "To": "one two three four five"}), width=26)[1:] == [
        "To:   one two three four",
        "      five",
    ]


def test_a_command_stays_in_one_line_so_that_it_can_be_copied():
    command = "internvl-bridge repair /somewhere OUTPUT"
    for part in (f"  Type this: {unbroken(command)}", Facts({"Type": f"this: {unbroken(command)}"})):
        assert any(line.endswith(command) for line in lines(part, width=30))


def test_numbers_are_aligned_and_long_names_are_broken_at_their_dots():
    assert lines(NAMES, width=80) == [
        "Name                                                   L2",
        "language_model.model.layers.*.mlp.down_proj.weight      1",
        "  b                                                 12345",
        "[red]x[/red]",
    ]
    assert lines(NAMES, width=40) == [
        "Name                                  L2",
        "language_model.model.layers.*.mlp.     1",
        "  down_proj.weight",
        "  b                                12345",
        "[red]x[/red]",
    ]


def test_control_characters_of_strangers_are_shown_and_not_sent():
    escape = "\x1b[2J"
    for part in (escape, Facts({"Name": escape}), Table(("Name",), "l", ((escape,),))):
        assert "\x1b" not in "".join(lines(part))
        assert "\\x1b[2J" in "".join(lines(part))


def test_colour_is_for_terminals_that_want_it(custom: Custom):
    source = custom("qwen2-300m")
    assert "\x1b[1m" in on_terminal(80, "inspect", source)
    assert "\x1b" not in on_terminal(80, "inspect", source, NO_COLOR="1")
    assert "\x1b" not in on_terminal(80, "inspect", source, TERM="dumb")
    piped = subprocess.run([*BRIDGE, "inspect", str(source)], capture_output=True, check=True)
    assert b"\x1b" not in piped.stdout


@pytest.mark.parametrize("columns", [60, rarely(80), 120])
def test_reports_fit_on_terminals(custom: Custom, tmp_path: Path, columns: int):
    source = custom("qwen3moe-6b")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    rewrite(source, lambda tensors: [tensor.mul_(1.25) for key, tensor in tensors.items() if "language" in key])
    os.chdir(tmp_path)
    for command in (["verify", source.name, "hf"], ["inspect", "hf"], ["to-hf", source.name, "other"]):
        shown = on_terminal(columns, *command, NO_COLOR="1")
        assert max(map(len, shown.splitlines())) <= columns
        assert all(word in shown for word in ("safetensors",) if command[0] != "verify")


def test_a_plan_wraps_between_words_only(custom: Custom, tmp_path: Path):
    shown = on_terminal(60, "plan", custom("internlm2-300m"), tmp_path / "out", NO_COLOR="1")
    assert all(len(line) <= 60 or len(line.split()) == 1 for line in shown.splitlines())
    assert "vision_tower.embeddings.patch_embeddings.projection.weight" in shown.split()


def test_json_is_never_wrapped(custom: Custom):
    import json

    assert json.loads(on_terminal(60, "inspect", custom("qwen2-300m"), "--json"))["kind"] == "inspection"


def test_a_terminal_without_unicode_gets_plain_bars(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    rewrite(
        source,
        lambda tensors: [t.add_(1) for key, t in tensors.items() if key.startswith("language_model.model.layers.1.")],
    )
    shown = on_terminal(80, "verify", source, tmp_path / "hf", PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert "language model: .@ up to" in shown
    assert "\\u" not in shown
