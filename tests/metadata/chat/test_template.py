"""Chat templates render what upstream's own code renders, and system messages come out as they went in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from support import DATA

from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import (
    built_template,
    conversation_name,
    for_custom,
    for_hf,
    places_images,
    system_message,
    turn_end,
    with_system_message,
    without_system_message,
)

PROMPTS = json.loads((DATA / "prompts.json").read_text())
SAVED = [(DATA / f"tokenizer-{version}" / "chat_template.jinja").read_text() for version in ("4.57.6", "5.23.0")]
OWN = [json.loads((DATA / "tokenizers" / name / "tokenizer_config.json").read_text()) for name in ("bpe", "internlm2")]
OWN_TEMPLATES = [config["chat_template"] for config in OWN]
ALL_TEMPLATES = [*SAVED, *OWN_TEMPLATES, *(built_template(conversation) for conversation in CONVERSATIONS.values())]

messages_texts = st.text(st.characters(exclude_categories=["Cs"]))


def render(template: str, messages: list[dict[str, Any]], *, cue: bool = True, **values: Any) -> str:
    """As transformers does it."""

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template).render(messages=messages, add_generation_prompt=cue, **values)


def full_template(name: str) -> str:
    return with_system_message(built_template(CONVERSATIONS[name]), CONVERSATIONS[name].system_message)


def parts(text: str) -> list[dict[str, str]]:
    """A user's text as processors get it: an image where upstream has ``<image>`` and a line break."""
    before, image, after = text.partition("<image>\n")
    images = [{"type": "image", "url": "cat.png"}] if image else []
    return [*images, {"type": "text", "text": before + after}]


