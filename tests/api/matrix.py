"""Who may do what, as the guide tells it: made from the route table.

python -m tests.api.matrix        # writes it into the guide page anew
"""

import re
from pathlib import Path

from litestar import Litestar
from litestar.routes import HTTPRoute

from oms import access
from oms.api import PUBLIC
from oms.app import create_app
from oms.settings import Settings

PAGE = Path(__file__).parent.parent.parent / "oms" / "docs" / "keys-and-roles.md"
HEAD = "## Every call"
MARK = "•"


def calls(app: Litestar) -> list[tuple[str, str, frozenset[str]]]:
    """Every (address, method, roles) that needs a key, in the order of addresses."""
    return sorted(
        (re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path), method, handler.opt["roles"])
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods - {"OPTIONS"}
        if handler.opt["roles"] != PUBLIC
    )


def table(app: Litestar) -> str:
    """The table of the guide: a row per call, a column per role."""
    rows = [("call", *access.ROLES), ("---",) * (1 + len(access.ROLES))]
    rows += [
        (f"`{method} {path}`", *(MARK if role in roles else "" for role in access.ROLES))
        for path, method, roles in calls(app)
    ]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |") for cells in rows)


def written(page: str, app: Litestar) -> str:
    """The page with the table as it must be, at its end."""
    before = page.partition(HEAD)[0].rstrip()
    told = "Made from the routes of the service; a key bound to a channel, a store or a source does so for its own part only."
    return f"{before}\n\n{HEAD}\n\n{told}\n\n{table(app)}\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), create_app(settings=Settings())))
