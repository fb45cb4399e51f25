"""Group commit: who waits together is written together, and everyone gets what is theirs."""

import threading
from collections.abc import Callable, Sequence

import pytest

from relive.memory.storage.commit import GroupCommit


class Recorder:
    """Commits numbers: even ones succeed, odd ones are refused; remembers the groups, and can be
    held up."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.fail: BaseException | None = None
        self.running = 0

    def __call__(self, works: Sequence[int]) -> list[int | Exception]:
        assert self.running == 0, "two groups at once"
        self.running += 1
        try:
            self.groups.append(list(works))
            self.entered.set()
            assert self.go_on.wait(10)
            if self.fail is not None:
                raise self.fail
            return [ValueError(f"{work} is odd") if work % 2 else 10 * work for work in works]
        finally:
            self.running -= 1


def in_threads(*calls: Callable[[], object]) -> list[threading.Thread]:
    """Each call in a thread of its own, started."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def test_alone() -> None:
    """One caller, one group, its result or its error."""
    recorder = Recorder()
    commit: GroupCommit[int, int] = GroupCommit(recorder)
    assert commit(4) == 40
    with pytest.raises(ValueError, match="3 is odd"):
        commit(3)
    assert commit(6) == 60
    assert recorder.groups == [[4], [3], [6]]
    assert not commit.busy


def test_those_who_wait_share_one_commit() -> None:
    """While the first is being written five more arrive: one more group, in which each gets its
    own."""
    recorder = Recorder()
    commit: GroupCommit[int, int] = GroupCommit(recorder)
    answers: dict[int, object] = {}

    def call(number: int) -> Callable[[], None]:
        def run() -> None:
            try:
                answers[number] = commit(number)
            except ValueError as error:
                answers[number] = str(error)

        return run

    recorder.go_on.clear()
    threads = in_threads(call(2))
    assert recorder.entered.wait(10)
    assert commit.busy
    threads += in_threads(*[call(number) for number in range(4, 9)])
    while commit.waiting < 5:
        pass
    recorder.go_on.set()
    for thread in threads:
        thread.join(10)
    assert [sorted(group) for group in recorder.groups] == [[2], [4, 5, 6, 7, 8]]
    assert answers == {2: 20, 4: 40, 5: "5 is odd", 6: 60, 7: "7 is odd", 8: 80}
    assert not commit.busy


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_what_fails_for_all_is_everyones_error(error: BaseException) -> None:
    """And the next group is not affected."""
    recorder = Recorder()
    commit: GroupCommit[int, int] = GroupCommit(recorder)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            commit(2)
        except BaseException as caught:
            errors.append(caught)

    recorder.fail = error
    recorder.go_on.clear()
    threads = in_threads(call)
    assert recorder.entered.wait(10)
    threads += in_threads(call, call)
    while commit.waiting < 2:
        pass
    recorder.go_on.set()
    for thread in threads:
        thread.join(10)
    assert errors == [error] * 3
    assert recorder.groups == [[2], [2, 2]]
    recorder.fail = None
    assert commit(8) == 80


def test_alone_keeps_others_out() -> None:
    """Nothing is committed meanwhile; who waited is served after it."""
    recorder = Recorder()
    commit: GroupCommit[int, int] = GroupCommit(recorder)
    answers: list[int] = []
    with commit.alone():
        assert commit.busy
        threads = in_threads(*[lambda: answers.append(commit(2))] * 3)
        while commit.waiting < 3:
            pass
        assert recorder.groups == []
    for thread in threads:
        thread.join(10)
    assert answers == [20, 20, 20]
    assert recorder.groups == [[2, 2, 2]]


def test_many_threads() -> None:
    """Every piece of work is done exactly once, and fewer commits than pieces are needed when the
    disk is slow."""
    done: list[int] = []
    commits: list[int] = []

    def slow(works: Sequence[int]) -> list[int | Exception]:
        threading.Event().wait(0.002)
        done.extend(works)
        commits.append(len(works))
        return [work + 1 for work in works]

    commit: GroupCommit[int, int] = GroupCommit(slow)
    wrong: list[int] = []

    def work(thread: int) -> None:
        for number in range(10):
            if commit(100 * thread + number) != 100 * thread + number + 1:
                wrong.append(number)

    for thread in in_threads(*[lambda thread=thread: work(thread) for thread in range(8)]):
        thread.join(20)
    assert not wrong
    assert sorted(done) == sorted(
        100 * thread + number for thread in range(8) for number in range(10)
    )
    assert len(commits) < 80
