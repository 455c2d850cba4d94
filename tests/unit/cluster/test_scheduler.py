"""Each rule of the scheduler on a few cells and nodes; dollars and times are worked out by hand."""

from __future__ import annotations

import pytest

from harness.cluster.scheduler import MAX_ATTEMPTS, ClusterNode, Placement, Scheduler, WaitingCell

HOUR = 3600.0


def cell(name: str, seconds: float = 60.0, kind: str = "a", repeat: int = 0) -> WaitingCell:
    return WaitingCell(f"{name}-{repeat}-{kind}", name, kind, seconds)


def node(name: str, kind: str = "a", host: str | None = None, usd: float | None = 1.0) -> ClusterNode:
    return ClusterNode(name, kind, host or f"host-{name}", usd)


def scheduler_with(cells, nodes, **limits) -> Scheduler:
    scheduler = Scheduler(cells, **limits)
    for each in nodes:
        scheduler.add_node(each, 0.0)
    return scheduler


def placed(scheduler: Scheduler, now: float = 0.0) -> list[tuple[str, str]]:
    return [(placement.key, placement.node_id) for placement in scheduler.place(now)]


def test_the_longest_begins_first_one_cell_a_node():
    scheduler = scheduler_with([cell("x", 10), cell("y", 30), cell("z", 20)], [node("n"), node("m")])
    assert placed(scheduler) == [("y-0-a", "n"), ("z-0-a", "m")]
    assert placed(scheduler) == []
    scheduler.end_cell("z-0-a", 20, retry=False)
    assert placed(scheduler, 20) == [("x-0-a", "m")]
    assert scheduler.done == {"z-0-a"}


def test_a_cell_runs_only_on_its_kind():
    scheduler = scheduler_with([cell("x", kind="b")], [node("n", "a")])
    assert placed(scheduler) == []
    assert scheduler.kinds_without_nodes() == ["b"]
    scheduler.add_node(node("m", "b"), 1)
    assert (placed(scheduler, 1), scheduler.kinds_without_nodes()) == ([("x-0-b", "m")], [])


def test_repeats_go_to_different_hosts():
    """When m is free, the second repeat of x is the longest that waits; but m has run x, and n has not."""
    cells = [cell("w", 200), cell("x", 100, repeat=0), cell("x", 100, repeat=1), cell("y", 90)]
    scheduler = scheduler_with(cells, [node("n"), node("m")])
    (w, on_n), (x, on_m) = placed(scheduler)
    assert ((w[0], on_n), (x[0], on_m)) == (("w", "n"), ("x", "m"))
    scheduler.end_cell(x, 100, retry=False)
    assert placed(scheduler, 100) == [("y-0-a", "m")]
    scheduler.end_cell(w, 200, retry=False)
    assert placed(scheduler, 200) == [(f"x-{1 - int(x[2])}-a", "n")]


def test_repeats_begin_together_on_two_hosts():
    scheduler = scheduler_with(
        [cell("x", 100, repeat=number) for number in (0, 1)] + [cell("y", 90)], [node("n"), node("m")]
    )
    assert {(key[0], name) for key, name in placed(scheduler)} == {("x", "n"), ("x", "m")}


def test_a_third_repeat_waits_for_no_host_once_each_has_one():
    cells = [cell("x", 100, repeat=number) for number in range(3)] + [cell("y", 50)]
    scheduler = scheduler_with(cells, [node("n"), node("m")])
    assert {key[0] for key, _ in placed(scheduler)} == {"x"}
    scheduler.end_cell(next(iter(scheduler.running)), 100, retry=False)
    assert placed(scheduler, 100)[0][0][0] == "x"


def test_two_nodes_of_one_host_are_no_different_hosts():
    cells = [cell("x", 100, repeat=0), cell("x", 100, repeat=1), cell("y", 50)]
    scheduler = scheduler_with(cells, [node("n", host="h"), node("m", host="h"), node("k", host="other")])
    on = {name: key[0] for key, name in placed(scheduler)}
    assert (on["k"], sorted((on["n"], on["m"]))) == ("x", ["x", "y"])


def test_a_repeat_goes_to_a_host_that_ran_it_if_nothing_else_waits():
    cells = [cell("x", 100, repeat=0), cell("x", 100, repeat=1), cell("y", 100)]
    scheduler = scheduler_with(cells, [node("n"), node("m")])
    scheduler.place(0)
    on_n = next(key for key, placement in scheduler.running.items() if placement.node_id == "n")
    scheduler.end_cell(on_n, 10, retry=False)
    assert len(placed(scheduler, 10)) == 1
    assert not scheduler.waiting


def test_a_lost_node_lets_its_cell_wait_and_run_again():
    scheduler = scheduler_with([cell("x")], [node("n"), node("m")])
    assert placed(scheduler) == [("x-0-a", "n")]
    assert scheduler.remove_node("n", 30) == Placement("x-0-a", "n", 1)
    assert scheduler.place(30) == [Placement("x-0-a", "m", 2)]


