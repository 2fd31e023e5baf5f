"""Chat templates: the Jinja texts by which each format's tokenizer or processor renders a conversation.

A custom template marks an image by ``<image>``, which upstream's ``chat()`` expands; an HF template by
``<IMG_CONTEXT>``, which the processor expands.
"""

import json
import re
from collections.abc import Iterable

from internvl_bridge.metadata.chat.conversations import CONVERSATIONS, Conversation

CUSTOM_IMAGE = "<image>"
HF_IMAGE = "<IMG_CONTEXT>"

# The one place where a default system message stands, so that it can be found and taken out again. transformers drops
# the newline behind a block, and so all of what follows is rendered as it was.
_PROLOGUE = (
    "{{%- if not messages or messages[0]['role'] != 'system' -%}}"
    "{{%- set messages = [{{'role': 'system', 'content': {}}}] + (messages | list) -%}}"
    "{{%- endif %}}\n"
)
_JSON_STRING = r"""("(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*")"""
_PARTS = "[{{'type': 'text', 'text': {}}}]"
_PROLOGUE_PATTERN = re.compile(
    re.escape(_PROLOGUE.format("\0")).replace(
        "\0", f"(?:{_JSON_STRING}|{re.escape(_PARTS.format(chr(1))).replace(chr(1), _JSON_STRING)})"
    )
)
_READS_PARTS = re.compile(r"""\bin\s+\w+(\.content|\[\s*['"]content['"]\s*\])|\.type\b|\[\s*['"]type['"]\s*\]""")
_BOS = "{{- bos_token -}}\n"
_BODY = """\
{{%- set opening = {opening} -%}}
{{%- set closing = {closing} -%}}
{{%- for message in messages -%}}
    {{%- if message['role'] not in opening -%}}
        {{{{- raise_exception("This model knows the roles system, user and assistant only.") -}}}}
    {{%- endif -%}}
    {{{{- opening[message['role']] -}}}}
    {{%- if message['content'] is string -%}}
        {{{{- message['content'] -}}}}
    {{%- else -%}}
        {{%- for part in message['content'] -%}}
            {{%- if part['type'] == 'text' -%}}
                {{{{- part['text'] -}}}}
            {{%- elif part['type'] in ['image', 'image_url'] -%}}
                {{{{- "{image}\\n" -}}}}
            {{%- elif part['type'] == 'video' -%}}
                {{{{- "<video>\\n" -}}}}
            {{%- else -%}}
                {{{{- raise_exception("This model takes content of type text, image and video only.") -}}}}
            {{%- endif -%}}
        {{%- endfor -%}}
    {{%- endif -%}}
    {{{{- closing[message['role']] -}}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}
    {{{{- {cue} -}}}}
{{%- endif -%}}
"""


def places_images(template: str) -> bool:
    """Whether ``template`` was made for InternVL, and not for its language model alone."""
    return CUSTOM_IMAGE in template or HF_IMAGE in template


def built_template(conversation: Conversation) -> str:
    """An HF template that renders messages as upstream does, for ``conversation``.

    The content of a message is a text, or parts of type text, image and video, in order.
    """
    return _BODY.format(
        opening=_literal(conversation.opening),
        closing=_literal(conversation.closing),
        cue=_literal(conversation.cue),
        image=HF_IMAGE,
    )


def with_bos(template: str) -> str:
    """``template`` such that what it renders begins with the token by which every text of the tokenizer begins.

    Servers tokenise what a template renders without adding that token. transformers does not add it twice when it
    renders and tokenises in one call.
    """
    found = _PROLOGUE_PATTERN.match(template)
    start = found.end() if found else 0
    return template[:start] + _BOS + template[start:]


def for_hf(template: str) -> str:
    """A custom template with images in the place and the words that HF's processor expects."""
    return template.replace(CUSTOM_IMAGE, HF_IMAGE)


def for_custom(template: str) -> str:
    """An HF template as the custom format's tokenizer has it, which has no default system message."""
    return without_system_message(template).replace(HF_IMAGE, CUSTOM_IMAGE)


def with_system_message(template: str, message: str) -> str:
    """``template`` with ``message`` for conversations that bring none; it replaces an earlier one."""
    body = without_system_message(template)
    takes_parts_only = _READS_PARTS.search(body) and "string" not in body
    content = _PARTS.format(_literal(message)) if takes_parts_only else _literal(message)
    return _PROLOGUE.format(content) + body


def without_system_message(template: str) -> str:
    """``template`` without what :func:`with_system_message` put in front of it."""
    found = _PROLOGUE_PATTERN.match(template)
    return template[found.end() :] if found else template


def system_message(template: str) -> str | None:
    """The message that :func:`with_system_message` put in front of ``template``, if it did."""
    found = _PROLOGUE_PATTERN.match(template)
    return str(json.loads(found[1] or found[2])) if found else None


def conversation_name(template: str, preferred: Iterable[str]) -> str | None:
    """The upstream conversation that ``template`` (of either format) renders, if it is one of them.

    Of those that it could be, one that closes a turn by as much as any. Where several of these are rendered alike,
    the one whose default system message it has, then a ``preferred`` one.
    """
    text = re.sub(r"""['"]\s*[+~]\s*['"]""", "", template.replace("\\n", "\n"))
    closings = {name: c.closing["assistant"] for name, c in CONVERSATIONS.items() if _renders(text, c)}
    longest = max(map(len, closings.values()), default=0)
    fitting = [name for name, closing in closings.items() if len(closing) == longest]
    message = system_message(template)
    alike = [name for name in fitting if CONVERSATIONS[name].system_message == message] or fitting
    return next((name for name in (*preferred, *alike) if name in alike), None)


def turn_end(template: str) -> str | None:
    """The token by which a model that ``template`` is for ends its answer, if it is one of upstream's conversations."""
    name = conversation_name(template, preferred=())
    return None if name is None else CONVERSATIONS[name].turn_end


def _renders(text: str, conversation: Conversation) -> bool:
    """Whether ``text`` holds the tokens that open a user's turn and what closes the assistant's."""
    opening = re.findall("<[^<>]+>", conversation.opening["user"])
    return all(token in text for token in opening) and conversation.closing["assistant"] in text


def _literal(value: object) -> str:
    """``value`` as Jinja writes it: its strings, lists and objects are JSON's."""
    return json.dumps(value, ensure_ascii=False)
