"""A report as an HTML page that needs nothing beside itself."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from markupsafe import Markup

from internvl_bridge.pages.page import Made, Page
from internvl_bridge.pages.palette import DARK, LIGHT
from internvl_bridge.pages.templating import templates


def as_page(page: Page, made: Made) -> str:
    """``page`` as HTML.

    Its own rules (Content-Security-Policy) keep it from loading anything, and any script but its own from running.
    """
    environment = templates()
    style = environment.get_template("page.css").render(light=LIGHT, dark=DARK)
    script = files("internvl_bridge.pages").joinpath("templates/page.js").read_text("utf-8")
    return environment.get_template("page.html").render(
        page=page,
        made=made,
        style=Markup(style),  # noqa: S704 (ours)
        script=Markup(script),  # noqa: S704 (ours)
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """As https://www.w3.org/TR/CSP3/#grammardef-hash-source has it."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
