"""The named statements of sql/ledger.sql."""

from oms.db import Sql

sql = Sql("ledger")
