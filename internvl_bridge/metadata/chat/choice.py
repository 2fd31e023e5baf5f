"""How an HF model is spoken to: its chat template, and the token that ends a turn."""

from dataclasses import dataclass

from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import (
    HF_IMAGE,
    built_template,
    conversation_name,
    for_hf,
    places_images,
    turn_end,
    with_system_message,
)
from internvl_bridge.metadata.files import CHAT_TEMPLATE_FILE

NO_SYSTEM_MESSAGE = "none"


@dataclass(frozen=True, slots=True)
class ChatSetup:
    """How the model is spoken to: the chat template, and the token that ends a turn; None where nothing tells.

    ``demanded``: a system message was asked for, so that no template that was there before will do.
    """

    template: str | None
    turn_end: str | None
    notes: tuple[str, ...]
    demanded: bool = False


def choose_chat(name: str | None, own: str | None, system_message: str | None) -> ChatSetup:
    """The chat template for a model whose config.json names ``name`` and whose tokenizer has its ``own``.

    A template of its own that places no images is the language model's, from before it saw any: upstream's
    ``chat()`` uses the named one, and so does this. ``system_message`` is rendered for conversations that
    bring none; None means upstream's, "none" means none.
    """
    conversation = CONVERSATIONS.get(name or "")
    notes = []
    if own is not None and places_images(own):
        body = for_hf(own)
        rendered = CONVERSATIONS.get(conversation_name(own, preferred=[name or ""]) or "")
        if conversation is not None and rendered is not None and rendered.opening != conversation.opening:
            notes.append(
                f"The tokenizer's own chat template is kept, although it does not render the {name!r} that config.json "
                f"names: remove it from the source to have that one, if upstream's code was used with it."
            )
            conversation = rendered
        if system_message == NO_SYSTEM_MESSAGE:
            notes.append("The tokenizer's own chat template is kept; a system message of its own making stays in it.")
    elif conversation is not None:
        body = built_template(conversation)
    elif own is not None and (guessed := conversation_name(own, preferred=())):
        body = built_template(CONVERSATIONS[guessed])
        notes.append(f"The chat template was made after the tokenizer's own, which places no images, as {guessed!r}.")
    else:
        return ChatSetup(own, None, (_no_template(name, own, system_message),), demanded=system_message is not None)
    if conversation is None and system_message is None:
        notes.append(
            f"config.json names the template {name!r}, whose default system message is not known: none is rendered. "
            f"State one with --system-message."
        )
    wanted = conversation.system_message if conversation and system_message is None else system_message
    if wanted is not None and wanted != NO_SYSTEM_MESSAGE:
        body = with_system_message(body, wanted)
    end = turn_end(body) or (conversation.turn_end if conversation else None)
    return ChatSetup(body, end, tuple(notes), demanded=system_message is not None)


def _no_template(name: str | None, own: str | None, system_message: str | None) -> str:
    has = "the tokenizer's own places no images" if own else "the tokenizer has none"
    lost = "" if system_message is None else " The system message that was asked for is not rendered."
    return (
        f"There is no chat template for images: config.json names {name!r}, which is not known, and {has}. Write one "
        f"to {CHAT_TEMPLATE_FILE}, with {HF_IMAGE} in the place of each image.{lost}"
    )
