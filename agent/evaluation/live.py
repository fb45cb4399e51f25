"""A run while it goes on: how far it is, how well it does, how fast, with what, and how long it
will take.

On a terminal these are two lines that are drawn anew every second; elsewhere plain lines say the
same every few seconds (:mod:`relive.agent.evaluation.lines`). Events only count: a run of thousands
of short episodes spends less than a hundredth of its time on being watched.
"""

import time
from collections import deque
from collections.abc import Callable

from rich.live import Live
from rich.text import Text

from ...memory.episode import Episode, StopReason
from ..events import EpisodeEnded, Event, JobEnded, Phase, RoundEnded, TasksPlanned, TrainingStep
from .lines import PlainProgress
from .metrics import wilson
from .report import console, percent
from .terminal import visible

DRAWN = 1.0
"""Times a second that the view is drawn anew."""
WIDTH = 24
"""Of the bar, in characters."""
TREND = 10
"""Losses that are compared with as many before them."""
_FLAT = 0.01  # of the loss: what changes by less stays as it is


class Standing:
    """How a phase of a run stands, counted from events.

    Args:
        clock: seconds that only ever grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.title = "episodes"
        self.adapter = ""
        """In force when the last episode was played; empty for the model as it is."""
        self.entries: int | None = None
        """Of the memory, as far as it was told."""
        self.begin(0)

    def begin(self, total: int) -> None:
        """Something with so many parts begins; 0: not known."""
        self.total, self.done, self._began = total, 0, self._clock()
        self.won = self.lost = self.actions = 0
        self.training = False
        self._losses: deque[float] = deque(maxlen=2 * TREND)
        self._first = 0
        """Steps of a training that were made before."""

    def episode(self, episode: Episode, entries: int | None) -> None:
        """An episode is over."""
        self.done += 1
        self.won += episode.success
        self.lost += episode.outcome.reason is StopReason.ENVIRONMENT_ERROR
        self.actions += len(episode.steps)
        self.adapter = episode.actor.adapter
        if entries is not None:
            self.entries = entries

    def step(self, number: int, of: int, loss: float) -> None:
        """A training has made a step."""
        if not self.training or number == 1:
            self.begin(of)
            # One that was stopped goes on: what was done before took no time now.
            self.training, self._first = True, number - 1
        self.done = number
        self._losses.append(loss)

    @property
    def seconds(self) -> float:
        """Since the phase began."""
        return self._clock() - self._began

    @property
    def left(self) -> float | None:
        """Seconds that the rest of the phase takes at the pace so far; None before there is one."""
        made = self.done - self._first
        return self.seconds * (self.total - self.done) / made if made and self.total else None

    @property
    def trend(self) -> str:
        """Where the loss goes."""
        losses = tuple(self._losses)
        half = len(losses) // 2
        if half < 2:
            return ""
        before, now = sum(losses[:half]) / half, sum(losses[-half:]) / half
        if abs(now - before) <= _FLAT * abs(before):
            return "level"
        return "falling" if now < before else "rising"

    def told(self) -> list[str]:
        """What is known, each in a few words."""
        found = []
        played = self.done - self.lost
        if self.training and self._losses:
            found.append(f"loss {self._losses[-1]:.3f} {self.trend}".rstrip())
        elif played:
            low, high = wilson(self.won, played)
            rate = f"success {percent(self.won / played)} % ({percent(low)}–{percent(high)})"
            found.append(f"{self.won}/{played} solved, {rate}")
        if self.lost:
            found.append(f"{self.lost} lost")
        if self.actions and self.seconds:
            found.append(f"{self.actions / self.seconds:,.1f} actions/s")
        if self.entries is not None:
            found.append(f"memory {self.entries:,}")
        if self.done and not self.training:
            found.append(f"adapter {visible(self.adapter)}" if self.adapter else "no adapter")
        return found


class LiveProgress:
    """The view of a run on a terminal, or plain lines where none is; told about events by
    `on_event`, and a context in which it is shown.

    Args:
        clock: seconds that only ever grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.standing = Standing(clock)
        self._console = console(error=True)
        self._lines = None if self._console.is_terminal else PlainProgress(clock=clock)
        plain = self._console.options.ascii_only
        self._marks = ("#", ".") if plain else ("━", "━")
        self._live = Live(
            get_renderable=self._view,
            console=self._console,
            refresh_per_second=DRAWN,
            transient=True,
        )
        self._entered = False

    def __enter__(self) -> "LiveProgress":
        self._entered = True
        self._show()
        return self

    def __exit__(self, *exception: object) -> None:
        self._entered = False
        self.pause()

    def _show(self) -> None:
        if self._lines is None and self._entered and not self._live.is_started:
            self._live.start()

    def pause(self) -> None:
        """Ends the view, so that something else can be printed; what begins next shows it again."""
        if self._live.is_started:
            self._live.stop()
        self._end()

    def on_event(self, event: Event) -> None:
        """Shows what happened."""
        match event:
            case EpisodeEnded(episode, entries):
                self.standing.episode(episode, entries)
                self._count()
            case TrainingStep(step, of, loss):
                if step == 1 or not self.standing.training:
                    self._begin(of)
                self.standing.step(step, of, loss)
                self._count()
            case TasksPlanned(count):
                self._begin(count)
            case Phase(title):
                self._phase(visible(title))
            case JobEnded():
                self._print(visible(
                    f"{event.experiment} {event.number}/{event.of}: {event.name} "
                    f"({event.seconds:.0f} s)"
                ))  # fmt: skip
            case RoundEnded(_, summary):
                self._print(visible(summary))

    def _count(self) -> None:
        if self._lines is not None:
            self._lines.count(self.standing.done, self._note)

    def _note(self) -> str:
        left = self.standing.left
        return ", ".join([*self.standing.told(), *([f"{_clock(left)} left"] if left else [])])

    def _begin(self, total: int) -> None:
        self._end()
        self.standing.begin(total)
        if self._lines is not None:
            self._lines.expect(total)
        self._show()

    def _phase(self, title: str) -> None:
        self._show()
        if title == self.standing.title:
            return
        self._end()
        self.standing.title = title
        if self._lines is not None:
            self._lines.phase(title)

    def _end(self) -> None:
        """What was done came so far: that stays to be read, above what comes next."""
        now = self.standing
        if self._lines is not None:
            self._lines.finish()
        elif now.done:
            of = f"/{now.total}" if now.total else ""
            took = f"{', '.join(now.told())} ({_clock(now.seconds)})"
            self._console.print(f"{now.title}: {now.done}{of}, {took}", soft_wrap=True)
        now.begin(0)

    def _print(self, line: str) -> None:
        if self._lines is None:
            self._console.print(line)
        else:
            self._lines.say(line)

    def _view(self) -> Text:
        # One text: tables and bars of rich take several times as long to draw.
        now, line, rest = self.standing, *self._marks
        full = min(WIDTH, WIDTH * now.done // now.total) if now.total else 0
        done = f"{now.done}/{now.total}" if now.total else str(now.done)
        left = "" if now.left is None else f", {_clock(now.left)} left"
        view = Text(f"{now.title} ", overflow="ellipsis", no_wrap=True, end="")
        view.append(line * full, "bar.complete" if full < WIDTH else "bar.finished")
        view.append(rest * (WIDTH - full), "bar.back")
        view.append(f" {done}  {_clock(now.seconds)}{left}\n  {', '.join(now.told())}")
        return view


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
