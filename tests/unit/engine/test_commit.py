"""Group commit: order of arrival, groups of a bounded size, errors to whom they belong, nobody left waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from omendb_common.errors import UnavailableError
from omendb_engine.commit import GroupCommit


class Operation:
    """One queued operation."""

    def __init__(self, name: str, size: int = 1, solo: bool = False) -> None:
        self.name = name
        self.size = size
        self.solo = solo
        self.done = False
        self.error: BaseException | None = None


class Recorder:
    """Processes groups; the first one waits until it is told to go on, so that the others queue up behind it."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.started = threading.Event()
        self.go_on = threading.Event()
        self.fail: Callable[[Operation], BaseException | None] = lambda operation: None

    def __call__(self, group: Sequence[Operation]) -> None:
        self.groups.append([o.name for o in group])
        self.started.set()
        assert self.go_on.wait(20)
        for operation in group:
            operation.error, operation.done = self.fail(operation), True


def commits_of(group_bytes: int = 10) -> tuple[GroupCommit[Operation], Recorder]:
    """A group commit whose leader waits in its first group."""
    recorder = Recorder()
    return GroupCommit(recorder, group_bytes=group_bytes), recorder


def lead(commits: GroupCommit[Operation], recorder: Recorder) -> threading.Thread:
    """Start a leader and wait until it is in its group."""
    thread = threading.Thread(target=commits.submit, args=(Operation("first"),))
    thread.start()
    assert recorder.started.wait(20)
    return thread


def queue_behind(
    commits: GroupCommit[Operation], recorder: Recorder, operations: Sequence[Operation]
) -> dict[str, BaseException | None]:
    """Queue operations behind a leader, in order, let it go on, and return what each caller got."""
    leader = lead(commits, recorder)
    outcome: dict[str, BaseException | None] = {}

    def run(operation: Operation) -> None:
        try:
            commits.submit(operation)
            outcome[operation.name] = None
        except BaseException as error:
            outcome[operation.name] = error

    threads = [threading.Thread(target=run, args=(o,)) for o in operations]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        while len(commits._queue) < number:  # it only has to take a lock
            pass
    recorder.go_on.set()
    for thread in [leader, *threads]:
        thread.join(20)
        assert not thread.is_alive(), "a caller waits for ever"
    return outcome


def test_a_lone_caller_is_a_group_of_one() -> None:
    commits, recorder = commits_of()
    recorder.go_on.set()
    commits.submit(Operation("a"))
    commits.submit(Operation("b"))
    assert recorder.groups == [["a"], ["b"]]


def test_what_waits_becomes_one_group_in_order_of_arrival() -> None:
    commits, recorder = commits_of()
    assert queue_behind(commits, recorder, [Operation(n) for n in "abcd"]) == dict.fromkeys("abcd")
    assert recorder.groups == [["first"], ["a", "b", "c", "d"]]


def test_a_group_is_bounded_in_bytes_but_takes_one_operation_of_any_size() -> None:
    commits, recorder = commits_of(group_bytes=10)
    queue_behind(commits, recorder, [Operation("a", 6), Operation("b", 4), Operation("c", 1), Operation("d", 50)])
    assert recorder.groups == [["first"], ["a", "b"], ["c"], ["d"]]


def test_a_solo_operation_has_a_group_of_its_own() -> None:
    commits, recorder = commits_of(group_bytes=100)
    queue_behind(commits, recorder, [Operation("a"), Operation("b", solo=True), Operation("c"), Operation("d")])
    assert recorder.groups == [["first"], ["a"], ["b"], ["c", "d"]]


def test_errors_go_to_their_own_callers() -> None:
    commits, recorder = commits_of()
    bad = ValueError("b is bad")
    recorder.fail = lambda operation: bad if operation.name == "b" else None
    assert queue_behind(commits, recorder, [Operation(n) for n in "abc"]) == {"a": None, "b": bad, "c": None}


def test_an_interrupted_leader_leaves_nobody_waiting() -> None:
    """Ctrl-C in the thread that happens to lead: its followers get an error, later callers go on."""
    commits, recorder = commits_of()
    process = commits._process
    seen: list[int] = []

    def interrupted(group: Sequence[Operation]) -> None:
        process(group)
        seen.append(len(group))
        if len(seen) == 2:
            for operation in group:
                operation.done = False
            raise KeyboardInterrupt

    commits._process = interrupted
    outcome = queue_behind(commits, recorder, [Operation("a"), Operation("b"), Operation("c", 10)])
    # Whoever woke first led the group of a and b, c perhaps; the interrupt is that one's alone.
    led = [name for name, error in outcome.items() if isinstance(error, KeyboardInterrupt)]
    assert len(led) == 1
    assert all(isinstance(outcome[name], UnavailableError) for name in "ab" if name not in led)
    assert "c" in led or outcome["c"] is None
    assert (["c"] in recorder.groups) == ("c" not in led), "a caller that was interrupted has its write back"
    commits.submit(last := Operation("last"))
    assert last.done and last.error is None


def test_an_interrupted_waiter_takes_its_operation_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arrays are the caller's again once submit has raised, so nobody may write them to the log afterwards."""
    commits, recorder = commits_of()
    leader = lead(commits, recorder)
    monkeypatch.setattr(commits._condition, "wait", lambda timeout=None: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        commits.submit(Operation("abandoned"))
    monkeypatch.undo()
    recorder.go_on.set()
    leader.join(20)
    commits.submit(Operation("next"))
    assert recorder.groups == [["first"], ["next"]]


def test_exclusive_actions_run_between_groups() -> None:
    commits, recorder = commits_of()
    leader = lead(commits, recorder)
    ran: list[int] = []
    other = threading.Thread(target=commits.run_exclusive, args=(lambda: ran.append(len(recorder.groups)),))
    other.start()
    assert ran == [], "it ran while a group was in progress"
    recorder.go_on.set()
    other.join(20)
    leader.join(20)
    assert ran == [1]

    def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        commits.run_exclusive(fails)
    commits.submit(Operation("after"))
    assert recorder.groups[-1] == ["after"]


def test_many_threads_lose_and_repeat_nothing() -> None:
    done: list[str] = []

    def process(group: Sequence[Operation]) -> None:
        for operation in group:
            done.append(operation.name)
            operation.done = True

    commits: GroupCommit[Operation] = GroupCommit(process, group_bytes=5)
    per_thread = 300

    def run(thread: int) -> None:
        for number in range(per_thread):
            commits.submit(Operation(f"{thread}-{number}", solo=number % 7 == 0))

    threads = [threading.Thread(target=run, args=(t,)) for t in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sorted(done) == sorted(f"{t}-{n}" for t in range(6) for n in range(per_thread))
    for t in range(6):
        mine = [int(name.split("-")[1]) for name in done if name.startswith(f"{t}-")]
        assert mine == sorted(mine), "operations of one caller changed their order"