def test_an_interrupted_cell_runs_again_on_another_host_though_its_own_is_free():
    scheduler = scheduler_with([cell("x", 60), cell("y", 50)], [node("n"), node("m")])
    scheduler.place(0)
    scheduler.end_cell("x-0-a", 10, retry=True)
    assert placed(scheduler, 10) == []  # n is free, but x failed there, and m will be free
    scheduler.end_cell("y-0-a", 50, retry=False)
    assert placed(scheduler, 50) == [("x-0-a", "m")]


def test_an_interrupted_cell_runs_again_on_its_host_if_there_is_no_other():
    scheduler = scheduler_with([cell("x")], [node("n")])
    scheduler.place(0)
    scheduler.end_cell("x-0-a", 10, retry=True)
    assert scheduler.place(10) == [Placement("x-0-a", "n", 2)]


def test_it_runs_again_on_its_host_when_the_others_are_gone():
    scheduler = scheduler_with([cell("x", 60), cell("y", 50)], [node("n"), node("m")])
    scheduler.place(0)
    scheduler.end_cell("x-0-a", 10, retry=True)
    assert placed(scheduler, 10) == []
    scheduler.leave_node("m", "too slow")
    assert placed(scheduler, 20) == [("x-0-a", "n")]


def test_a_cell_is_given_up_after_three_attempts():
    scheduler = scheduler_with([cell("x")], [node(name) for name in "nmkj"])
    for attempt in range(1, MAX_ATTEMPTS + 1):
        (placement,) = scheduler.place(attempt)
        assert placement.attempt == attempt
        scheduler.remove_node(placement.node_id, attempt)
    assert (scheduler.place(9), scheduler.is_finished) == ([], True)
    assert scheduler.given_up == {"x-0-a": "3 attempts failed; in the last one its node was lost"}


@pytest.mark.parametrize("num_failures", [1, 2])
def test_a_node_on_which_two_cells_failed_is_left_out(num_failures):
    scheduler = scheduler_with([cell(name) for name in "xyz"], [node("n")])
    for _ in range(num_failures):
        (placement,) = scheduler.place(0)
        scheduler.end_cell(placement.key, 1, retry=True)
    assert (list(scheduler.left_out) == ["n"]) == (num_failures == 2)
    assert bool(scheduler.place(2)) == (num_failures == 1)
    assert (scheduler.idle_nodes(2) == ["n"]) == (num_failures == 2)


def test_a_node_that_comes_back_after_two_failures_gets_nothing():
    scheduler = scheduler_with([cell("x"), cell("y")], [node("n")])
    for now in (1, 2):
        scheduler.place(now)
        scheduler.remove_node("n", now)
        scheduler.add_node(node("n"), now)
    assert (scheduler.place(3), scheduler.idle_nodes(3)) == ([], ["n"])
    assert scheduler.left_out["n"] == "2 cells failed on it, the last one 2 s after the beginning"


def test_a_cell_that_ended_is_never_run_again():
    scheduler = scheduler_with([cell("x")], [node("n")])
    scheduler.place(0)
    scheduler.end_cell("x-0-a", 5, retry=False)
    scheduler.end_cell("x-0-a", 6, retry=True)  # a late message
    assert (scheduler.place(7), scheduler.done, scheduler.is_finished) == ([], {"x-0-a"}, True)


@pytest.mark.parametrize("num_lost", [1, MAX_ATTEMPTS])
def test_a_late_result_ends_a_cell_that_waits_or_was_given_up(num_lost):
    scheduler = scheduler_with([cell("x"), cell("y")], [node(name) for name in "nmkj"])
    for now in range(num_lost):
        scheduler.place(now)
        scheduler.remove_node(scheduler.running["x-0-a"].node_id, now)
    assert ("x-0-a" in scheduler.waiting, "x-0-a" in scheduler.given_up) == (num_lost == 1, num_lost == MAX_ATTEMPTS)
    scheduler.end_cell("x-0-a", 9, retry=False)
    assert (scheduler.done, "x-0-a" in scheduler.given_up) == ({"x-0-a"}, False)
    assert "x-0-a" not in dict(placed(scheduler, 9))


def test_dollars_run_while_a_node_is_held_idle_or_not():
    scheduler = scheduler_with([cell("x")], [node("n", usd=3.6), node("m", usd=7.2), node("k", usd=None)])
    assert scheduler.held_usd(1000) == pytest.approx(3.0)
    scheduler.remove_node("m", 1000)
    assert scheduler.held_usd(2000) == pytest.approx(4.0)
    scheduler.add_node(node("m", usd=7.2), 3000)
    assert scheduler.held_usd(4000) == pytest.approx(8.0)


def test_what_would_pass_the_budget_is_given_up_and_shorter_cells_begin():
    """Two nodes of 1 USD an hour: 2 USD until the end of an hour's cell, 4 USD until that of two hours."""
    cells = [cell("x", 2 * HOUR), cell("y", HOUR), cell("z", 1.5 * HOUR)]
    scheduler = scheduler_with(cells, [node("n"), node("m")], budget_usd=2.5)
    assert placed(scheduler) == [("y-0-a", "n")]
    assert scheduler.given_up == {
        "x-0-a": "the budget of 2.5 USD: at its predicted end the nodes would have cost 4.00 USD",
        "z-0-a": "the budget of 2.5 USD: at its predicted end the nodes would have cost 3.00 USD",
    }


