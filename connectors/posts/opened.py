"""Posters by their settings."""

from collections.abc import Callable, Mapping
from typing import Any

from connectors.channels import SettingsWrong
from connectors.posts import Poster
from connectors.posts.file import FilePoster
from connectors.posts.webhook import WebhookPoster

KINDS: Mapping[str, Callable[[Mapping[str, Any]], Poster]] = {"webhook": WebhookPoster.of, "file": FilePoster.of}
_KNOWN = {
    "webhook": {"url", "secrets", "allow_hosts"},
    "file": {"folder", "format", "marker"},
}
_ALL = {"kind", "acknowledge_minutes", "acknowledges_on_receipt", "batch_max"}
MINUTES_MAX = 10_080
BATCH_MAX = 500
BATCH_MOST = 10_000


def poster_of(settings: Mapping[str, Any]) -> Poster:
    """The poster of a source. Raises SettingsWrong that says which setting is wrong and what is expected."""
    kind = str(settings.get("kind"))
    if kind not in KINDS:
        raise SettingsWrong(f"kind: {kind} is none of {', '.join(KINDS)}")
    for name in settings:
        if name not in _ALL | _KNOWN[kind]:
            raise SettingsWrong(f"{name}: is no setting of a {kind}; {', '.join(sorted(_ALL | _KNOWN[kind]))} are")
    for name, most in (("acknowledge_minutes", MINUTES_MAX), ("batch_max", BATCH_MOST)):
        given = settings.get(name, 1)
        if type(given) is not int or not 1 <= given <= most:
            raise SettingsWrong(f"{name}: a whole number from 1 to {most} is expected, not {given!r}")
    if type(settings.get("acknowledges_on_receipt", False)) is not bool:
        raise SettingsWrong("acknowledges_on_receipt: true or false is expected")
    return KINDS[kind](settings)
