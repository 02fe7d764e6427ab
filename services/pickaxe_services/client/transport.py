"""One channel to a server: deadlines, retries, and the server's errors as exceptions.

What is repeated: UNAVAILABLE on single-answer calls, by gRPC itself (`service_config`), and `Overloaded` with the
wait that the server asks for.  Streams are never repeated once they have begun.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import tenacity

from pickaxe.call import Call
from pickaxe.errors import Cancelled, DeadlineExceeded, Draining, Overloaded, PickaxeError, Unmet
from pickaxe_services.status import from_rpc_error

T = TypeVar("T")

_IDEMPOTENT = {
    "CatalogService": ("ListMethods", "GetMethod", "GetServer"),
    "ScorerService": ("Score",),
    "RetrieverService": ("Search",),
    "RerankerService": ("Rerank",),
    "JobService": ("GetJob", "ListJobs", "CancelJob"),
    "ArtifactService": ("ListArtifacts", "GetArtifact"),
}


@dataclass(frozen=True)
class TLS:
    """Files (PEM) of a secured connection.  Without `ca` the roots that gRPC brings apply."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""
    """The name on the server's certificate, when it is not the one in the address."""

    def credentials(self) -> grpc.ChannelCredentials:
        try:
            ca, cert, key = (path.read_bytes() if path else None for path in (self.ca, self.cert, self.key))
        except OSError as error:
            raise Unmet(f"a TLS file cannot be read: {error}", metadata={"file": error.filename}) from None
        return grpc.ssl_channel_credentials(ca, key, cert)


def service_config(target: str) -> str:
    """Retries for calls that may be repeated; among several servers, turns and health."""
    config: dict[str, Any] = {
        "methodConfig": [
            {
                "name": [
                    {"service": f"pickaxe.v1.{service}", "method": method}
                    for service, methods in _IDEMPOTENT.items()
                    for method in methods
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
    if "," in target or target.startswith("dns:"):
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        config["healthCheckConfig"] = {"serviceName": ""}
    return json.dumps(config)


class Transport:
    """Calls on one channel.  Safe to share between threads."""

    def __init__(self, target: str, *, tls: TLS | None, timeout: float | None, retries: int, tenant: str) -> None:
        self.target, self.tenant = target, tenant
        self._timeout, self._retries = timeout, retries
        self._closed = False
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", service_config(target)),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", 64 * 1024),
            ("grpc.keepalive_time_ms", 60_000),
        ]
        if tls is None:
            self.channel = grpc.insecure_channel(target, options)
        else:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            self.channel = grpc.secure_channel(target, tls.credentials(), options)

    def close(self) -> None:
        self._closed = True
        self.channel.close()

    def call(self, timeout: float | None, seed: int, budget: int | None = None) -> Call:
        """A `Call` within the client's own timeout, when the caller gives none."""
        return Call(timeout=self._timeout if timeout is None else timeout, seed=seed, budget=budget, tenant=self.tenant)

    def unary(self, method: Any, request: Any, call: Call | None = None) -> Any:
        """The one answer of a call that may be repeated."""
        call = call or self.call(None, 0)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_worth_another_try),
            stop=_stop(self._retries, call),
            wait=_wait,
            reraise=True,
        )
        return retrying(self._once, method, request, call)

    def _once(self, method: Any, request: Any, call: Call) -> Any:
        call.check()
        return self._result(lambda: method.future(request, timeout=call.remaining()), call)

    def upload(self, method: Any, requests: Iterable[Any], call: Call) -> Any:
        """The answer to a stream of requests; an exception that the requests raise is raised here."""
        sent = Sent(requests)
        return self._result(lambda: method.future(sent, timeout=call.remaining()), call, sent)

    def _result(self, start: Callable[[], Any], call: Call, sent: Sent | None = None) -> Any:
        call.check()
        future = start()
        if sent is not None:
            sent.attach(future)
        try:
            with call.interruptible(future.cancel):
                return future.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            raise self._error(error, future, call, sent) from None
        except BaseException:
            future.cancel()
            raise

    def stream(self, method: Any, request: Any, call: Call) -> Iterator[Any]:
        """The answers of a streaming call; closing the iterator cancels it.

        `request` is one message, or `Sent`: a stream of them.
        """
        call.check()
        answers = method(request, timeout=call.remaining())
        sent = request if isinstance(request, Sent) else None
        if sent is not None:
            sent.attach(answers)
        try:
            with call.interruptible(answers.cancel):
                yield from answers
        except grpc.RpcError as error:
            raise self._error(error, answers, call, sent) from None
        finally:
            answers.cancel()

    def _error(self, error: Any, future: Any, call: Call, sent: Sent | None) -> Exception:
        if sent is not None and sent.failure is not None:
            return sent.failure
        told = from_rpc_error(future, self.target)
        if told.metadata.get("code") != "CANCELLED":
            return told  # the server's own word, or another code of the transport
        metadata = told.metadata
        if call.expired:
            return DeadlineExceeded("the deadline passed before the work was done", metadata=metadata)
        if call.cancelled or self._closed:
            return Cancelled("the call was cancelled", metadata=metadata)
        return Draining(
            f"the server at {self.target} ended the call: it shuts down", metadata=metadata, retry_after=0.1
        )


class Sent(Iterator[Any]):
    """Requests on their way, drawn by gRPC's own thread.

    What drawing them raises is kept for the caller, and the call cancelled: to the server a broken stream must not
    look like a finished one.
    """

    def __init__(self, requests: Iterable[Any]) -> None:
        self._requests = iter(requests)
        self._attached = threading.Event()
        self._call: Any = None
        self.failure: Exception | None = None

    def attach(self, call: Any) -> None:
        self._call = call
        self._attached.set()

    def __next__(self) -> Any:
        try:
            return next(self._requests)
        except StopIteration:
            raise
        except Exception as error:  # noqa: BLE001 - raised again where the answer is awaited
            self.failure = error
        self._attached.wait()
        self._call.cancel()
        raise StopIteration


def _worth_another_try(error: BaseException) -> bool:
    """An overloaded server, or a call that met the very end of a server: gRPC's own retries do not cover these."""
    return isinstance(error, Overloaded) or (isinstance(error, Draining) and error.metadata.get("code") == "CANCELLED")


def _wait(state: tenacity.RetryCallState) -> float:
    """What the server asked for, and a little more on each further attempt."""
    error = state.outcome.exception() if state.outcome else None
    asked = (error.retry_after if isinstance(error, PickaxeError) else None) or 0.1
    jittered = tenacity.wait_random(0, 0.2 * asked)(state)
    return asked * 1.5 ** (state.attempt_number - 1) + jittered


def _stop(retries: int, call: Call) -> Callable[[tenacity.RetryCallState], bool]:
    """Stop after so many attempts, or when the deadline would pass while waiting."""

    def stop(state: tenacity.RetryCallState) -> bool:
        remaining = call.remaining()
        late = remaining is not None and state.upcoming_sleep >= remaining
        return late or state.attempt_number > retries

    return stop
