"""The queue of requests that wait for capacity: order, turns of the connections, and rejected ones that pass it on."""

import asyncio
from collections.abc import Callable, Coroutine

from serving.api.in_flight import WaitQueue
from serving.context import CURRENT_CLIENT, ClientIdentity

A, B = ClientIdentity("a", "a:1"), ClientIdentity("b", "b:1")


class Waiters:
    """Requests that take what is free, or wait; `log` names those that were woken, in order."""

    def __init__(self) -> None:
        self.queue = WaitQueue()
        self.free = 0
        self.log: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def add(self, client: ClientIdentity, name: str, needs: int = 1) -> asyncio.Task[None]:
        async def request() -> None:
            CURRENT_CLIENT.set(client)
            again = False
            while self.free < needs:
                if again:
                    self.queue.pass_on()
                await self.queue.wait(again=again)
                again = True
                self.log.append(name)
            self.free -= needs

        task = asyncio.create_task(request())
        self._tasks.append(task)
        await settle()
        return task

    async def release(self, amount: int = 1) -> None:
        self.free += amount
        self.queue.notify()
        await settle()

    async def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def waiting(test: Callable[[Waiters], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        waiters = Waiters()
        await test(waiters)
        await waiters.cancel()

    asyncio.run(run())


def test_connections_take_turns_and_each_keeps_its_order() -> None:
    async def test(waiters: Waiters) -> None:
        for client, name in ((A, "a1"), (A, "a2"), (A, "a3"), (B, "b1"), (B, "b2")):
            await waiters.add(client, name)
        for _ in range(5):
            await waiters.release()
        assert waiters.log == ["a1", "b1", "a2", "b2", "a3"]

    waiting(test)


def test_only_requests_of_the_same_connection_are_in_the_way() -> None:
    async def test(waiters: Waiters) -> None:
        await waiters.add(A, "a1")
        occupied = {}
        for client in (A, B):
            CURRENT_CLIENT.set(client)
            occupied[client] = waiters.queue.occupied
        assert occupied == {A: True, B: False}

    waiting(test)


def test_what_is_too_little_for_one_is_offered_to_the_other_connections_once() -> None:
    async def test(waiters: Waiters) -> None:
        await waiters.add(A, "large", needs=3)
        await waiters.add(A, "behind it")
        await waiters.add(B, "b1", needs=2)
        await waiters.release()
        assert waiters.log == ["large", "b1"]  # and no more, though both wait again
        await waiters.release(2)
        assert waiters.log[2:] == ["large"]
        await waiters.release(3)
        assert sorted(waiters.log[3:]) == ["b1"]
        await waiters.release()
        assert waiters.log[4:] == ["behind it"]

    waiting(test)


def test_a_request_that_is_cancelled_when_it_is_woken_wakes_the_next() -> None:
    async def test(waiters: Waiters) -> None:
        first = await waiters.add(A, "a1")
        await waiters.add(A, "a2")
        waiters.free += 1
        waiters.queue.notify()
        first.cancel()
        await settle()
        assert waiters.log == ["a2"]

    waiting(test)


def test_a_wait_ends_at_the_deadline() -> None:
    async def test(waiters: Waiters) -> None:
        await waiters.queue.wait(0.0)
        assert not waiters.queue.occupied

    waiting(test)
