"""Making an environment by its Gymnasium id; what cannot be made is the user's to mend."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from data_tools.errors import UserError, describe

Environment = gymnasium.Env[dict[str, Any], npt.NDArray[np.float32]]


def make_env(env_id: str, env_args: Mapping[str, Any]) -> Environment:
    """The Gymnasium environment; UserError quoting the cause when it cannot be made."""
    try:
        return gymnasium.make(env_id, disable_env_checker=True, **env_args)
    except UserError:
        raise
    except (gymnasium.error.Error, ModuleNotFoundError, TypeError, ValueError) as error:
        raise UserError(
            describe(
                f"environment {env_id!r} with {dict(env_args)}",
                f"{type(error).__name__}: {error}",
                "an environment that Gymnasium can make",
                "Write the id as 'module:Name-v0' and give the settings that it takes; "
                "`eval-envs list` shows ours.",
            )
        ) from error
