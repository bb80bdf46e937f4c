"""A loaded model with other sizes: what leads is kept, the rest starts at zero, all is listed."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from policy_ft.checkpoints.native import save_policy, weights_hash
from policy_ft.checkpoints.stored_model import read_model
from policy_ft.checkpoints.weights import write_weights
from policy_ft.config.model import ConnectorConfig, ModelConfig, SiglipVisionConfig
from policy_ft.config.resize import ModelResize
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.models.build import build_model


def resized(model_tensor, stored):
    """Leading part kept, zero beyond: the expectation written out."""
    expected = torch.zeros_like(model_tensor)
    kept = tuple(slice(min(a, b)) for a, b in zip(expected.shape, stored.shape, strict=True))
    expected[kept] = stored[kept]
    return expected


@pytest.mark.parametrize(
    ("sizes", "changed"),
    [
        (
            {"action_dim": 7},
            {
                "expert.action_in_proj.weight",
                "expert.action_out_proj.weight",
                "expert.action_out_proj.bias",
            },
        ),
        ({"state_dim": 9}, {"expert.state_proj.weight"}),
        ({"state_dim": 4}, {"expert.state_proj.weight"}),
        ({"num_cameras": 4}, {"backbone.image_positions"}),
        ({"num_cameras": 2}, {"backbone.image_positions"}),
        ({"action_horizon": 6, "max_prompt_tokens": 20}, set()),
    ],
)
def test_resizing_keeps_what_leads_and_starts_the_rest_at_zero(policy, tmp_path, sizes, changed):
    save_policy(policy, tmp_path / "checkpoint")
    loaded = load_policy(tmp_path / "checkpoint", resize=ModelResize(**sizes))
    assert {each.name for each in loaded.load_report.reshaped} == changed
    before, after = policy.model.state_dict(), loaded.model.state_dict()
    for each in loaded.load_report.reshaped:
        assert each.stored == tuple(before[each.name].shape)
        assert each.live == tuple(after[each.name].shape) != each.stored
    for name, tensor in after.items():
        assert torch.equal(tensor, resized(tensor, before[name]))
    for name, size in sizes.items():
        assert getattr(loaded.config, name) == getattr(loaded.transforms.shape, name) == size


def test_a_resized_policy_saves_and_loads_without_being_asked_again(policy, tmp_path):
    save_policy(policy, tmp_path / "checkpoint")
    loaded = load_policy(tmp_path / "checkpoint", resize=ModelResize(action_dim=9))
    save_policy(loaded, tmp_path / "wider")
    again = load_policy(tmp_path / "wider")
    assert again.load_report.reshaped == ()
    assert weights_hash(again.model) == weights_hash(loaded.model)


def test_only_what_was_asked_for_may_have_another_shape(policy, tmp_path):
    save_policy(policy, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint/model.safetensors"
    tensors = load_file(path)
    tensors["expert.state_proj.weight"] = torch.zeros(24, 8)
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"state_proj.*floats \[24, 8\].*ask with resize") as caught:
        load_policy(tmp_path / "checkpoint", resize=ModelResize(action_dim=7))
    assert len(caught.value.faults) == 1


def test_resizing_changes_one_axis_only(policy, tmp_path):
    save_policy(policy, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint/model.safetensors"
    tensors = load_file(path)
    tensors["expert.action_in_proj.weight"] = torch.zeros(23, 4)
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"action_in_proj.weight: found floats \[23, 4\]"):
        load_policy(tmp_path / "checkpoint", resize=ModelResize(action_dim=7))


def test_a_robot_with_more_columns_than_the_new_size_is_refused(policy, tmp_path):
    save_policy(policy, tmp_path / "checkpoint")
    with pytest.raises(UserError, match="state"):
        load_policy(tmp_path / "checkpoint", resize=ModelResize(state_dim=2))


def test_published_models_have_no_camera_positions_to_resize(small_model, tmp_path):
    vision = SiglipVisionConfig(
        kind="siglip", patch_size=8, width=24, depth=2, num_heads=2, mlp_width=40
    )
    connector = ConnectorConfig(slot_positions=False)
    config = ModelConfig.model_validate(small_model(vision=vision, connector=connector))
    write_weights(tmp_path / "w.safetensors", build_model(config), {})
    resize = ModelResize(num_cameras=5)
    files = [tmp_path / "w.safetensors"]
    _, report = read_model(resize.resized(config), files, resize=resize)
    assert report.reshaped == ()
