"""The guide and the README say only what is true: their commands, routes, settings, links and words exist."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from oms.app import create_app
from oms.cli import main
from oms.domain.network import KINDS
from oms.settings import Settings

PROJECT = Path(__file__).parent.parent
PAGES = sorted((PROJECT / "oms" / "docs").glob("*.md"))
EVERY = [*PAGES, PROJECT / "README.md"]
BLOCK = re.compile(r"^```\n(.*?)^```", re.S | re.M)
ROUTE = re.compile(r"\b(GET|POST|PUT|DELETE) (?:https?://[^/\s]+)?(/[\w/{}.-]+)")


def named(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=[page.name for page in pages])


def lines_of(page: Path) -> list[str]:
    """Lines of the page's blocks."""
    return [line for block in BLOCK.findall(page.read_text()) for line in block.splitlines()]


@named(EVERY)
def test_each_command_is_one_that_oms_takes(page: Path) -> None:
    commands = [line.partition("#")[0] for line in lines_of(page) if re.match(r"oms [a-z]", line)]
    commands += [c for c in re.findall(r"`(oms [^`]+)`", page.read_text()) if "·" not in c]
    for command in commands:
        words = shlex.split(command)[1:]
        group: click.Command = main
        while isinstance(group, click.Group) and words:
            if words[0] == "--help":
                break
            found = group.commands.get(words[0])
            assert found is not None, command
            group, words = found, words[1:]
        if not words or set(words) <= {"--help", "--once"}:
            continue
        for parameter in group.params:  # files of an example need not be there
            if isinstance(parameter.type, click.Path):
                parameter.type.exists = False
        try:
            group.make_context(command, words)
        except click.UsageError as error:
            raise AssertionError(f"{command}: {error.format_message()}") from error


@pytest.fixture(scope="module")
def routes() -> set[tuple[str, str]]:
    app = create_app(settings=Settings())
    return {
        (method, re.sub(r"\{(\w+):?\w*\}", "{}", route.path))
        for route in app.routes
        for handler in getattr(route, "route_handlers", [])
        for method in handler.http_methods
    }


@named(EVERY)
def test_each_route_is_there(page: Path, routes: set[tuple[str, str]]) -> None:
    for method, path in ROUTE.findall(page.read_text()):
        wanted = re.sub(r"\{\w+\}", "{}", path.rstrip("."))
        assert (method, wanted) in routes, f"{method} {path}"


@named(EVERY)
def test_each_setting_is_one(page: Path) -> None:
    named = set(re.findall(r"\bOMS_[A-Z_]+[A-Z]\b", page.read_text()))
    assert named <= {f"OMS_{name.upper()}" for name in Settings.__struct_fields__}


@named(EVERY)
def test_each_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_index_names_each_page() -> None:
    index = (PROJECT / "oms" / "docs" / "index.md").read_text()
    assert [p.name for p in PAGES if p.name != "index.md" and f"({p.name})" not in index] == []


def test_each_kind_of_exception_is_explained_and_none_else() -> None:
    files = [path.read_text() for path in (PROJECT / "oms").rglob("*.py") if "demo" not in path.parts]
    raised = {
        kind
        for text in files
        for part in text.split("Trouble(")[1:]
        if (found := re.match(r'\s*(?:kind=)?"([a-z_]+)"|[^)]{0,40}?kind="([a-z_]+)"', part))
        for kind in found.groups()
        if kind
    }
    table = (PROJECT / "oms" / "docs" / "exceptions.md").read_text().split("| kind |")[1].split("\n## ")[0]
    told = {
        w for row in table.splitlines() if row.startswith("|") for w in re.findall(r"[a-z]+[a-z_]+", row.split("|")[1])
    }
    assert raised - told == set()
    assert told - raised == set()


def test_each_column_that_a_kind_takes_is_told() -> None:
    page = (PROJECT / "oms" / "docs" / "network.md").read_text()
    missing = [
        f"{kind.name}.{column}"
        for kind in KINDS.values()
        if kind.name not in ("policies", "listeners")
        for column in kind.row.__struct_fields__
        if not re.search(rf"\b{column}\b", page)
    ]
    assert missing == []


@named(EVERY)
def test_each_block_of_json_is_json(page: Path) -> None:
    for block in BLOCK.findall(page.read_text()):
        if block.lstrip().startswith(("[{", "{")):
            json.loads(block.replace("[…]", "[]"))
