"""Progress where no terminal is."""

from relive.agent.evaluation.lines import PlainProgress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_for_every_phase_and_every_ten_seconds() -> None:
    clock, lines = Clock(), list[str]()
    progress = PlainProgress(clock=clock, write=lines.append)
    progress.phase("playing")
    progress.expect(60)
    for number in range(1, 61):
        clock.now += 1
        progress.count(number, f"{number} solved")
    progress.phase("measuring")
    progress.finish()
    assert lines[:3] == [
        "[0:00:00] playing",
        "[0:00:10] playing: 10/60, 10 solved",
        "[0:00:20] playing: 20/60, 20 solved",
    ]
    assert lines[-2:] == ["[0:01:00] playing: 60/60, 60 solved", "[0:01:00] measuring"]
    assert len(lines) == 8


def test_how_far_a_phase_came_is_told_before_the_next() -> None:
    clock, lines = Clock(), list[str]()
    progress = PlainProgress(clock=clock, write=lines.append)
    progress.phase("a")
    progress.count(3)
    clock.now += 3700
    progress.say("a part is done")
    progress.phase("b")
    assert lines == ["[0:00:00] a", "[1:01:40] a part is done", "[1:01:40] b"]
