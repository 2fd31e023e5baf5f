"""A conversation.py is read as text: its constants count, and nothing of it runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from internvl_bridge.metadata.chat.conversation_file import stated_conversation
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS

CHATML = CONVERSATIONS["internlm2-chat"]
CALL = """
register_conv_template(
    Conversation(
        name={name!r},
        system_template="<|im_start|>system\\n{{system_message}}",
        system_message={message},
        roles=("<|im_start|>user\\n", "<|im_start|>assistant\\n"),
        sep_style={style},
        sep="<|im_end|>",
        stop_token_ids=[2, 92543],
    )
)
"""


def call(name: str = "internlm2-chat", message: str = "'An' 'other.'", style: str = "SeparatorStyle.MPT") -> str:
    return CALL.format(name=name, message=message, style=style)


def stated(directory: Path, text: str | bytes, name: str | None = "internlm2-chat"):
    (directory / "conversation.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    return stated_conversation(directory, name)


def test_the_texts_of_the_file_count(tmp_path: Path):
    assert stated(tmp_path, call()) == replace(CHATML, system_message="Another.")
    assert stated(tmp_path, call(message="'\u4f60\u662f'")) == replace(CHATML, system_message="\u4f60\u662f")


def test_the_last_of_one_name_counts_as_where_it_runs(tmp_path: Path):
    assert stated(tmp_path, call("other") + call(message="'1'") + call(message="'2'")).system_message == "2"


def test_a_conversation_of_a_name_that_nobody_knows_is_built_too(tmp_path: Path):
    found = stated(tmp_path, call("mine"), "mine")
    assert found == replace(CHATML, system_message="Another.")
    assert found.turn_end == "<|im_end|>"


def test_of_a_style_that_is_not_built_the_message_alone_is_taken(tmp_path: Path):
    assert stated(tmp_path, call(style="SeparatorStyle.PHOENIX")) == replace(CHATML, system_message="Another.")
    assert stated(tmp_path, call("mine", style="SeparatorStyle.PHOENIX"), "mine") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def broken(",
        b"\xff\xfe",
        "x = 1\0",
        "(" * 5000,
        "-" * 100_000 + "1",
        call("another"),
        call(message="open('/etc/passwd').read()"),
        call(message="7"),
        "register_conv_template(Conversation)",
        "register_conv_template(Conversation(**everything))",
        "raise SystemExit",
    ],
)
def test_what_is_not_constant_or_not_a_module_says_nothing(tmp_path: Path, text: str | bytes):
    assert stated(tmp_path, text) is None


def test_where_there_is_no_file_or_no_name_nothing_is_stated(tmp_path: Path):
    assert stated_conversation(tmp_path, "internlm2-chat") is None
    assert stated(tmp_path, call(), None) is None
    assert stated(tmp_path, "#" * (1 << 20) + call()) is None
