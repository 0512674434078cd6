"""What waits for a price or a party is looked at again: nothing is forgotten because somebody closed its exception."""

from oms import owed
from oms.db import Database, Sql

sql = Sql("settlement")

forget_unsaid = sql.run("forget_unsaid")


async def watch(db: Database) -> int:
    """Makes entries of what waited and no longer has to, and tells again of what does; gives how many were made."""
    async with db.transaction() as tx:
        await forget_unsaid(tx)
        return await owed.make_entries(tx, None, who="oms")
