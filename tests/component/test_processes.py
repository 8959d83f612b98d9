"""The port that the processes of one server share, and the channel between two processes."""

import asyncio
import socket

import pytest

from serving.processes.channel import Channel, ChannelClosed, Handler, RemoteError
from serving.processes.ports import reserved_port


def test_a_reserved_port_is_shared_only_with_sockets_that_ask_for_it() -> None:
    with reserved_port("127.0.0.1:0") as address, socket.socket() as server, socket.socket() as stranger:
        port = int(address.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()


def test_a_port_is_not_reserved_twice_nor_where_somebody_listens() -> None:
    with (
        reserved_port("127.0.0.1:0") as address,
        pytest.raises(OSError, match="the port is in use"),
        reserved_port(address),
    ):
        pass
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="the port is in use"), reserved_port(f"127.0.0.1:{other.getsockname()[1]}"):
            pass


async def _two_ends(ours: dict[str, Handler], theirs: dict[str, Handler]) -> tuple[object, list[str]]:
    """The result of a call from one end, and what became of calls that fail or outlive the other end."""
    one, other = socket.socketpair()
    near, far = Channel(one, ours), Channel(other, theirs)
    running = [asyncio.create_task(each.run()) for each in (near, far)]
    await asyncio.sleep(0)
    while True:
        try:
            answer = await near.call("double", 21)
            break
        except ChannelClosed:  # not connected yet
            await asyncio.sleep(0)
    failures = []
    for verb in ("fail", "hang"):
        try:
            await near.call(verb)
        except (RemoteError, ChannelClosed) as error:
            failures.append(f"{type(error).__name__} {error}".strip())
        running[1].cancel()  # the other end closes
    await asyncio.gather(*running, return_exceptions=True)
    return answer, failures


def test_a_channel_returns_results_and_errors_and_ends_with_the_other_end() -> None:
    async def double(number: int) -> int:
        return 2 * number

    async def fail(_: object) -> None:
        raise ValueError("no")

    async def hang(_: object) -> None:
        await asyncio.Event().wait()

    answer, failures = asyncio.run(_two_ends({}, {"double": double, "fail": fail, "hang": hang}))
    assert answer == 42
    assert failures == ["RemoteError no", "ChannelClosed"]