def messages_of(turns: list[list[str | None]]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for question, answer in turns:
        messages.append({"role": "user", "content": parts(question or "")})
        if answer is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def test_every_conversation_of_upstream_is_known_and_no_other():
    assert CONVERSATIONS.keys() == PROMPTS.keys()


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("case", [0, 1])
def test_prompts_are_upstreams(name: str, case: int):
    expected = PROMPTS[name]["cases"][case]
    prompt = render(full_template(name), messages_of(expected["turns"]))
    assert prompt == expected["prompt"].replace("<image>", "<IMG_CONTEXT>")


@pytest.mark.parametrize("name", PROMPTS)
def test_a_stated_system_message_replaces_the_default(name: str):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    prompt = render(full_template(name), turns)
    default = render(full_template(name), turns[1:])
    assert prompt == default.replace(PROMPTS[name]["system_message"], "Be brief.", 1)
    assert prompt.count("Be brief.") == 1
    assert prompt == render(built_template(CONVERSATIONS[name]), turns)


@pytest.mark.parametrize("name", PROMPTS)
def test_without_a_cue_the_prompt_ends_where_the_last_message_does(name: str):
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    assert render(full_template(name), turns, cue=False).endswith("Hi" + CONVERSATIONS[name].closing["assistant"])


def test_parts_are_rendered_in_their_order():
    kinds = ["text", "image", "video", "image_url", "text"]
    content = [{"type": kind, "text": f"{number} "} for number, kind in enumerate(kinds)]
    prompt = render(built_template(CONVERSATIONS["phi3-chat"]), [{"role": "user", "content": content}], cue=False)
    assert prompt == "<|user|>\n0 <IMG_CONTEXT>\n<video>\n<IMG_CONTEXT>\n4 <|end|>"


@pytest.mark.parametrize(
    "message", [{"role": "tool", "content": "x"}, {"role": "user", "content": [{"type": "audio", "audio": "x"}]}]
)
def test_what_a_model_does_not_know_is_an_error_and_not_left_out(message: dict[str, Any]):
    with pytest.raises(TemplateError, match="This model"):
        render(full_template("internvl2_5"), [message])


def test_no_message_at_all_renders_the_system_message():
    assert PROMPTS["internvl2_5"]["system_message"] in render(full_template("internvl2_5"), [])


@given(messages_texts, st.sampled_from(ALL_TEMPLATES))
def test_a_system_message_goes_in_and_comes_out(message: str, template: str):
    told = with_system_message(template, message)
    assert system_message(told) == message
    assert without_system_message(told) == template
    assert with_system_message(told, message) == told


@given(messages_texts, messages_texts, st.text())
def test_a_system_message_replaces_the_one_before(first: str, second: str, template: str):
    assert with_system_message(with_system_message(template, first), second) == with_system_message(template, second)


@given(messages_texts)
def test_a_system_message_is_rendered_to_the_letter(message: str):
    template = with_system_message(built_template(CONVERSATIONS["internlm2-chat"]), message)
    prompt = render(template, [{"role": "user", "content": "Hi"}], cue=False)
    assert prompt == f"<|im_start|>system\n{message}<|im_end|><|im_start|>user\nHi<|im_end|>"


@given(st.text("\n\r\t ab{"))
def test_a_default_system_message_changes_nothing_else_that_is_rendered(text: str):
    template = text.replace("{", "") + "{{ messages[0]['content'] }}"
    turns = [{"role": "system", "content": "x"}]
    assert render(with_system_message(template, "default"), turns) == render(template, turns)


@pytest.mark.parametrize("edited", ["It\\'s me", "two\nlines", "\\x41"])
def test_a_system_message_that_was_edited_by_hand_is_never_a_traceback(edited: str):
    """Jinja takes these as texts, JSON does not."""
    template = with_system_message("{{ messages[0]['content'] }}", "PLACE").replace("PLACE", edited)
    assert render(template, []).strip()
    assert system_message(template) in {None, render(template, [])}


@pytest.mark.parametrize("template", ALL_TEMPLATES)
def test_templates_without_a_prologue_have_no_system_message(template: str):
    assert system_message(template) is None
    assert without_system_message(template) == template


@pytest.mark.parametrize("template", ALL_TEMPLATES)
def test_the_ways_between_the_formats_are_inverse(template: str):
    custom, hf = template.replace("<IMG_CONTEXT>", "<image>"), template.replace("<image>", "<IMG_CONTEXT>")
    assert for_hf(custom) == hf
    assert for_custom(hf) == custom
    assert for_custom(with_system_message(hf, "Be brief.")) == custom


@given(st.lists(st.sampled_from(["<image>", "text", "{{ x }}", "<IMG>", "\n"])).map("".join), messages_texts)
def test_a_custom_template_comes_back(template: str, message: str):
    assert for_custom(with_system_message(for_hf(template), message)) == template


@pytest.mark.parametrize(
    ("template", "places"), [("<image>", True), ("a <IMG_CONTEXT> b", True), ("<img> image", False)]
)
def test_a_template_places_images_in_either_formats_words(template: str, places: bool):
    assert places_images(template) is places


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_built_templates_are_recognised_by_themselves(name: str):
    assert conversation_name(full_template(name), preferred=()) == ("Hermes-2" if name == "internlm2-chat" else name)
    assert conversation_name(full_template(name), preferred=(name,)) == name
    assert turn_end(full_template(name)) == CONVERSATIONS[name].turn_end


def test_each_conversation_has_its_own_end_of_a_turn():
    ends = {name: turn_end(built_template(conversation)) for name, conversation in CONVERSATIONS.items()}
    assert ends == {
        **dict.fromkeys(("internvl2_5", "Hermes-2", "internlm2-chat"), "<|im_end|>"),
        "phi3-chat": "<|end|>",
        "internvl3_5_gpt_oss": "<|return|>",
        "internvl_zh": "</s>",
    }


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_custom_template_is_recognised_as_the_hf_one_is(name: str):
    assert conversation_name(for_custom(full_template(name)), preferred=(name,)) == name


@pytest.mark.parametrize("template", [*SAVED, *OWN_TEMPLATES])
def test_templates_of_real_checkpoints_are_recognised(template: str):
    assert conversation_name(template, preferred=()) == "internvl2_5"
    assert turn_end(template) == "<|im_end|>"


@pytest.mark.parametrize(
    ("closing", "expected"), [("<|im_end|>", "Hermes-2"), ("<|im_end|>' + '\n", "internvl2_5"), ("<eot>", None)]
)
def test_what_closes_a_turn_decides(closing: str, expected: str | None):
    template = f"{{% for m in messages %}}{{{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '{closing}' }}}}"
    assert conversation_name(template, preferred=()) == expected


def test_a_preferred_name_counts_only_among_templates_that_are_alike():
    template = built_template(CONVERSATIONS["Hermes-2"])
    assert conversation_name(template, preferred=("internlm2-chat",)) == "internlm2-chat"
    assert conversation_name(template, preferred=("internvl2_5", "nonsense")) == "Hermes-2"
    assert conversation_name("", preferred=("Hermes-2",)) is None
    assert turn_end("") is None


def test_a_default_system_message_tells_templates_apart_that_a_preference_would_not():
    message = CONVERSATIONS["Hermes-2"].system_message
    template = with_system_message(built_template(CONVERSATIONS["Hermes-2"]), message)
    assert conversation_name(template, preferred=("phi3-chat",)) == "Hermes-2"
    other = with_system_message(built_template(CONVERSATIONS["Hermes-2"]), "Be brief.")
    assert conversation_name(other, preferred=("internlm2-chat",)) == "internlm2-chat"


LOOP = (
    "{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}\n"
    "{{% for part in {content} %}}"
    "{{% if part['type'] == 'text' %}}{{{{ part['text'] }}}}"
    "{{% elif part['type'] == 'image' %}}<image>\n{{% else %}}{{{{ raise_exception('what?') }}}}{{% endif %}}"
    "{{% endfor %}}<|im_end|>\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)


PARTS_ONLY = [
    LOOP.format(content=content)
    for content in ("message['content']", 'message["content"]', "message.content", "message[ 'content' ]")
]


STRINGS_TOO = built_template(CONVERSATIONS["internvl2_5"])


USER = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}


RENDERED = "<|im_start|>user\n<image>\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("template", PARTS_ONLY)
@pytest.mark.parametrize("message", ["Be brief.", '书 "quoted" \\ {{ no }} {% if %}\n\ttail', ""])
def test_a_template_that_takes_parts_only_renders_a_default_system_message(template: str, message: str):
    made = with_system_message(template, message)
    assert render(made, [USER]) == f"<|im_start|>system\n{message}<|im_end|>\n{RENDERED}"
    own = {"role": "system", "content": [{"type": "text", "text": "Mine."}]}
    assert render(made, [own, USER]) == f"<|im_start|>system\nMine.<|im_end|>\n{RENDERED}"


def test_a_template_that_names_the_parts_first_renders_a_default_system_message():
    template = LOOP.format(content="content").replace("<|im_start|>{{", "{% set content = message.content %}{{", 1)
    template = template.replace("{{ message['role'] }}", "<|im_start|>{{ message['role'] }}")
    assert render(template, [USER]) == RENDERED
    assert render(with_system_message(template, "Be brief."), [USER]) == (
        f"<|im_start|>system\nBe brief.<|im_end|>\n{RENDERED}"
    )


@given(message=st.text(st.characters(exclude_categories=["Cs"])), later=st.text(max_size=5))
@pytest.mark.parametrize("template", [PARTS_ONLY[0], STRINGS_TOO])
def test_a_default_system_message_is_found_and_taken_out_again(template: str, message: str, later: str):
    made = with_system_message(template, message)
    assert system_message(made) == message
    assert without_system_message(made) == template
    assert with_system_message(made, later) == with_system_message(template, later)
    assert system_message(template) is None


def test_a_template_that_takes_strings_gets_a_string():
    """One that tests for strings, as upstream's own do, may do anything with parts."""
    assert '"content": ' not in with_system_message(STRINGS_TOO, "x")
    assert "'content': \"x\"}" in with_system_message(STRINGS_TOO, "x")
    assert "'content': \"x\"}" in with_system_message("{% for m in messages %}{{ m.content }}{% endfor %}", "x")
