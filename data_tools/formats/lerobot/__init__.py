"""LeRobot dataset folders, v2.0, v2.1 and v3.0, read and (but for v2.0) written without lerobot."""

from data_tools.formats.lerobot.info import INFO_FILE, is_lerobot
from data_tools.formats.lerobot.lerobot_dataset import LeRobotDataset, open_lerobot
from data_tools.formats.lerobot.lerobot_options import LeRobotOptions
from data_tools.formats.lerobot.write import write_lerobot

__all__ = [
    "INFO_FILE",
    "LeRobotDataset",
    "LeRobotOptions",
    "is_lerobot",
    "open_lerobot",
    "write_lerobot",
]
