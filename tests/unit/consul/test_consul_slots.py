"""Slots: in turn, never more than there are, and none lost to whoever gives up."""

from __future__ import annotations

import asyncio

from meshlib.sources.consul.slots import Slots


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served_and_never_too_many() -> None:
    slots, order = Slots(2), list[int]()

    async def take(number: int) -> None:
        await slots.acquire()
        order.append(number)

    tasks = [asyncio.create_task(take(number)) for number in range(4)]
    await settle()
    assert order == [0, 1]
    slots.release()
    await settle()
    assert order == [0, 1, 2]
    late = asyncio.create_task(take(9))
    await settle()
    slots.resize(4)
    await settle()
    assert order == [0, 1, 2, 3, 9]
    await asyncio.gather(*tasks, late)


async def test_a_lower_number_holds_when_they_come_back() -> None:
    slots = Slots(3)
    for _ in range(3):
        await slots.acquire()
    slots.resize(1)
    waiting = asyncio.create_task(slots.acquire())
    slots.release()
    slots.release()
    await settle()
    assert not waiting.done()
    slots.release()
    await waiting


async def test_one_that_gives_up_loses_nothing() -> None:
    slots = Slots(1)
    await slots.acquire()
    first, second = asyncio.create_task(slots.acquire()), asyncio.create_task(slots.acquire())
    await settle()
    first.cancel()
    slots.release()  # before the cancellation has arrived: the slot is the first one's, who gives it back
    await settle()
    assert second.done()
    assert first.cancelled()
