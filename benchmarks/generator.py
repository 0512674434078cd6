"""Load over raw sockets, from a process of its own: fast enough that the server is what is measured.

    python -m benchmarks.generator

Each line of its standard input is an order: {"host","port","requests":[text…],"connections","seconds","per_second"};
it answers each with one line, a `Report`. Without `per_second` each connection sends again when it is answered (closed
loop). With it requests come by the clock, whether or not those before are answered (open loop), and a request's time
begins when it was due. It counts its own CPU: where that is nearly a whole core, the run says nothing of the server.
"""

import select
import socket
import sys
import time
from collections import deque

import msgspec

RECEIVE_BYTES = 262_144
ANSWER_SECONDS_MAX = 30.0
AGAIN_SECONDS = 0.2


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, over how many connections, for how long; `per_second` for arrivals that do not wait.

    `requests` are sent in turn, each whole as it stands; `times` ends the run after so many answers. With `again` one
    that is answered 503 is sent again soon, as it stands, until it is answered otherwise.
    """

    host: str
    port: int
    requests: list[str]
    connections: int
    seconds: float
    per_second: float | None = None
    times: int | None = None
    again: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Answers by status, per second, the times of each in milliseconds, and the generator's share of a core."""

    answers: int
    statuses: dict[str, int]
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    cpu_share: float
    backlog: int


class Connection:
    """One socket, at most one request on its way."""

    __slots__ = ("began", "buffer", "missing", "request", "sock")

    def __init__(self, load: Load) -> None:
        self.sock = socket.create_connection((load.host, load.port), timeout=ANSWER_SECONDS_MAX)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.buffer = b""
        self.missing = -1
        self.began = 0.0
        self.request = b""

    def send(self, request: bytes, *, began: float) -> None:
        """A request goes; its time began then."""
        self.request, self.began = request, began
        self.sock.send(request)

    def received(self) -> int | None:
        """The status of the answer that is complete now; None while it is not. Raises ConnectionError."""
        try:
            part = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        if not part:
            raise ConnectionError("the server closed the connection")
        self.buffer = self.buffer + part if self.buffer else part
        if self.missing < 0:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return None
            start = self.buffer.lower().find(b"content-length: ", 0, head + 2)
            length = int(self.buffer[start + 16 : self.buffer.find(b"\r\n", start)]) if start >= 0 else 0
            self.missing = head + 4 + length
        if len(self.buffer) < self.missing:
            return None
        status = int(self.buffer[9:12])
        self.buffer, self.missing = self.buffer[self.missing :], -1
        return status


def run(load: Load) -> Report:
    """Sends for as long as it says. Raises ConnectionError where the server closes, TimeoutError where it is silent."""
    requests = [text.encode() for text in load.requests]
    found = [Connection(load) for _ in range(load.connections)]
    by_number = {c.sock.fileno(): c for c in found}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    idle: deque[Connection] = deque(found)
    later: deque[tuple[float, Connection]] = deque()
    statuses: dict[int, int] = {}
    times: list[float] = []
    sent, busy = 0, 0
    cpu, began = time.process_time(), time.perf_counter()
    end = began + load.seconds
    step = 1 / load.per_second if load.per_second else 0.0
    due = began
    most = load.times or sys.maxsize
    while True:
        now = time.perf_counter()
        is_over = now >= end or sent >= most
        if is_over and not busy:
            break
        if now > end + ANSWER_SECONDS_MAX:
            raise TimeoutError(f"{busy} requests had no answer after {ANSWER_SECONDS_MAX:g} s")
        while idle and not is_over and (not step or due <= now):
            c = idle.popleft()
            c.send(requests[sent % len(requests)], began=due if step else time.perf_counter())
            due += step
            sent += 1
            busy += 1
            is_over = sent >= most
        while later and later[0][0] <= now:
            _, c = later.popleft()
            c.send(c.request, began=c.began)
        wait = 0.005 if later else 0.05 if not step or not idle else max(0.0, min(0.05, due - time.perf_counter()))
        for number, _ in poll.poll(wait):
            c = by_number[number]
            status = c.received()
            if status is None:
                continue
            statuses[status] = statuses.get(status, 0) + 1
            if status == 503 and load.again:
                later.append((time.perf_counter() + AGAIN_SECONDS, c))
                continue
            busy -= 1
            times.append(time.perf_counter() - c.began)
            if step or time.perf_counter() >= end or sent >= most:
                idle.append(c)
            else:
                c.send(requests[sent % len(requests)], began=time.perf_counter())
                sent += 1
                busy += 1
    seconds = time.perf_counter() - began
    backlog = max(0, int((min(end, time.perf_counter()) - due) / step)) if step else 0
    for c in found:
        c.sock.close()
    times.sort()
    return Report(
        answers=len(times), statuses={str(k): v for k, v in statuses.items()}, seconds=seconds,
        per_second=len(times) / seconds, p50_ms=_at(times, 0.5), p99_ms=_at(times, 0.99), worst_ms=_at(times, 1.0),
        cpu_share=(time.process_time() - cpu) / seconds, backlog=backlog,
    )  # fmt: skip


def _at(times: list[float], share: float) -> float:
    return 1000 * times[min(len(times) - 1, int(share * len(times)))] if times else 0.0


def main() -> None:
    """Orders in, reports out, until the input ends."""
    print("true", flush=True)
    for line in sys.stdin:
        report = run(msgspec.json.decode(line, type=Load))
        print(msgspec.json.encode(report).decode(), flush=True)


if __name__ == "__main__":
    main()
