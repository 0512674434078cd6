"""The states of a fulfillment and the steps between them. Pure."""

NEXT = {
    "released": {"accept": "accepted"},
    "accepted": {"pick": "picked"},
    "picked": {"pack": "packed", "ship": "shipped"},
    "packed": {"ship": "shipped"},
    "ready": {"ship": "handed_over"},
}
"""Steps that a state allows. Packing may be left out; a pick-up that is packed is ready."""
UNPICKED = frozenset({"released", "accepted"})
_DONE = {
    "accept": {"accepted", "picked", "packed", "ready", "shipped", "handed_over"},
    "pick": {"picked", "packed", "ready", "shipped", "handed_over"},
    "pack": {"packed", "ready", "shipped", "handed_over"},
    "ship": {"shipped", "handed_over"},
}


def after_step(state: str, step: str, *, is_pickup: bool) -> str | None:
    """The state after a step; the same where it was done before; None where it is not possible."""
    if state in _DONE[step]:
        return state
    following = NEXT.get(state, {}).get(step)
    if is_pickup and state == "picked" and step == "ship":
        return None
    return "ready" if is_pickup and following == "packed" else following
