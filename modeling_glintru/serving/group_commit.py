"""Group commit: clicks of many threads become one transaction, and one wait for the disk."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import StoreBusyError, StoreError, StoreFullError, StoreReadOnlyError
from .store import Absorbed, Event

__all__ = ["GroupCommit"]

Commit = Callable[[Sequence[Event]], list[Absorbed]]
WHOLE_STORE = (StoreBusyError, StoreFullError, StoreReadOnlyError)  # errors that every request would meet
MOST_EVENTS = 1024  # of one transaction
MOST_WAITING = 65_536  # events in the queue above which `submit` waits
GATHER_SECONDS = 0.001  # longest wait for callers that were in the last transaction to come again


class Request:
    """Events of one call, and what becomes of them.

    A `Future` of fewer parts: one lock, held until the end, that as many as like can wait for.
    """

    def __init__(self, events: Sequence[Event], watched: bool) -> None:
        self.events, self.watched = events, watched
        self._absorbed: list[Absorbed] = []
        self._error: BaseException | None = None
        self._running = threading.Lock()
        self._running.acquire()

    def finish(self, absorbed: list[Absorbed], error: BaseException | None = None) -> None:
        """Lets those go who wait."""
        self._absorbed, self._error = absorbed, error
        self._running.release()

    def error(self) -> BaseException | None:
        """Waits for the end; what went wrong."""
        with self._running:
            return self._error

    def result(self) -> list[Absorbed]:
        """Waits for the end; raises what went wrong."""
        error = self.error()
        if error is not None:
            raise error
        return self._absorbed


class GroupCommit:
    """One thread that writes what the others submit: all that came during a transaction goes into the next one.

    Args:
        commit: Writes events in one transaction, all or none, and returns when they are durable.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._queue: deque[Request] = deque()
        self._changed = threading.Condition()
        self._wanted = 1  # requests that the writer waits for
        self._waiting = 0  # events submitted and not written yet
        self._newest: Request | None = None
        self._closed = False
        self._process = os.getpid()
        self._unseen: list[BaseException] = []  # errors of requests that nobody waits for
        self._thread = threading.Thread(target=self._run, name="glintru-writer", daemon=True)
        self._thread.start()

    def submit(self, events: Sequence[Event], watched: bool = True) -> Request:
        """Queues events; they are written in the order of the calls.

        Args:
            events: Of one transaction.
            watched: Whether somebody waits for the result; errors of the others come out of `flush`.

        Raises:
            StoreError: It was closed, or this process is a fork of the one that made it.
        """
        request = Request(events, watched)
        if os.getpid() != self._process:  # the thread that writes stayed behind
            raise StoreError("this recommender was made before a fork: make one in each process")
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting < MOST_WAITING)
            if self._closed:
                raise StoreError("this recommender was closed")
            self._newest = request
            self._queue.append(request)
            self._waiting += len(events)
            if len(self._queue) >= self._wanted:
                self._changed.notify_all()
        return request

    def flush(self) -> None:
        """Returns when all that was submitted so far is durable.

        Raises:
            StoreError: Events that nobody waited for could not be written; they are lost.
        """
        newest = self._newest
        if newest is not None:
            newest.error()  # they are written in order
        with self._changed:
            errors, self._unseen = self._unseen, []
        if errors:
            raise StoreError(f"{len(errors)} calls with durable=False could not be written: {errors[0]}") from errors[0]

    def close(self) -> None:
        """As `flush`, and ends the thread; `submit` refuses from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self.flush()

    # ------------------------------------------------------------------ the writing thread

    def _run(self) -> None:
        last = 1  # requests of the last transaction: callers of a busy server come again at once
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                if len(self._queue) < last and not self._closed:
                    self._wanted = last
                    self._changed.wait_for(lambda: len(self._queue) >= self._wanted or self._closed, GATHER_SECONDS)
                    self._wanted = 1
                group = [self._queue.popleft()]
                size = len(group[0].events)
                while self._queue and size + len(self._queue[0].events) <= MOST_EVENTS:
                    group.append(self._queue.popleft())
                    size += len(group[-1].events)
            last = len(group)
            self._write(group)
            with self._changed:
                self._waiting -= size
                self._changed.notify_all()

    def _write(self, group: Sequence[Request]) -> None:
        try:
            absorbed = self._commit([event for request in group for event in request.events])
        except BaseException as error:  # whatever it is: a caller must not wait for ever
            if len(group) > 1 and not isinstance(error, WHOLE_STORE):
                for request in group:  # the damaged state of one user is no matter of the others
                    self._write([request])
                return
            self._unseen += [error for request in group if not request.watched]
            for request in group:
                request.finish([], error)
        else:
            start = 0
            for request in group:
                request.finish(absorbed[start : start + len(request.events)])
                start += len(request.events)
