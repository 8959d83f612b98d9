"""The queue and the quotas are fair to clients, whatever each of them requests."""

import threading
from queue import Empty

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batching.fair_queue import FairOrder, FairQueue
from serving.batching.quotas import Quotas
from serving.context import ALL_ROLES, INTERNAL_CLIENT, ClientIdentity, client_identity
from tests.support.waiting import LIMIT_S


def drain(order: FairOrder[str]) -> list[str]:
    taken = []
    while order:
        assert order.peek() == order.peek()
        taken.append(order.take())
    return taken


GREEDY, POLITE = ClientIdentity("greedy", "a"), ClientIdentity("polite", "b")


def test_one_client_is_served_in_its_order() -> None:
    order: FairOrder[str] = FairOrder()
    for number in range(5):
        order.put(str(number), GREEDY, 1 + number % 3)
    assert drain(order) == list("01234")


def test_a_small_request_of_a_new_client_waits_for_about_its_own_cost_of_others() -> None:
    order: FairOrder[str] = FairOrder()
    for number in range(200):
        order.put(f"greedy {number}", GREEDY, 1)
    for _ in range(50):
        order.take()
    order.put("polite", POLITE, 1)
    assert "polite" in (order.take(), order.take())


def test_rows_count_and_not_images() -> None:
    order: FairOrder[str] = FairOrder()
    for number in range(40):
        order.put(f"greedy {number}", GREEDY, 16)
        order.put(f"polite {number}", POLITE, 1)
    first = [order.take() for _ in range(20)]
    assert sum(item.startswith("greedy") for item in first) <= 2


def test_more_connections_are_no_larger_share() -> None:
    order: FairOrder[str] = FairOrder()
    for number in range(100):
        order.put("greedy", ClientIdentity("greedy", f"connection {number}"), 1)
    for _ in range(10):
        order.put("polite", POLITE, 1)
    assert drain(order)[:25].count("polite") == 10


def test_connections_of_one_owner_divide_its_share() -> None:
    order: FairOrder[str] = FairOrder()
    for _ in range(50):
        order.put("first", ClientIdentity("host", "1"), 1)
    order.put("second", ClientIdentity("host", "2"), 1)
    assert "second" in drain(order)[:3]


CLIENTS = st.builds(ClientIdentity, st.sampled_from("abc"), st.sampled_from("123"))


@given(st.lists(st.one_of(st.tuples(CLIENTS, st.integers(1, 64)), st.none()), max_size=200))
def test_everything_comes_out_once_and_each_connection_s_in_its_order(
    actions: list[tuple[ClientIdentity, int] | None],
) -> None:
    order: FairOrder[tuple[ClientIdentity, int]] = FairOrder()
    put: list[tuple[ClientIdentity, int]] = []
    taken: list[tuple[ClientIdentity, int]] = []
    for number, action in enumerate(actions):
        if action is not None:
            put.append((action[0], number))
            order.put(put[-1], *action)
        elif order:
            taken.append(order.take())
    while order:
        taken.append(order.take())
    assert sorted(taken, key=lambda item: item[1]) == put
    for client in {client for client, _ in put}:
        assert [item for item in taken if item[0] == client] == [item for item in put if item[0] == client]


@given(st.lists(st.integers(1, 16), min_size=30, max_size=60), st.lists(st.integers(1, 16), min_size=30, max_size=60))
def test_while_both_have_work_neither_gets_more_than_the_other_but_for_the_largest_item(
    costs: list[int], other_costs: list[int]
) -> None:
    order: FairOrder[tuple[str, int]] = FairOrder()
    for client, each in ((GREEDY, costs), (POLITE, other_costs)):
        for cost in each:
            order.put((client.owner, cost), client, cost)
    left = {"greedy": len(costs), "polite": len(other_costs)}
    served = {"greedy": 0, "polite": 0}
    while all(left.values()):
        owner, cost = order.take()
        left[owner] -= 1
        served[owner] += cost
        assert abs(served["greedy"] - served["polite"]) <= 2 * 16


def test_threads_get_everything_once_and_signals_after_what_came_before() -> None:
    queue: FairQueue[int, str] = FairQueue()
    got: list[int] = []

    def work() -> None:
        while not isinstance(item := queue.get(), str):
            got.append(item)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1000):
        queue.put(number, ClientIdentity(str(number % 7), ""), 1)
    for _ in threads:
        queue.signal("stop")
    for thread in threads:
        thread.join(LIMIT_S)
    assert sorted(got) == list(range(1000))
    assert queue.empty()
    with pytest.raises(Empty):
        queue.get_nowait()


@given(st.lists(st.tuples(CLIENTS, st.integers(1, 300)), max_size=100))
def test_quotas_never_exceed_the_limit_and_admit_a_new_client(requests: list[tuple[ClientIdentity, int]]) -> None:
    quotas = Quotas(1000)
    taken = []
    for client, amount in requests:
        if quotas.admits(client, amount):
            quotas.take(client, amount)
            taken.append((client, amount))
    assert quotas.total == sum(amount for _, amount in taken) <= 1000
    for client, amount in taken:
        quotas.give_back(client, amount)
    assert quotas.total == 0
    assert quotas.admits(POLITE, 1000)


def test_one_greedy_client_gets_most_and_never_all() -> None:
    quotas = Quotas(1000)
    for number in range(5000):
        client = ClientIdentity("greedy", str(number % 3))
        if quotas.admits(client, 1):
            quotas.take(client, 1)
    assert 700 <= quotas.total <= 850
    assert quotas.admits(POLITE, 64)
    assert quotas.admits(ClientIdentity("greedy", "a new connection"), 1)


def test_the_process_itself_may_take_all() -> None:
    quotas = Quotas(32)
    for _ in range(32):
        assert quotas.admits(INTERNAL_CLIENT, 1)
        quotas.take(INTERNAL_CLIENT, 1)
    assert not quotas.admits(INTERNAL_CLIENT, 1)


def test_what_holds_nothing_is_given_back_in_any_order() -> None:
    """Empty images have no bytes."""
    quotas = Quotas(32)
    for amount in (0, 5, 0):
        quotas.take(POLITE, amount)
    for amount in (5, 0, 0):
        quotas.give_back(POLITE, amount)
    assert quotas.total == 0


def test_of_each_other_client_no_more_is_served_before_than_of_oneself() -> None:
    quotas = Quotas(1000)
    for number in range(200):
        quotas.take(ClientIdentity("greedy", str(number)), 1)
    quotas.take(ClientIdentity("third", "x"), 3)
    assert quotas.before(POLITE, 1) == 3
    assert quotas.before(POLITE, 5) == 5 + 3 + 5
    assert quotas.before(ClientIdentity("greedy", "7"), 1) == 3 + 201


@pytest.mark.parametrize(
    ("peer", "owner"),
    [
        ("ipv4:10.1.2.3:4567", "10.1.2.3"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:4567", "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:4567", "fe80::/64"),
        ("unix:", "unix:"),
    ],
)
def test_clients_without_names_are_identified_by_address(peer: str, owner: str) -> None:
    assert client_identity(peer, "", ALL_ROLES) == ClientIdentity(owner, peer)
    assert client_identity(peer, "camera", ALL_ROLES).owner == "camera"
