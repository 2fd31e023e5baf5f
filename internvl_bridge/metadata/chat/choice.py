"""Which chat template an HF model gets, and which token ends its turn."""

from collections.abc import Iterator
from dataclasses import dataclass

from internvl_bridge.metadata.chat.conversations import CONVERSATIONS, MESSAGE_CHANGED, Conversation
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
from internvl_bridge.notes import Warn

NO_SYSTEM_MESSAGE = "none"


@dataclass(frozen=True, slots=True)
class ChatSetup:
    """How a model is prompted: the chat template, and the token that ends a turn; None where nothing shows it.

    ``demanded``: a system message was asked for, so that no template that was there before will do. ``is_built``: the
    template was made here, and is not the tokenizer's own.
    """

    template: str | None
    turn_end: str | None
    notes: tuple[str, ...]
    demanded: bool = False
    is_built: bool = False


@dataclass(frozen=True, slots=True)
class _Template:
    """A template without a system message; ``conversation``, if known, has the default one. ``notes`` say why.

    ``is_own``: it is the tokenizer's own, whatever system messages it makes. ``is_built``: it was made here.
    """

    body: str
    conversation: Conversation | None
    notes: tuple[str, ...] = ()
    turn_end: str | None = None
    is_own: bool = False
    is_built: bool = False


def choose_chat(
    name: str | None,
    own: str | None,
    system_message: str | None,
    *,
    stated: Conversation | None = None,
    is_repair: bool = False,
) -> ChatSetup:
    """The chat template for a model whose config.json names ``name`` and whose tokenizer has its ``own``.

    A template of its own that places no images is the language model's, from before it saw any: upstream's ``chat()``
    uses the named one, and so does this. ``system_message`` is rendered for conversations that bring none; None means
    upstream's, "none" means none. ``stated`` is the conversation ``name`` as the source's own conversation.py has it.

    In a repair it is a sidecar that may name the template. A repair keeps a template for HF's processor. It also keeps
    what that renders for conversations that bring no system message, unless a ``system_message`` is asked for.
    """
    if is_repair and own is not None and HF_IMAGE in own:
        return _kept(own, system_message)
    chosen = _chosen(name, own, stated or CONVERSATIONS.get(name or ""), is_repair=is_repair)
    demanded = system_message is not None
    if chosen is None:
        return ChatSetup(own, None, (_no_template(name, own, system_message, is_repair=is_repair),), demanded=demanded)
    body, conversation, notes = chosen.body, chosen.conversation, [*chosen.notes]
    if system_message == NO_SYSTEM_MESSAGE and chosen.is_own:
        notes.append("The tokenizer's own chat template is kept; a system message of its own making stays in it.")
    if conversation is None and system_message is None:
        whose = "No sidecar names a known template, and its"
        if not is_repair:
            whose = f"config.json names the template {name!r}, whose"
        notes.append(
            Warn(f"{whose} default system message is not known: none is rendered. State one with --system-message.")
        )
    if conversation is not None and system_message is None and not is_repair:
        notes += _on_message(name, conversation, stated)
    wanted = conversation.system_message if conversation and system_message is None else system_message
    if wanted is not None and wanted != NO_SYSTEM_MESSAGE:
        body = with_system_message(body, wanted)
    return ChatSetup(body, turn_end(body) or chosen.turn_end, tuple(notes), demanded=demanded, is_built=chosen.is_built)


def _kept(own: str, system_message: str | None) -> ChatSetup:
    """A template for HF's processor, as it is but for a system message that is asked for."""
    body = for_hf(own)
    if system_message == NO_SYSTEM_MESSAGE:
        note = "The chat template is kept; a system message of its own making stays in it."
        return ChatSetup(without_system_message(body), turn_end(body), (note,), demanded=True)
    if system_message is not None:
        body = with_system_message(body, system_message)
    return ChatSetup(body, turn_end(body), (), demanded=system_message is not None)


def _on_message(name: str | None, chosen: Conversation, stated: Conversation | None) -> Iterator[str]:
    """Where the default system message of the ``chosen`` conversation is from, if that is a question."""
    if stated is not None and chosen == stated != CONVERSATIONS.get(name or ""):
        yield f"The texts of the template {name!r} are those of the source's conversation.py, its system message, too."
    if stated is None and name in MESSAGE_CHANGED and chosen == CONVERSATIONS[name]:
        yield (
            f"The system message of the template {name!r} is assumed to be that of InternVL2. The source has no "
            f"conversation.py that states it, and the releases of V1-5 had another one (--system-message)."
        )


def _chosen(name: str | None, own: str | None, named: Conversation | None, *, is_repair: bool) -> _Template | None:
    """The tokenizer's own template if it places images, else the named one, else one that is like the own one."""
    if own is not None and places_images(own):
        return _own(name, own, named, is_repair=is_repair)
    if named is not None:
        return _Template(built_template(named), named, turn_end=named.turn_end, is_built=True)
    guessed = conversation_name(own or "", preferred=())
    if guessed is None:
        return None
    note = f"The chat template was made after the tokenizer's own, which places no images, as {guessed!r}."
    conversation = CONVERSATIONS[guessed]
    return _Template(built_template(conversation), None, (note,), conversation.turn_end, is_built=True)


def _own(name: str | None, own: str, named: Conversation | None, *, is_repair: bool) -> _Template:
    """The tokenizer's own template; its default system message is that of the conversation that it renders."""
    if is_repair and named is None:
        note = "The chat template is that of a custom checkpoint, in HF's words."
        return _Template(for_hf(own), None, (note,), turn_end(own))
    rendered = CONVERSATIONS.get(conversation_name(own, preferred=[name or ""]) or "")
    end = None if named is None else named.turn_end
    if named is None or rendered is None or rendered.opening == named.opening:
        return _Template(for_hf(own), named, turn_end=end, is_own=True)
    note = Warn(
        f"The tokenizer's own chat template is kept, although it does not render the {name!r} that config.json "
        f"names. If the model was used with upstream's code, remove that template from the source to get {name!r}."
    )
    return _Template(for_hf(own), rendered, (note,), rendered.turn_end, is_own=True)


def _no_template(name: str | None, own: str | None, system_message: str | None, *, is_repair: bool) -> Warn:
    has = "the tokenizer's own places no images" if own else "the tokenizer has none"
    named = "no sidecar names a known one" if is_repair else f"config.json names {name!r}, which is not known"
    remedy = ", or give a directory that has one as --tokenizer" if is_repair else ""
    lost = "" if system_message is None else " The system message that was asked for is not rendered."
    return Warn(
        f"There is no chat template for images: {named}, and {has}. Write one to {CHAT_TEMPLATE_FILE}, with {HF_IMAGE} "
        f"in the place of each image{remedy}.{lost}"
    )
