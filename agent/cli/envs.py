"""The `relive envs` commands: list the suites, play one oneself, check one."""

import argparse
from typing import TYPE_CHECKING

from ..evaluation.terminal import complain, say
from .options import suite_named

if TYPE_CHECKING:
    from ...envs import Suite, Task


def add_env_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `envs` and what it can do to the commands of `relive`."""
    envs = commands.add_parser("envs", help="the suites: list them, play one yourself, check one")
    whats = envs.add_subparsers(dest="what", required=True, metavar="what")
    whats.add_parser("list", help="suites, their task types and groups").set_defaults(
        act=_envs_list
    )
    play = whats.add_parser("play", help="be the policy yourself")
    play.add_argument("suite", nargs="?", default="household")
    play.add_argument("--split", default="train", help="train (default), valid, test or another")
    play.add_argument("--type", default="", help="task type; the first one by default")
    play.add_argument("--number", type=int, default=0, help="which task of the type (default 0)")
    play.set_defaults(act=_envs_play)
    check = whats.add_parser("check", help="does a suite keep the contract?")
    check.add_argument("suite", nargs="?", default="household")
    check.add_argument(
        "--per-type", type=int, default=2, help="tasks of each type that are played (default 2)"
    )
    check.set_defaults(act=_envs_check)


def _envs_list(args: argparse.Namespace) -> None:
    from ...envs import suite_names
    from ...envs.jvm import JavaError

    for name in suite_names():
        try:
            lines = _described(name)
        except (ImportError, JavaError) as error:
            lines = [f"{name}: not available here, {' '.join(str(error).split())}"]
        except FileNotFoundError as error:
            lines = [f"{name}: has no games here, {' '.join(str(error).split())}"]
        except Exception as error:  # somebody else's package, which must not hide the others
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"
            lines = [f"{name}: broken, {told}"]
        for line in lines:
            say(line)


def _described(name: str) -> list[str]:
    """What `relive envs list` says of a suite."""
    from ...envs import get_suite
    from ...memory.plain import counted

    suite = get_suite(name)
    suite.check_ready()
    sizes = [(split, suite.size(split)) for split in suite.splits]
    splits = ", ".join(split if size is None else f"{split} ({size})" for split, size in sizes)
    expert = f", expert {suite.expert_kind}" if suite.expert_kind else ""
    lines = [f"{name} ({suite.version}), {counted(suite.max_steps, 'step')} at most{expert}"]
    lines.append(f"  splits: {splits}")
    return lines + [f"  {group}: {', '.join(types)}" for group, types in suite.groups.items()]


def _envs_play(args: argparse.Namespace) -> None:
    from ...memory.plain import counted

    suite = suite_named(args.suite)
    split = suite.split_of(args.split)
    there = [kind for kind in suite.types if suite.size(split, (kind,)) != 0]
    (kind,) = suite.checked(split, [args.type or [*there, *suite.types][0]])
    task = _numbered(suite, split, kind, args.number)
    env = suite.make()
    seen, _ = env.reset(options={"task": task})
    say("'help!' lists what is possible now (policies never see it), 'quit!' ends\n", lines=True)
    say(seen, lines=True)
    limit = left = suite.limit(task)
    while left:
        try:
            action = input("\n> ").strip()
        except EOFError:
            break
        if action == "quit!":
            break
        if action == "help!":
            say(", ".join(env.admissible()))
            continue
        seen, _, terminated, truncated, info = env.step(action)
        left -= 1
        say(seen, lines=True)
        if info["success"]:
            say("Solved.")
        if terminated or truncated:
            break
    if not left:
        say(f"Over: the limit is {counted(limit, 'step')}.")
    env.close()


def _numbered(suite: "Suite", split: str, kind: str, number: int) -> "Task":
    """The task with a number, of those of its type."""
    there, of_them = suite.size(split, (kind,)), f"tasks of {kind} in split {split!r}"
    if number < 0:
        raise ValueError(f"--number {number}: the {of_them} are numbered from 0 on")
    if there is not None and number >= there:
        raise ValueError(
            f"--number must be below {there}, not {number}: {suite.name} has {there} {of_them}"
        )
    try:
        return suite.tasks(split, 1, [kind], number)[0]
    except ValueError as error:  # it makes them as they are asked for, and not for ever
        raise ValueError(f"--number {number}: {error}") from error


def _envs_check(args: argparse.Namespace) -> int:
    from ...envs import check_env

    if args.per_type < 1:
        raise ValueError(f"--per-type must be at least 1, not {args.per_type}")
    findings = check_env(suite_named(args.suite), args.per_type, lambda one: say(str(one)))
    if all(finding.ok for finding in findings):
        return 0
    complain(f"relive envs: suite {args.suite!r} does not keep the contract, see above")
    return 1
