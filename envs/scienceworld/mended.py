"""The simulator's classes, mended so that what an action leads to depends on the game and on the
actions before it, and on nothing else.

Two things are wrong with them as they are.

* The things of a world are kept in hash tables, and their class has no hash of its own. Java then
  takes one that it draws when it is first asked for, from a generator that runs on as long as the
  process does. So the order in which things are listed, warmed, connected and moved depends on
  everything that the process did before, and with it what an action leads to: a thermometer says 8
  or 9 degrees, a recorded solution wins or does not. Here the hash is the thing's own number, which
  is counted anew for each game.
* One generator of random numbers, set anew for each game, is for everything: for animals that
  wander and plants that mix, and also for naming things when commands are listed, and for the ways
  that the simulator tries while it looks for a solution. So listing commands changes what comes
  later, and a solution may not win when it is played. Here what does not belong to the world draws
  from a generator of its own, a copy of that class.

The classes are made from the installed jar, and go before it on the class path.
"""

import hashlib
import os
import zipfile
from pathlib import Path

from ...caches import cache_folder
from .classfile import renamed, with_hash_of

THING, NUMBER = "scienceworld/struct/EnvObject", "uuid"
"""The class of things, and its field that numbers them."""
RANDOM, CHOICE = "scala/util/Random$", "scala/util/Choice$"
"""The one generator, and its copy."""
CHOOSERS = (
    "scienceworld/input/InputParser$",
    "scienceworld/goldagent/PathFinder$",
    "scienceworld/tasks/specifictasks/TaskElectricCircuit",
    "scienceworld/tasks/specifictasks/TaskElectricalConductivity",
    "scienceworld/tasks/specifictasks/TaskElectricalConductivity2",
    "scienceworld/tasks/specifictasks/TaskFindLivingNonLiving",
    "scienceworld/tasks/specifictasks/TaskGrowPlant",
    "scienceworld/tasks/specifictasks/TaskMendelianGenetics1",
    "scienceworld/tasks/specifictasks/TaskMendelianGenetics2",
)
"""Classes that draw only to name things or to look for a solution."""


def mended(jar: Path) -> Path:
    """A folder with the mended classes of a jar.

    Raises:
        ValueError, KeyError: the jar is of another version, where they are otherwise.
    """
    with zipfile.ZipFile(jar) as archive:

        def read(name: str) -> bytes:
            return archive.read(f"{name}.class")

        classes = {THING: with_hash_of(read(THING), NUMBER)}
        classes[CHOICE] = renamed(read(RANDOM), RANDOM, CHOICE)
        classes |= {name: renamed(read(name), RANDOM, CHOICE) for name in CHOOSERS}
    content = hashlib.blake2b(b"".join(classes.values()), digest_size=16).hexdigest()
    folder = cache_folder("scienceworld-classes") / content
    for name, data in classes.items():
        target = folder / f"{name}.class"
        if not (target.is_file() and target.read_bytes() == data):
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(f".{os.getpid()}.part")
            part.write_bytes(data)
            part.replace(target)
    return folder
