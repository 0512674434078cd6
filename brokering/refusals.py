"""What cannot be planned is refused by name."""

from brokering.problem import TERMS, Problem


def check(problem: Problem) -> None:
    """Raises ValueError for what contradicts itself: doubled names, lines without an order, unknown policies."""
    orders = {o.order_id for o in problem.orders}
    if len(orders) != len(problem.orders):
        raise ValueError("an order stands twice in the problem; give each order once")
    if len({n.location_id for n in problem.locations}) != len(problem.locations):
        raise ValueError("a location stands twice in the problem; give each location once")
    if len({n.line_id for n in problem.lines}) != len(problem.lines):
        raise ValueError("a line stands twice in the problem; give each line once")
    for n in problem.lines:
        if n.order_id not in orders:
            raise ValueError(f"line {n.line_id} names order {n.order_id!r}, which is not among the problem's orders")
        if n.quantity < 1:
            raise ValueError(f"line {n.line_id} has quantity {n.quantity}; leave out lines with nothing open")
        if n.alone and n.together is not None:
            raise ValueError(f"line {n.line_id} is to go alone and together with others; take one of them away")
    for place in problem.locations:
        if not place.leave_days:
            raise ValueError(f"location {place.location_id} has no day of leaving; give at least one")
    if problem.labor and not problem.policy.overtaking:
        raise ValueError(
            "limits of labor need a policy that lets classes be overtaken: minutes have no order of classes"
        )
    policies = (problem.policy, *problem.policies)
    for o in problem.orders:
        if o.policy is not None and not 0 <= o.policy < len(problem.policies):
            raise ValueError(f"order {o.order_id!r} names policy {o.policy} of {len(problem.policies)}")
    for policy in policies:
        t = policy.tariff
        if not len(t.parcel_cents) == len(t.pound_cents) == len(t.days) == len(t.miles) + 1:
            raise ValueError("a tariff needs one more price, pound price and days than it has limits in miles")
        if t.miles != problem.policy.tariff.miles:
            raise ValueError("the tariffs of a problem's policies must have the same limits in miles")
        if unknown := sorted(policy.weights.keys() - {*TERMS}):
            raise ValueError(f"{unknown[0]} is no term of cost; {', '.join(TERMS)} are")
        if min(policy.weights.values(), default=0) < 0:
            raise ValueError("a weight below 0 would pay for what costs; give 0 or more")
