"""How an HF model is spoken to that has a chat template already, or had one."""

from internvl_bridge.metadata.chat.choice import NO_SYSTEM_MESSAGE, ChatSetup, choose_chat
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import (
    HF_IMAGE,
    built_template,
    conversation_name,
    for_hf,
    places_images,
    turn_end,
    with_system_message,
    without_system_message,
)
from internvl_bridge.metadata.files import CHAT_TEMPLATE_FILE

_KEPT = "The chat template is kept; a system message of its own making stays in it."


def repaired_chat(name: str | None, own: str | None, system_message: str | None) -> ChatSetup:
    """The chat template for an HF model whose tokenizer has its ``own``; a sidecar may know its upstream ``name``.

    One for HF's processor is kept, with what it renders for conversations that bring no system message, unless a
    ``system_message`` is asked for ("none" for none). Any other is that of a custom checkpoint or of a language model,
    of which the same becomes as :func:`internvl_bridge.metadata.choose_chat.choose_chat` makes.
    """
    if own is None or HF_IMAGE not in own:
        return choose_chat(name, own, system_message) if name in CONVERSATIONS else _guessed(own, system_message)
    body = for_hf(own)
    if system_message == NO_SYSTEM_MESSAGE:
        return ChatSetup(without_system_message(body), turn_end(body), (_KEPT,), demanded=True)
    if system_message is not None:
        body = with_system_message(body, system_message)
    return ChatSetup(body, turn_end(body), (), demanded=system_message is not None)


def _guessed(own: str | None, system_message: str | None) -> ChatSetup:
    """As :func:`repaired_chat`, for a template in other words than HF's, where nothing names the conversation."""
    guessed = conversation_name(own or "", preferred=())
    if own is not None and places_images(own):
        body, end, note = for_hf(own), turn_end(own), "The chat template is that of a custom checkpoint, in HF's words."
    elif guessed is not None:
        body, end = built_template(CONVERSATIONS[guessed]), CONVERSATIONS[guessed].turn_end
        note = f"The chat template was made after the tokenizer's own, which places no images, as {guessed!r}."
    else:
        return ChatSetup(own, None, (_no_template(own, system_message),), demanded=system_message is not None)
    if system_message is None:
        note += " Nothing tells its default system message, so none is rendered: state one with --system-message."
    elif system_message != NO_SYSTEM_MESSAGE:
        body = with_system_message(body, system_message)
    return ChatSetup(body, end, (note,), demanded=system_message is not None)


def _no_template(own: str | None, system_message: str | None) -> str:
    has = "that of the tokenizer places none" if own else "the tokenizer has none"
    lost = "" if system_message is None else " The system message that was asked for is not rendered."
    return (
        f"There is no chat template for images: {has}, and no sidecar names one. Write one to {CHAT_TEMPLATE_FILE}, "
        f"with {HF_IMAGE} in the place of each image, or give a directory that has one as --tokenizer.{lost}"
    )
