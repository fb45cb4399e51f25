"""The household's expert in official games, which are the same world with two differences.

Its places can share the spot where the agent stands: "go to shelf 3" is refused at shelf 4 when
nothing would change by it. And older games say "You arrive at loc 12." where newer ones name the
place.
"""

from ..household.engine import REFUSED
from ..household.expert import HouseholdExpert

_GO = "go to "


class AlfworldExpert(HouseholdExpert):
    """Plays one episode, deciding from what it reads and the action forms that prompts list.
    Deterministic.

    Args:
        put: the form of putting something somewhere, with ``{thing}`` and ``{place}``.
    """

    def __init__(self, put: str = "move {thing} to {place}") -> None:
        super().__init__(put)
        self._unread = ""  # a place that was found to be here, and was not looked at
        self._beside: dict[str, set[str]] = {}  # place -> places at the same spot

    def _note(self, observation: str) -> None:
        super()._note(observation)
        going = self._last.startswith(_GO) and observation.strip() != REFUSED
        if going:
            self._here = self._last.removeprefix(_GO)

    def _refused(self, verb: str, thing: str) -> None:
        place = self._last.removeprefix(_GO)
        if verb == "go" and place in self._places and place not in self._beside.get(self._here, ()):
            together = {
                place,
                self._here,
                *self._beside.get(place, ()),
                *self._beside.get(self._here, ()),
            }
            for one in together:
                self._beside[one] = together
            self._here = self._unread = place
        else:
            super()._refused(verb, thing)

    def _decide(self) -> str:
        if self._unread:
            action, self._unread = f"examine {self._unread}", ""
            return action
        for _ in range(len(self._places) + 1):
            action = super()._decide()
            place = action.removeprefix(_GO)
            if place == action or place not in self._beside.get(self._here, ()):
                return action
            # Nobody need go there; what is in it was read when it was found to be here.
            self._here = place
        return "look"  # everything is here, and nothing of it helps
