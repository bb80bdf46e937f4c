"""LeRobot dataset folders, v2.1 and v3.0, read and written without the lerobot package."""

from data_tools.lerobot.dataset import LeRobotDataset, open_lerobot
from data_tools.lerobot.options import LeRobotOptions
from data_tools.lerobot.write import write_lerobot

__all__ = ["LeRobotDataset", "LeRobotOptions", "open_lerobot", "write_lerobot"]
