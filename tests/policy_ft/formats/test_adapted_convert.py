"""A published policy with adapters: refused in other formats, and written when it is merged."""

import numpy as np
import pytest

import policy_ft
from policy_ft.checkpoints.edited import edited
from policy_ft.checkpoints.native import save_policy
from policy_ft.config.edits import DropLayers, Lora
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert
from tests.policy_ft.test_edits import shaken


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_an_adapted_policy_is_written_for_others_as_the_refusal_says(
    lerobot_directory, tmp_path, family, act
):
    policy = policy_ft.load_policy(lerobot_directory(tmp_path / "a", family))
    target = ("language", "expert", "vision")
    policy = edited(policy, [Lora(kind="lora", target=target, rank=2)])
    shaken(policy.model)
    save_policy(policy, tmp_path / "b")
    words = r"found \['lora'\]; expected none for lerobot. Add --merge"
    with pytest.raises(UserError, match=words):
        convert(tmp_path / "b", "lerobot", tmp_path / "c")
    convert(tmp_path / "b", "lerobot", tmp_path / "c", merge=True)
    again = policy_ft.load_policy(tmp_path / "c")
    assert again.config == policy.config.model_copy(update={"edits": ()})
    np.testing.assert_allclose(act(again), act(policy), rtol=0, atol=1e-5)


def test_a_policy_with_fewer_blocks_stays_ours(lerobot_directory, tmp_path):
    policy = policy_ft.load_policy(lerobot_directory(tmp_path / "a", "pi0"))
    save_policy(edited(policy, [DropLayers(kind="drop_layers", layers=(0,))]), tmp_path / "b")
    with pytest.raises(UserError, match=r"found \['drop_layers'\]; .*Keep it native"):
        convert(tmp_path / "b", "lerobot", tmp_path / "c")
    convert(tmp_path / "b", "native", tmp_path / "c")
    assert policy_ft.load_policy(tmp_path / "c").config.edits[0].layers == (0,)
