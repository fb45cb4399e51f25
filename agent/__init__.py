"""The agent: prompt, policies, the loop, the runner, evaluation and the command line."""
