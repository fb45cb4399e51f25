"""A toy suite whose environments sleep, exit or raise on command."""

import os
import threading
import time

from relive.envs.base import Info
from relive.envs.toy import ToyEnv, ToySuite


class MisbehavingEnv(ToyEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        if action == "hang":
            time.sleep(600)
        if action == "exit":
            os._exit(3)
        if action == "raise":
            raise ZeroDivisionError("on purpose")
        if action == "unpicklable":
            observation, reward, terminated, truncated, info = super().step("look")
            return observation, reward, terminated, truncated, {**info, "lock": threading.Lock()}
        return super().step(action)


class MisbehavingSuite(ToySuite):
    def make(self) -> MisbehavingEnv:
        return MisbehavingEnv()
