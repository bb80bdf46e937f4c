"""Settings become built parts here and nowhere else: policy, data, plan, and then a run."""

from policy_ft.assemble.policies import build_policy
from policy_ft.assemble.runs import check, check_data, train
from policy_ft.assemble.trainers import build_trainer

__all__ = ["build_policy", "build_trainer", "check", "check_data", "train"]
