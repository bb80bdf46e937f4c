"""Published language models and vision towers fill the parts of a new policy, tensor by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from policy_ft.config.model import DecoderConfig, TimmVisionConfig
from policy_ft.errors import UserError
from policy_ft.formats.parts import load_language, load_tower
from policy_ft.models.backbones.decoder import Decoder, decoder_config_from_transformers
from policy_ft.models.backbones.timm_tower import TimmTower
from policy_ft.models.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()
import timm  # noqa: E402  both import torchvision, which must have been mended by then
import transformers  # noqa: E402

TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
LANGUAGES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "gemma": (transformers.GemmaConfig, transformers.GemmaForCausalLM),
}


def published(directory: Path, family: str, **saving: object) -> DecoderConfig:
    torch.manual_seed(0)
    config, model = LANGUAGES[family]
    settings = config(**TINY)
    model(settings).save_pretrained(directory, **saving)
    return decoder_config_from_transformers(settings.to_dict())


@pytest.mark.parametrize("family", sorted(LANGUAGES))
def test_a_transformers_language_model_loads_by_name(tmp_path: Path, family: str) -> None:
    decoder = Decoder(published(tmp_path, family))
    report = load_language(decoder, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(tensor, stored[f"model.{name}"])
    assert set(report.loaded) == set(decoder.state_dict())
    assert set(report.dropped) == set(stored) & {"lm_head.weight"}


def test_shards_are_read_as_one_checkpoint(tmp_path: Path) -> None:
    config = published(tmp_path, "llama", max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert len(load_language(Decoder(config), tmp_path).loaded) == len(Decoder(config).state_dict())


def test_a_shallower_decoder_takes_the_first_blocks_and_lists_the_rest(tmp_path: Path) -> None:
    config = published(tmp_path, "llama")
    decoder = Decoder(config.model_copy(update={"depth": 2}))
    report = load_language(decoder, tmp_path)
    assert {name.split(".")[2] for name in report.dropped if "layers" in name} == {"2"}


def test_other_sizes_are_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    config = published(tmp_path, "llama")
    wrong = config.model_copy(update={"mlp_width": 64, "norm_eps": 1e-3})
    with pytest.raises(UserError, match=r"Set language.mlp_width to 48") as error:
        load_language(Decoder(wrong), tmp_path)
    assert len(error.value.faults) == 2


def test_another_family_is_refused_by_name(tmp_path: Path) -> None:
    config = published(tmp_path, "llama")
    text = (tmp_path / "config.json").read_text().replace('"llama"', '"mamba"')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"found 'mamba'.*Choose a language model of one of these"):
        load_language(Decoder(config), tmp_path)


def test_a_missing_language_tensor_is_refused_by_name(tmp_path: Path) -> None:
    config = published(tmp_path, "qwen2")
    stored = load_file(tmp_path / "model.safetensors")
    del stored["model.layers.1.self_attn.k_proj.bias"]
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"layers.1.self_attn.k_proj.bias: found no such tensor"):
        load_language(Decoder(config), tmp_path)


@pytest.mark.parametrize(
    ("tower", "arguments", "level"),
    [
        ("resnetv2_18", {"norm_layer": "groupnorm1", "channels": [32] * 4, "layers": [1] * 4}, 2),
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2}, 1),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "embed_dim": 24, "depths": [1, 1], "num_heads": [2, 2]},
            1,
        ),
    ],
)
def test_a_timm_tower_loads_by_name(
    tmp_path: Path, tower: str, arguments: dict[str, object], level: int
) -> None:
    torch.manual_seed(0)
    model = timm.create_model(tower, pretrained=False, **arguments)
    save_file(model.state_dict(), tmp_path / "tower.safetensors")
    config = TimmVisionConfig(tower=tower, tower_args=arguments, feature_level=level, film=True)
    ours = TimmTower(config, (32, 32), language_width=8)
    report = load_tower(ours, tmp_path / "tower.safetensors")
    images = torch.rand(2, 3, 32, 32)
    features = model.eval().forward_intermediates(images, indices=[level], intermediates_only=True)
    found = ours.eval()(images, torch.randn(2, 8))
    expected = features[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    assert "head.fc.weight" in report.dropped or "head.weight" in report.dropped


def test_a_missing_tower_tensor_is_refused_by_name(tmp_path: Path) -> None:
    arguments = {"norm_layer": "groupnorm1", "channels": [32] * 4, "layers": [1] * 4}
    stored = timm.create_model("resnetv2_18", pretrained=False, **arguments).state_dict()
    del stored["stages.1.blocks.0.conv1.weight"]
    save_file(stored, tmp_path / "tower.safetensors")
    config = TimmVisionConfig(tower="resnetv2_18", tower_args=arguments, feature_level=2)
    with pytest.raises(UserError, match=r"stages_1.blocks.0.conv1.weight: found no") as caught:
        load_tower(TimmTower(config, (32, 32), 8), tmp_path / "tower.safetensors")
    assert "init_missing" not in str(caught.value), "no setting of a new policy"
