"""Claims, completes or cancels jobs of a PostgreSQL database, at the same time as another process.

`racer.py URL OWNER ACTION` is one of both servers. For each line that it reads, it claims a job, or completes
or cancels the job with this id, and prints the id if the database said yes, else an empty line.
"""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dia_server.db.engine import Database
from dia_server.services.jobs.store import JobStore
from dia_server.services.peers import Membership


async def race(url: str, owner: str, action: str) -> None:
    database = Database(url)
    membership = Membership(database)
    membership.server_id = owner
    await membership.join()
    store = JobStore(database, membership)
    for line in sys.stdin:
        print(await act(store, action, line.strip()), flush=True)
    await database.close()


async def act(store: JobStore, action: str, job_id: str) -> str:
    if action == "claim":
        return next((job.job_id for job in await store.claim(1)), "")
    if action == "complete":
        return job_id if await store.complete(job_id) == "completed" else ""
    return job_id if await store.cancel(job_id) else ""


if __name__ == "__main__":
    asyncio.run(race(*sys.argv[1:]))
