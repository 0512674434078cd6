"""What customers send back: expected or blind, received under a hold, inspected, sent on by rule, refunded once."""

from oms.flows.returns.expect import Sent, announce
from oms.flows.returns.inspect import Found, inspect
from oms.flows.returns.look import Return, RuleShown, listed, set_rule, shown_rules
from oms.flows.returns.receive import Came, receive

__all__ = [
    "Came",
    "Found",
    "Return",
    "RuleShown",
    "Sent",
    "announce",
    "inspect",
    "listed",
    "receive",
    "set_rule",
    "shown_rules",
]
