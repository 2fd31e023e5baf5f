"""Which chat template a model gets: its own, the named one, or one like its own; and what is noted about it."""

import json
from dataclasses import replace

import pytest
from support import DATA

from internvl_bridge.metadata.chat.choice import choose_chat
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import (
    built_template,
    for_custom,
    system_message,
    with_system_message,
)

STRINGS_TOO = built_template(CONVERSATIONS["internvl2_5"])


OTHER = for_custom(built_template(CONVERSATIONS["phi3-chat"]))


def test_an_own_template_of_another_conversation_is_kept_and_gets_that_ones_message():
    chat = choose_chat("internvl2_5", OTHER, None)
    expected = CONVERSATIONS["phi3-chat"].system_message
    assert chat.template == with_system_message(built_template(CONVERSATIONS["phi3-chat"]), expected)
    assert expected != CONVERSATIONS["internvl2_5"].system_message
    assert chat.turn_end == "<|end|>"
    [note] = chat.notes
    assert note.startswith("The tokenizer's own chat template is kept, although it does not render the 'internvl2_5'")


@pytest.mark.parametrize("name", ["Hermes-2", "internlm2-chat", "internvl2_5"])
def test_an_own_template_that_differs_in_line_breaks_only_gets_the_named_ones_message(name: str):
    chat = choose_chat(name, for_custom(STRINGS_TOO), None, stated=CONVERSATIONS[name])
    assert system_message(chat.template or "") == CONVERSATIONS[name].system_message
    assert chat.notes == ()


def test_an_own_template_that_renders_nothing_known_gets_the_named_ones_message():
    chat = choose_chat("internvl2_5", "{{ messages }}<image>", None)
    assert system_message(chat.template or "") == CONVERSATIONS["internvl2_5"].system_message
    assert chat.notes == ()


def test_no_system_message_leaves_an_own_template_as_it_is_and_says_so():
    chat = choose_chat("internvl2_5", for_custom(STRINGS_TOO), "none")
    assert chat.template == STRINGS_TOO
    [note] = chat.notes
    assert "a system message of its own making stays in it" in note
    assert choose_chat("internvl2_5", None, "none").notes == ()
    assert choose_chat("internvl2_5", for_custom(STRINGS_TOO), "Be brief.").notes == ()


@pytest.mark.parametrize("own", [None, "{{ messages }}"])
def test_a_system_message_that_cannot_be_rendered_is_mentioned(own: str | None):
    asked, silent = choose_chat("future", own, "Be brief."), choose_chat("future", own, None)
    lost = "The system message that was asked for is not rendered."
    assert [lost in note for note in asked.notes] == [True]
    assert [lost in note for note in silent.notes] == [False]
    assert (asked.template, asked.turn_end) == (own, None)
    assert "Be brief." not in (asked.template or "")


CHATML = CONVERSATIONS["internvl2_5"]


OWN = json.loads((DATA / "tokenizers" / "bpe" / "tokenizer_config.json").read_text())["chat_template"]


def test_an_own_template_that_places_images_is_kept_in_hfs_words():
    chat = choose_chat("internvl2_5", OWN, None)
    assert chat.template == with_system_message(OWN.replace("<image>", "<IMG_CONTEXT>"), CHATML.system_message)
    assert (chat.turn_end, chat.notes, chat.demanded) == ("<|im_end|>", (), False)


@pytest.mark.parametrize(
    "own", [None, "{{ messages }}", built_template(CONVERSATIONS["phi3-chat"]).replace("<IMG", "")]
)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_template_that_places_none_gives_way_to_the_named_one(name: str, own: str | None):
    conversation = CONVERSATIONS[name]
    chat = choose_chat(name, own, None, stated=conversation)
    assert chat.template == with_system_message(built_template(conversation), conversation.system_message)
    assert (chat.turn_end, chat.notes) == (conversation.turn_end, ())


@pytest.mark.parametrize("name", ["internlm2-chat", "phi3-chat"])
def test_a_message_that_releases_changed_is_assumed_where_nobody_states_it(name: str):
    [note] = choose_chat(name, None, None).notes
    assert "is assumed to be that of InternVL2" in note
    assert choose_chat(name, None, "Be brief.").notes == ()


def test_a_stated_conversation_counts_and_is_named():
    stated = replace(CHATML, system_message="An earlier one.")
    chat = choose_chat("internvl2_5", None, None, stated=stated)
    assert chat.template == with_system_message(built_template(CHATML), "An earlier one.")
    [note] = chat.notes
    assert "are those of the source's conversation.py" in note
    own = choose_chat("mine", None, None, stated=stated)
    assert own.template == chat.template


def test_a_name_that_is_not_known_is_guessed_after_the_tokenizers_own():
    chat = choose_chat("future", "<|user|>{{ x }}<|end|>", None)
    assert chat.template == built_template(CONVERSATIONS["phi3-chat"])
    assert chat.turn_end == "<|end|>"
    assert [note[:30] for note in chat.notes] == ["The chat template was made aft", "config.json names the template"]


def test_an_own_template_for_images_of_an_unknown_name_has_no_system_message_and_a_note():
    chat = choose_chat(None, OWN, None)
    assert system_message(chat.template or "") is None
    assert len(chat.notes) == 1
    assert "names the template None" in chat.notes[0]
    assert choose_chat(None, OWN, "Be brief.").notes == ()


@pytest.mark.parametrize(("own", "has"), [(None, "the tokenizer has none"), ("{{ x }}", "own places no images")])
def test_where_nothing_tells_there_is_no_template_for_images_and_a_note(own: str | None, has: str):
    chat = choose_chat("future", own, None)
    assert (chat.template, chat.turn_end) == (own, None)
    assert has in chat.notes[0]
    assert "chat_template.jinja" in chat.notes[0]
    assert choose_chat("future", own, "Be brief.").demanded


@pytest.mark.parametrize(("wanted", "expected"), [("Be brief.", "Be brief."), ("none", None), ("", "")])
def test_a_system_message_can_be_asked_for(wanted: str, expected: str | None):
    for chat in (choose_chat("internvl2_5", OWN, wanted), choose_chat("internvl2_5", None, wanted)):
        assert system_message(chat.template or "") == expected
        assert chat.demanded


def test_a_template_that_is_none_of_upstreams_ends_turns_as_the_named_one():
    assert choose_chat("phi3-chat", "<image> [END]", None).turn_end == "<|end|>"
    assert choose_chat(None, "<image> [END]", None).turn_end is None
