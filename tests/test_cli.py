"""The command line: help at once, one sentence for what is refused, exit codes that mean something, JSON that is whole."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import oms.demo
from oms.cli import main
from oms.db import Database
from oms.settings import Settings
from tests.demand import allocated, ship
from tests.feeding import ask, on_hand
from tests.world import Net, set_stock, small_network

COMMANDS = sorted(main.commands)
AS_OF = "2026-11-20T09:00:00Z"
PROGRAM = "from oms.cli import main; main(prog_name='oms')"
SECONDS_MAX = 120


class Told:
    """What a command ended with, wrote and said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self) -> Any:
        """Standard output, which is JSON and nothing else."""
        return json.loads(self.out)


class Shell:
    """Runs `oms` in a process of its own."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.variables = folder, variables

    async def __call__(self, *words: str | Path, **variables: str) -> Told:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("OMS_")} | self.variables | variables
        return Told(
            await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", PROGRAM, *map(str, words)], env=environ, cwd=self.folder,
                capture_output=True, text=True, check=False, timeout=SECONDS_MAX, stdin=subprocess.DEVNULL,
            )
        )  # fmt: skip

    def file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path


@pytest.fixture
def shell(settings: Settings, tmp_path: Path) -> Shell:
    return Shell(tmp_path, OMS_DATABASE_URL=settings.database_url, OMS_REDIS_URL=settings.redis_url)


@pytest.fixture
async def net(db: Database) -> Net:
    return await small_network(db)


@pytest.mark.parametrize("command", ["", *COMMANDS])
async def test_each_command_explains_itself_without_any_server(tmp_path: Path, command: str) -> None:
    told = await Shell(tmp_path)(*command.split(), "--help", OMS_DATABASE_URL="postgresql://localhost:1/none")
    assert (told.code, told.err) == (0, "")
    assert "Usage: oms" in " ".join(told.out.split())


@pytest.mark.parametrize(
    "words",
    ["nonsense", "demo --size huge", "baseline erp", "load skus nowhere.csv", "load trolls x.csv", "broker --seconds -1",
     "settlement 2026-11 --csv --json", "key create --role king", "trace pos", "demo --port 70000", "up --workers 0"],
)  # fmt: skip
async def test_wrong_usage_ends_with_2_and_says_what_is_wrong(tmp_path: Path, words: str) -> None:
    told = await Shell(tmp_path)(*words.split())
    assert (told.code, told.out) == (2, "")
    assert "Error" in told.err and "Traceback" not in told.err


async def test_a_database_that_does_not_answer_is_told_in_one_sentence(tmp_path: Path) -> None:
    shell = Shell(tmp_path, OMS_REDIS_URL="redis://127.0.0.1:1")
    told = await shell("verify", OMS_DATABASE_URL="postgresql://me:hidden@127.0.0.1:1/none")
    assert (told.code, told.out, told.err.count("\n")) == (1, "", 1)
    assert "oms: The database at 127.0.0.1:1/none cannot be used" in told.err and "hidden" not in told.err


async def test_a_setting_that_is_wrong_is_named(shell: Shell) -> None:
    told = await shell("verify", OMS_PORT="many")
    assert (told.code, told.err.count("\n")) == (1, 1)
    assert "OMS_PORT" in told.err and "many" in told.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("baseline nobody good.csv --as-of 2026-11-20T09:00:00Z", "nobody"),
        ("baseline erp good.csv --as-of yesterday", "--as-of 'yesterday' is not a time"),
        ("baseline erp good.csv --as-of 2026-11-20T09:00:00", "offset"),
        ("baseline erp good.csv --as-of 2086-11-20T09:00:00Z", "future"),
        ("baseline erp good.csv --as-of 2026-11-20T09:00:00Z --watermark pos", "is not SOURCE=N"),
        ("baseline erp zip.csv --as-of 2026-11-20T09:00:00Z", "ZIP archive"),
        ("baseline erp empty.csv --as-of 2026-11-20T09:00:00Z", "empty"),
        ("movements nobody good.csv", "nobody"),
        ("load skus zip.csv", "zip.csv"),
        ("load skus empty.csv", "empty"),
        ("push nobody", "nobody"),
        ("trace pos nothing", "nothing"),
        ("settlement november", "2026-11"),
        ("reconcile nobody good.csv", "nobody"),
        ("key create --role storefront --channel nobody", "nobody"),
    ],
)
async def test_what_is_refused_is_one_sentence_and_ends_with_1(shell: Shell, net: Net, words: str, says: str) -> None:
    shell.file("good.csv", "sku,location,quantity\nA,S1,5\n")
    shell.file("empty.csv", "")
    (shell.folder / "zip.csv").write_bytes(b"PK\x03\x04\xff\xfe")
    told = await shell(*words.split())
    assert (told.code, told.out) == (1, ""), told.err
    assert told.err.startswith("oms: ") and says in told.err and "Traceback" not in told.err


async def test_a_key_is_the_last_word_and_opens_the_api(shell: Shell, db: Database, net: Net) -> None:
    told = await shell("key", "create", "--role", "admin", "--person", "Ada")
    assert told.code == 0, told.err
    key = told.out.split()[-1]
    assert key.startswith("cp_") or len(key) > 20
    assert await ask(db, "select count(*) from api_key where role = 'admin' and person = 'Ada'") == 1
    assert key not in str(await ask(db, "select array_agg(k::text) from api_key k"))


async def test_a_day_from_the_command_line(shell: Shell, db: Database, net: Net) -> None:
    good = shell.file("good.csv", "sku,location,quantity\nA,S1,5\nB,S1,3\n")
    shown = await shell("baseline", "erp", good, "--as-of", AS_OF, "--dry-run", "--json")
    assert (shown.code, shown.json[0]["totals"]["units_up"], await on_hand(db, "A", "S1")) == (0, 8, 0)
    taken = await shell("baseline", "erp", good, "--as-of", AS_OF, "--json")
    assert (taken.code, taken.json[0]["applied"]["changed"], await on_hand(db, "A", "S1")) == (0, 2, 5)
    bad = shell.file("bad.csv", "sku,location,quantity\nA,S1,many\nB,S1,4\n")
    refused = await shell("baseline", "erp", bad, "--as-of", "2026-11-20T10:00:00Z")
    assert (refused.code, await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (3, 5, 4)
    assert "line 2, quantity" in refused.out and "many" in refused.out
    moves = shell.file("moves.csv", "id,sku,location,kind,quantity,occurred_at\nm1,A,S1,sale,1,2026-11-20T11:00:00Z\n")
    for outcome in ("applied", "duplicate"):
        sold = await shell("movements", "pos", moves, "--json")
        assert (sold.code, sold.json[0]["outcomes"]) == (0, {outcome: 1})
    assert await on_hand(db, "A", "S1") == 4
    for words, code in (
        (("broker", "--dry-run", "--json"), 0), (("broker", "--json"), 0), (("push", "--json"), 0),
        (("verify", "--json"), 0), (("trace", "pos", "m1", "--json"), 0), (("config", "--json"), 0),
        (("morning", "--json"), 0), (("reconcile", "erp", good, "--json"), 0), (("migrate", "--json"), 0),
    ):  # fmt: skip
        told = await shell(*words)
        assert told.code == code, (words, told.out, told.err)
        assert told.json is not None


async def test_verify_ends_with_1_where_stock_is_not_what_the_ledger_says(shell: Shell, db: Database, net: Net) -> None:
    good = shell.file("good.csv", "sku,location,quantity\nA,S1,5\n")
    await shell("baseline", "erp", good, "--as-of", AS_OF)
    assert (await shell("verify")).code == 0
    async with db.transaction() as tx:
        await tx.execute("update stock set on_hand = 6")
    told = await shell("verify")
    assert (told.code, "A at S1: kept on_hand 6" in told.out) == (1, True), told.out


async def test_a_mapping_that_is_loaded_takes_up_what_waited_for_it(shell: Shell, db: Database, net: Net) -> None:
    moves = shell.file(
        "moves.csv", "id,sku,location,kind,quantity,occurred_at\nm1,new,S1,receipt,3,2026-11-20T11:00:00Z\n"
    )
    assert (await shell("movements", "erp", moves)).code == 3
    loaded = await shell("load", "skus", shell.file("skus.csv", "code,name\nnew,A new one\n"))
    assert (loaded.code, "1 that had waited" in loaded.out) == (0, True)
    assert await on_hand(db, "new", "S1") == 3


async def test_a_period_is_told_as_lines_csv_and_json_and_ends_with_3_while_prices_are_missing(
    shell: Shell, db: Database, net: Net
) -> None:
    for sku in ("A", "B"):
        await set_stock(db, sku=sku, location="S1", quantity=9)
    shell.file("parties.csv", "code\nweb\nstores\n")
    shell.file("locations.csv", "code,division\nS1,stores\n")
    shell.file("channels.csv", "code,division\nweb,web\n")
    shell.file("transfer_prices.csv", "code,owner,buyer,sku,category,cents,percent,percent_of,from_on\n"
               "p,stores,web,A,,,70,price,2026-01-01\n")  # fmt: skip
    for kind in ("parties", "locations", "channels", "transfer_prices"):
        loaded = await shell("load", kind, f"{kind}.csv")
        assert loaded.code == 0, loaded.err
    await ship(db, await allocated(db, net, "N1", ("A", 2, "S1"), ("B", 1, "S1")))
    told = await shell("settlement", "2026-11")
    assert told.code == 3, told.err
    assert "web owes stores 1,400 cents USD for 2 units (sale 1,400)" in told.out
    assert "1 units wait for stores>web:B" in told.out
    assert (await shell("settlement", "2026-11", "--csv")).out.splitlines() == [
        "period,state,debtor,creditor,currency,kind,units,cents", "2026-11,open,web,stores,USD,sale,2,1400",
    ]  # fmt: skip
    assert (await shell("settlement", "2026-11", "--json")).json["balances"] == [
        {"party": "stores", "currency": "USD", "cents": 1400}, {"party": "web", "currency": "USD", "cents": -1400},
    ]  # fmt: skip
    assert (await shell("settlement", "2026-10")).code == 0


async def test_routings_are_imported_compared_and_drafted_from_the_command_line(
    shell: Shell, db: Database, net: Net
) -> None:
    sample = Path(oms.demo.__file__).parent / "data" / "routings.json"
    told = await shell("routings", "import", sample, "--name", "ours")
    assert (told.code, told.out.strip()) == (0, "ours: 2 routings with 6 rules are followed.")
    compared = await shell("routings", "compare", "ours", "--open", "--json")
    assert [p["name"] for p in compared.json["plans"]] == ["in force", "routings ours"]
    drafted = await shell("routings", "draft", "ours")
    assert drafted.out.startswith("ours-1:\n") and "not carried over" in drafted.out
    broken = shell.file("broken.json", sample.read_text().replace("ORA_MULTI", "ORA_ALL"))
    told = await shell("routings", "import", broken)
    assert (told.code, told.err.count("\n")) == (1, 1) and "neither ORA_SINGLE nor ORA_MULTI" in told.err
