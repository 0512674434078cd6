"""Pieces of a run as tasks that any process can do: prices of a shard, its bound, its near rows, a piece planned again.

A task is a few numbers and arrays; what many tasks need (the matrix, the orders of a shard, the rows of a generation of
candidates) is shared once, by name. A task changes nothing but its own memory `kept`, which may be lost at any time:
done twice, or by another process, it gives the same answer.
"""

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from brokering.explain import decisions
from brokering.flow import arcs_of, single_units
from brokering.matrix import Bounds, Floats, Ints, Matrix
from brokering.near import near_rows
from brokering.piece import replanned
from brokering.prices import Group, Prices, bound_of, candidates, evaluate, wanted_cells, with_rows
from brokering.rounds import State

Arrays = dict[str, Any]


class Shared(Protocol):
    """What was shared by name: in this process's memory, in files, or fetched from elsewhere."""

    def get(self, name: str) -> Arrays: ...


@dataclass(frozen=True)
class Task:
    """One of: wanted, step, bound, explain, groups, arcs, near (of a shard, at a generation of its candidates), piece."""

    kind: str
    shard: int
    generation: int
    given: Arrays


class Executor(Protocol):
    """Does tasks: in this process, in processes of this machine, or on other machines."""

    def share(self, name: str, value: Arrays) -> None:
        """Makes arrays known by a name to every task that is done afterwards."""
        ...

    def run(self, tasks: list[Task]) -> list[Any]:
        """The results of tasks, in their order; a task whose process dies is done again."""
        ...


def do(task: Task, shared: Shared, kept: dict[Any, Any]) -> Any:
    """The result of a task. `kept` spares work between tasks of a process; it may be empty."""
    m = _matrix(shared, kept)
    given = task.given
    if task.kind == "piece":
        rows = shared.get(f"rows-{task.generation}")
        rest = {name: value for name, value in given.items() if name not in ("stock", "work")}
        return replanned(m, Prices(given["stock"], given["work"], rows["row_of"], rows["room"]), **rest)
    if task.kind == "explain":
        rows = shared.get(f"rows-{task.generation}")
        price = Prices(given["stock"], given["work"], rows["row_of"], rows["room"])
        state = State(m, given["left"])
        state.at, state.capacity = given["at"], given["capacity"]
        ids = shared.get("ids")["orders"].tolist()
        return decisions(ids, m, state, given["start"], price, first=given["first"], end=given["end"])
    if task.kind == "arcs":
        mine = np.asarray(shared.get(f"orders-{task.shard}")["orders"])
        rows = shared.get(f"rows-{task.generation}")
        price = Prices(given["stock"], given["work"], rows["row_of"], rows["room"])
        return arcs_of(m, single_units(m, mine), price, room=given["left"], at=given["at"])
    groups, rows = _groups(task, m, shared, kept)
    if task.kind == "wanted":
        return wanted_cells(m, groups)
    price = Prices(given["stock"], given["work"], rows["row_of"], rows["room"])
    if task.kind == "step":
        return evaluate(m, groups, price)
    if task.kind == "groups":
        return groups
    if task.kind == "near":
        return near_rows(m, groups, price)
    if task.kind == "bound":
        return bound_of(m, np.asarray(shared.get(f"orders-{task.shard}")["orders"]), price)
    raise AssertionError(f"{task.kind} is no task")


def _matrix(shared: Shared, kept: dict[Any, Any]) -> Matrix:
    if "matrix" not in kept:
        kept["matrix"] = unpacked(shared.get("matrix"))
    matrix: Matrix = kept["matrix"]
    return matrix


def _groups(task: Task, m: Matrix, shared: Shared, kept: dict[Any, Any]) -> tuple[list[Group], Arrays]:
    """The candidates of a shard, chosen at the prices of the generation before, with the rows of this one."""
    if task.kind == "bound":
        return [], shared.get(f"rows-{task.generation}")
    key = ("groups", task.shard, task.generation)
    if key not in kept:
        for old in [k for k in kept if k[:2] == key[:2]]:
            del kept[old]
        before = None
        if task.generation:
            p = shared.get(f"prices-{task.generation}")
            before = Prices(p["stock"], p["work"], p["row_of"], p["room"])
        kept[key] = candidates(m, np.asarray(shared.get(f"orders-{task.shard}")["orders"]), before)
    if task.kind == "wanted":
        return kept[key], {}
    rows = shared.get(f"rows-{task.generation}")
    if ("rowed", *key) not in kept:
        for old in [k for k in kept if k[:3] == ("rowed", *key[:2])]:
            del kept[old]
        kept[key] = [with_rows(g, rows["row_of"]) for g in kept[key]]
        kept["rowed", *key] = True
    return kept[key], rows


def packed(m: Matrix) -> Arrays:
    """A matrix as plain arrays by name."""
    out: Arrays = {}
    for f in fields(Matrix):
        value = getattr(m, f.name)
        if f.name == "cell_terms":
            out |= {f"cell_terms.{name}": table for name, table in value.items()}
        elif f.name == "limits":
            for i, b in enumerate(value):
                head = np.array([b.policy, b.cents, -1 if b.late_days_max is None else b.late_days_max], float)
                out |= {f"limits.{i}.head": head, f"limits.{i}.barred": b.barred}
                out |= {} if b.too_far is None else {f"limits.{i}.too_far": b.too_far}
        else:
            out[f.name] = np.asarray(value)
    return out


def unpacked(arrays: Arrays) -> Matrix:
    """The matrix of `packed`."""
    given = {f.name: arrays[f.name] for f in fields(Matrix) if f.name in arrays}
    limits: list[Bounds] = []
    while (head := arrays.get(f"limits.{len(limits)}.head")) is not None:
        name = f"limits.{len(limits)}"
        late = None if head[2] < 0 else int(head[2])
        limits.append(
            Bounds(int(head[0]), float(head[1]), arrays[f"{name}.barred"], arrays.get(f"{name}.too_far"), late)
        )
    terms = {name.split(".")[1]: table for name, table in arrays.items() if name.startswith("cell_terms.")}
    return Matrix(**{**given, "days": int(given["days"])}, limits=tuple(limits), cell_terms=terms)


def shards_of(orders: Ints, size: int) -> list[Ints]:
    """Orders in shards of about `size`, at least two where there are more than a few."""
    count = 1 if len(orders) < 2000 else max(2, -(-len(orders) // size))
    return [orders[i::count] for i in range(count)]


def added(results: list[tuple[float, Floats, Floats]]) -> tuple[float, Floats, Floats]:
    """Value, use of rows and work of all shards together."""
    first = results[0]
    return (
        sum(r[0] for r in results),
        sum((r[1] for r in results[1:]), first[1]),
        sum((r[2] for r in results[1:]), first[2]),
    )
