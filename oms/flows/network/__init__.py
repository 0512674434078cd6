"""The network: who holds stock, who tells us about it, who sells it.

change (rows checked, applied, kept) → follow (segments and stock under the new rules, in chunks); look (as it is).
"""

from oms.flows.network.change import Loaded, load
from oms.flows.network.follow import follow, move_layouts, rewrite_locations
from oms.flows.network.look import Page, listed, past, show

__all__ = ["Loaded", "Page", "follow", "listed", "load", "move_layouts", "past", "rewrite_locations", "show"]
