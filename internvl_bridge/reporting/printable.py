"""Texts from strangers, as reports show them."""

from internvl_bridge.reporting.commands import NO_BREAK


def printable(text: str) -> str:
    r"""``text`` without control characters: keys and file names come from strangers.

    Example:
        >>> printable("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == NO_BREAK else c.encode("unicode_escape").decode() for c in text)