def test_the_budget_counts_a_node_that_is_busy_longer_until_its_own_end():
    """x holds its node for 3 hours; then a node comes whose cell of an hour costs 1 more: 3 + 1, not 2 x 3."""
    cells = [cell("x", 3 * HOUR, "a"), cell("y", HOUR, "b")]
    for budget, begins in ((3.99, False), (4.0, True)):
        scheduler = scheduler_with(cells, [node("n", "a")], budget_usd=budget)
        assert placed(scheduler) == [("x-0-a", "n")]
        scheduler.add_node(node("m", "b"), 0)
        assert (placed(scheduler) == [("y-0-b", "m")]) == begins


def test_a_cell_that_ended_early_counts_no_longer():
    """x was predicted to hold n for 3 hours and ended after 1: 1 USD is spent, both nodes cost 2 until the end of y."""
    scheduler = scheduler_with([cell("x", 3 * HOUR, "a"), cell("y", HOUR, "b")], [node("n", "a")], budget_usd=3.0)
    scheduler.place(0)
    scheduler.end_cell("x-0-a", HOUR, retry=False)
    scheduler.add_node(node("m", "b"), HOUR)
    assert placed(scheduler, HOUR) == [("y-0-b", "m")]


def test_a_spent_budget_and_a_passed_deadline_end_all_that_waits():
    for limits, reason in (
        ({"budget_usd": 2.0}, "the budget of 2 USD is spent"),
        ({"deadline_s": HOUR}, "the deadline has passed"),
    ):
        scheduler = scheduler_with([cell("x", HOUR), cell("y", HOUR, "b")], [node("n")], **limits)
        assert placed(scheduler) == [("x-0-a", "n")]
        assert placed(scheduler, 3 * HOUR) == []
        assert scheduler.given_up == {"y-0-b": reason}
        assert scheduler.running.keys() == {"x-0-a"}  # what began is not stopped


def test_what_would_end_after_the_deadline_is_given_up():
    scheduler = scheduler_with([cell("x", 100), cell("y", 50)], [node("n")], deadline_s=60)
    assert placed(scheduler) == [("y-0-a", "n")]
    assert scheduler.given_up == {"x-0-a": "the deadline: it is predicted to end 40 s after it"}


@pytest.mark.parametrize(("budget", "begins"), [(None, True), (5.0, False)])
def test_with_a_budget_a_node_without_a_price_gets_nothing(budget, begins):
    scheduler = scheduler_with([cell("x")], [node("n", usd=None)], budget_usd=budget)
    assert bool(scheduler.place(0)) == begins
    assert bool(scheduler.left_out) != begins
    assert scheduler.idle_nodes(0) == ([] if begins else ["n"])


def test_nodes_for_which_nothing_waits_are_idle_and_one_is_kept_while_a_cell_runs():
    scheduler = scheduler_with([cell("x"), cell("y", kind="b")], [node(name) for name in "nmk"] + [node("o", "c")])
    assert scheduler.idle_nodes(0) == ["o"]
    scheduler.place(0)
    assert scheduler.idle_nodes(0) == ["k", "o"]  # m is kept for x, if n dies
    scheduler.end_cell("x-0-a", 60, retry=False)
    assert set(scheduler.idle_nodes(60)) == {"n", "m", "k", "o"}


def test_a_node_that_is_left_out_ends_its_cell_and_is_idle_then():
    scheduler = scheduler_with([cell("x"), cell("y")], [node("n")])
    key = placed(scheduler)[0][0]
    scheduler.leave_node("n", "two cells lost")
    assert (scheduler.idle_nodes(1), scheduler.running.keys()) == ([], {key})
    scheduler.end_cell(key, 60, retry=False)
    assert (scheduler.place(60), scheduler.idle_nodes(60), scheduler.done) == ([], ["n"], {key})


def test_a_kind_that_no_node_has_can_be_given_up():
    scheduler = scheduler_with([cell("x"), cell("y", kind="b"), cell("z", kind="b")], [node("n")])
    scheduler.give_up_kind("b", "no b can be had")
    assert scheduler.given_up == {"y-0-b": "no b can be had", "z-0-b": "no b can be had"}
    assert scheduler.waiting.keys() == {"x-0-a"}


def test_mistakes_of_the_caller_are_errors():
    with pytest.raises(ValueError, match="two cells have the key 'x-0-a'"):
        Scheduler([cell("x"), cell("x")])
    scheduler = scheduler_with([], [node("n")])
    with pytest.raises(ValueError, match="node 'n' is already held"):
        scheduler.add_node(node("n"), 1)
    with pytest.raises(KeyError):
        scheduler.end_cell("nothing", 1, retry=False)
    assert scheduler.remove_node("nobody", 1) is None


def test_what_is_left_can_be_read_and_not_changed():
    scheduler = scheduler_with([cell("x")], [node("n")])
    for view in (scheduler.waiting, scheduler.running, scheduler.given_up, scheduler.left_out):
        with pytest.raises(TypeError):
            view["x"] = "y"  # type: ignore[index]
