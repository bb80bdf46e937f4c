"""embodiment.yaml: the robot of a converted policy, which other formats cannot say all of."""

import yaml

from policy_ft.formats.conversion.contents import Contents
from policy_ft.formats.embodiments import Embodiment


def robot_yaml(contents: Contents, named: Embodiment | None, asset_ids: tuple[str, ...]) -> str:
    """The text of an embodiment's file.

    Args:
        contents: of the checkpoint.
        named: the robot it was converted for, whose name and description are kept.
        asset_ids: under which names the written files have its statistics.
    """
    config, family = contents.transforms_config, contents.config.family
    described = f"The robot of the {family} policy beside this file."
    robot = Embodiment(
        name=named.name if named is not None else "robot",
        description=named.description if named is not None else described,
        conventions=contents.conventions,
        cameras=config.cameras,
        state_maps=config.state_maps,
        action_maps=config.action_maps,
        delta_actions=config.delta_actions,
        double_delta=config.double_delta,
        prompt_says_state=config.prompt not in ("pi0", "pi05_no_state") or family != "pi05",
        asset_ids=asset_ids,
    )
    document = robot.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)
