"""The replicas as Ray Serve reaches them: by a deployment handle, over gRPC and without the object store."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException

from dia_server.engine.cluster.recordings import without_samples
from dia_server.engine.cluster.replica import Begun, Need
from dia_server.engine.cluster.types import ReplicaLost, ReplicaState, Sign
from dia_server.engine.types import Chunk, Utterance
from dia_server.errors import ModelNotLoaded, ServerError

APP, DEPLOYMENT = "dia", "engine"
STATES_S = 5.0
"""Maximum seconds to wait for the states of the replicas."""
END_S = 1.0
"""Maximum seconds from the last chunk of an utterance to the end of its response."""


def connect(address: str) -> None:
    """Connect this process to the cluster whose head is at `address`, "host:port"; blocks.

    Raises ModelNotLoaded. Not to be called on the main thread of a server: Ray would take over SIGTERM.
    """
    host = address.rpartition(":")[0]
    options = {"_node_ip_address": host} if _is_loopback(host) else {}
    try:
        ray.init(address=address, namespace=APP, log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise ModelNotLoaded(f"The cluster at {address} cannot be reached: {error}") from error


class RayReplicas:
    def __init__(self, address: str) -> None:
        self._address = address
        self._handle: Any = None
        self._server = uuid.uuid4().hex
        self._states: Sequence[ReplicaState] = ()
        self._silent: set[str] = set()
        """Ids of replicas that were lost with an utterance since all replicas last answered."""

    async def connect(self) -> None:
        await asyncio.to_thread(self.close)  # what is left of a connection that failed
        await asyncio.to_thread(connect, self._address)
        try:
            self._handle = await asyncio.to_thread(serve.get_deployment_handle, DEPLOYMENT, APP)
        except Exception as error:
            raise ModelNotLoaded(
                f"The cluster at {self._address} has no engines: {error}; `dia-server engine` starts them"
            ) from error

    async def states(self, demand: int) -> Sequence[ReplicaState]:
        """If a replica does not answer, return the last states: Ray Serve is about to replace it."""
        try:
            asked = self._handle.broadcast("state", self._server, demand)
            answers = await asked.results_async(timeout_s=STATES_S, return_exceptions=True)
        except TimeoutError:
            return self._states
        except RayServeException:  # all replicas are just being replaced
            answers = []
        except RayError as error:
            raise ModelNotLoaded(f"The cluster does not answer: {type(error).__name__}") from error
        self._states = [answer for answer in answers if isinstance(answer, ReplicaState)]
        self._silent.clear()
        return self._states

    @asynccontextmanager
    async def speak(self, utterance: Utterance) -> AsyncIterator[AsyncIterator[Sign]]:
        voice = utterance.prompt.key if utterance.prompt else utterance.voice
        call = self._handle.options(stream=True, session_id=voice, _by_reference=False).speak
        responses: list[Any] = []
        replica_id, ended = "", False

        async def signs() -> AsyncIterator[Sign]:
            nonlocal replica_id, ended
            options = {"server": self._server, "avoid": frozenset(self._silent)}
            for sent in (without_samples(utterance), utterance):
                responses.append(call.remote(sent, **options))
                complete = True
                try:
                    async for sign in responses[-1]:
                        if sign is Need.RECORDINGS:
                            complete = False
                            continue
                        if isinstance(sign, Begun):
                            replica_id, sign = sign.replica_id, None
                        ended = isinstance(sign, ServerError) or (isinstance(sign, Chunk) and sign.done)
                        yield sign
                except RayActorError as error:
                    raise ReplicaLost(type(error).__name__) from error
                if complete:
                    return

        try:
            yield signs()
            if ended:
                await _drain(responses[-1])
        except ReplicaLost:
            self._silent.add(replica_id)
            raise
        finally:
            for response in responses:
                response.cancel()

    def close(self) -> None:
        if self._handle is not None:
            self._handle.shutdown()
            self._handle = None
        ray.shutdown()


async def _drain(response: AsyncIterator[Any]) -> None:
    """Let a response end by itself.

    The router counts a cancelled one as ended while the replica still counts it, and would then believe for
    seconds that the replica is full.
    """
    with suppress(TimeoutError, RayActorError):
        async with asyncio.timeout(END_S):
            async for _ in response:
                pass


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
