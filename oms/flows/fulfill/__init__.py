"""A location works: accepts, picks, packs, ships or hands over; or rejects, and its lines are open again."""

from oms.domain.fulfillment import Rejected
from oms.flows.fulfill.look import Task, task, tasks
from oms.flows.fulfill.reject import reject, take_back
from oms.flows.fulfill.relieve import relieve
from oms.flows.fulfill.steps import advance

__all__ = ["Rejected", "Task", "advance", "reject", "relieve", "take_back", "task", "tasks"]
