"""Who owes whom between divisions, consignors and vendors: entries, what a period adds up to, and its end.

Entries are made by `oms.owed`, in the transaction in which units leave or come back.
"""

from oms.flows.settlement.look import Entry, Report, listed, report
from oms.flows.settlement.periods import approve, ask_to_close, correct

__all__ = ["Entry", "Report", "approve", "ask_to_close", "correct", "listed", "report"]
