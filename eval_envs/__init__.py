"""Gymnasium environments behind one contract.

Importing this package registers them, so `gymnasium.make("eval_envs:Tabletop-v0")` works from
anywhere. Neither MuJoCo nor OpenGL is imported before an environment is made.
"""

import gymnasium

ENVIRONMENTS = {"Tabletop-v0": "eval_envs.tabletop.env:TabletopEnv"}
"""Gymnasium id -> entry point of every environment in this package."""

for _env_id, _entry_point in ENVIRONMENTS.items():
    gymnasium.register(id=_env_id, entry_point=_entry_point)
