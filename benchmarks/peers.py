"""What two servers on one PostgreSQL take to learn of changes, and to get over a failure.

    python -m benchmarks.peers [--rounds 50] [--failures 3] [--outage 10]

Starts PostgreSQL on a local socket, without durability, and two servers with the timing of `dia-server`.
Each failure waits for a lease of 30 s to end.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.live.clients import active
from tests.live.jobs import status, submit
from tests.live.peers import Peers, is_ready
from tests.live.server import Server
from tests.postgres import Postgres, running
from tests.waiting import wait_until


def seconds(condition: Callable[[], object]) -> float:
    """Wait until `condition` returns something true, up to 120 s; return the seconds that took."""
    started = time.perf_counter()
    while not condition():
        assert time.perf_counter() - started < 120
        time.sleep(0.001)
    return time.perf_counter() - started


def report(name: str, times: Sequence[float]) -> None:
    median, slowest = statistics.median(times), max(times)
    print(f"{name:50} median {median:7.3f} s, slowest {slowest:7.3f} s, n = {len(times)}", flush=True)


def change(peers: Peers, hours: int) -> float:
    """Return the seconds from the answer to a change until the other server has it, polled over HTTP."""
    first, second = peers.servers
    first.put("/config", json={"output_retention_hours": hours})
    return seconds(lambda: second.get("/config").json()["output_retention_hours"] == hours)


def cancellation(peers: Peers) -> tuple[float, float]:
    """Return the seconds until a job has begun, and until its cancellation elsewhere has stopped it."""
    job_id = peers.submit_held(peers.servers[0], "never")
    begun = seconds(lambda: job_id in peers.running())
    owner = peers.running()[job_id]
    wait_until(lambda: active(owner) == 1)
    peers.other(owner).delete(f"/jobs/{job_id}")
    return begun, seconds(lambda: active(owner) == 0)


def takeover(peers: Peers, number: int) -> float:
    job_id = peers.submit_held(peers.servers[0], f"taken{number}")
    owner = peers.wait_for_running()[job_id]
    heir = peers.other(owner)
    owner.kill()
    taken = seconds(lambda: peers.running().get(job_id) is heir)
    peers.release(f"taken{number}")
    wait_until(lambda: status(heir, job_id) == "completed")
    owner.start()
    return taken


def leader(peers: Peers) -> Server | None:
    held = peers.query(
        "SELECT server_id FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "JOIN servers ON application = application_name "
        "WHERE locktype = 'advisory' AND objsubid = 1 AND application_name LIKE 'dia-server %%' "
        "AND datname = current_database()"
    )
    return next((peers.ids().get(server_id) for (server_id,) in held), None)


def new_leader(peers: Peers, *, stopped: bool) -> float:
    """Kill or stop the leader; return the seconds until the other server leads."""
    wait_until(lambda: leader(peers))
    former = leader(peers)
    assert former is not None
    heir = peers.other(former)
    started = time.perf_counter()
    if stopped:
        former.stop()
    else:
        former.kill()
    seconds(lambda: leader(peers) is heir)
    taken = time.perf_counter() - started
    former.start()
    return taken


def outage(peers: Peers, postgres: Postgres, outage_s: float) -> None:
    postgres.stop()
    wait_until(lambda: not any(map(is_ready, peers.servers)))
    time.sleep(outage_s)
    postgres.start()
    first, second = peers.servers
    report("after an outage: both servers are ready", [seconds(lambda: all(map(is_ready, peers.servers)))])
    job_id = submit(first, "Hello.")
    report("after an outage: a job is completed", [seconds(lambda: status(first, job_id) == "completed")])
    first.put("/config", json={"save_outputs": True})
    report(
        "after an outage: a setting holds", [seconds(lambda: second.get("/config").json()["save_outputs"])]
    )
    report("after an outage: a server leads", [seconds(lambda: leader(peers))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--failures", type=int, default=3)
    parser.add_argument("--outage", type=float, default=10.0)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(running())
        peers = stack.enter_context(Peers(folder, postgres.create(), usual_timing=True))
        heard = [change(peers, 100 + number) for number in range(given.rounds)]
        report("a setting holds on the other server", heard)
        begun, stopped = zip(*(cancellation(peers) for _ in range(given.rounds)), strict=True)
        report("a job begins", begun)
        report("a job that the other server cancels has stopped", stopped)
        outage(peers, postgres, given.outage)
        for gently, name in ((True, "stopped"), (False, "killed")):
            times = [new_leader(peers, stopped=gently) for _ in range(given.failures)]
            report(f"the other server leads after one is {name}", times)
        times = [takeover(peers, number) for number in range(given.failures)]
        report("a job of a killed server runs on the other", times)


if __name__ == "__main__":
    main()
