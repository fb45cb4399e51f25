"""Text adventures: games that TextWorld generates (suite `textworld`), and files of games that it
or Jericho plays (`relive.envs.textworld.files`)."""
