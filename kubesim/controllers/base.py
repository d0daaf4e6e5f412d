"""The base of all controllers: a queue of keys with timers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar

from kubesim.registry import Registry
from kubesim.store import Change

Key = tuple[str, ...]


class Controller(ABC):
    """Queues a key for each change, and takes the next step for the key after `latency` seconds.

    A queued key is not queued again: one step handles several changes.
    """

    name: ClassVar[str]
    latency: ClassVar[float] = 0.01
    """Seconds from a change to the step. Requests can come in between, as in a real cluster."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.store = registry.store
        self.paused = False
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._held: set[Key] = set()

    @abstractmethod
    def on_change(self, change: Change) -> None:
        """Queue the keys that a change concerns. Must not write."""

    @abstractmethod
    def sync(self, key: Key) -> None:
        """Take the next step for a key."""

    def enqueue(self, key: Key, delay: float | None = None) -> None:
        """Sync a key after `delay` seconds (default: the latency), or earlier if already queued."""
        loop = asyncio.get_running_loop()
        due = loop.time() + (self.latency if delay is None else delay)
        queued = self._timers.get(key)
        if queued is not None:
            if queued.when() <= due:
                return
            queued.cancel()
        self._timers[key] = loop.call_at(due, self._run, key)

    def pause(self) -> None:
        """Take no step until `resume`. Keys that are due before it are kept."""
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        held, self._held = self._held, set()
        for key in sorted(held):
            self.enqueue(key)

    def stop(self) -> None:
        """Drop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _run(self, key: Key) -> None:
        self._timers.pop(key, None)
        if self.paused:
            self._held.add(key)
        else:
            self.sync(key)
