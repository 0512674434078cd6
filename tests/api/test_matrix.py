"""The guide's table of calls and roles is the one that the service keeps to."""

from oms import access
from oms.app import create_app
from oms.settings import Settings
from tests.api.matrix import PAGE, calls, written


def test_the_guide_tells_of_each_call_who_may_do_it() -> None:
    page = PAGE.read_text()
    assert page == written(page, create_app(settings=Settings())), "run: python -m tests.api.matrix"


def test_each_role_has_calls_of_its_own_kind_and_only_an_admin_has_all() -> None:
    found = calls(create_app(settings=Settings()))
    mine = {role: {(path, method) for path, method, roles in found if role in roles} for role in access.ROLES}
    assert mine["admin"] == {(path, method) for path, method, _ in found}
    assert all(mine[role] < mine["admin"] for role in access.ROLES if role != "admin")
    assert all(mine[role] for role in access.ROLES)
    # who plans changes no order and no stock; who asks for a loss does not agree to it
    work = ("orders", "reservations", "fulfillments", "collections", "receipts", "transfers", "counts", "write-offs",
            "returns", "feeds", "holds")  # fmt: skip
    assert not [call for call in mine["planner"] if call[1] != "GET" and call[0].split("/")[2] in work]
    for role in ("storefront", "associate", "integrator", "planner", "operator"):
        assert ("/v1/write-offs/{write_off_id}/approve", "POST") not in mine[role]
    assert not any("fulfillments" in path for path, _ in mine["storefront"] | mine["integrator"])
