"""LeRobot 0.4.4's pi0 in an environment of its own: reads requests, measures steps, answers.

Started by lerobot.py from the folder `benchmarks` as `python -m peers.lerobot_child`. A request is
one line of JSON on the standard input, an answer one line on the standard output; between them the
process waits in a read and uses no processor. `--check` only imports what is needed.

    {"do": "load", "model": {...}, "weights": "pi0.safetensors", "device": "cpu"}   ->  {}
    {"do": "train" | "sample", "batch": "batch.safetensors"}   ->  the fields of Measured
    {"do": "free"}                                             ->  {}

LeRobot's modeling_pi0.py runs as it is. It asks for a transformers whose Gemma was changed by files
of openpi's; the changes it uses are made here at run time, on transformers 4.53.2: a norm answers
(normalized, gate), and in pi0 there is no gate; a tower that starts from embeddings does not scale
them; with `use_cache=False` a given cache is read and left as it is; image features are not divided
by the root of the width. LeRobot writes its sizes into its code, so the sizes of a request are put
in where it looks them up.
"""

import argparse
import dataclasses
import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from peers.measure import Measured, release_memory, sampling, train_step

if not torch.version.cuda:
    # torchvision's published wheel is built for CUDA; beside a CPU torch its import fails for want
    # of the schemas of two operators, which nothing here calls
    schemas = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        schemas.define(schema)  # type: ignore[no-untyped-call]

from lerobot.policies.pi0 import modeling_pi0  # type: ignore[import-not-found]
from lerobot.policies.pi0.configuration_pi0 import PI0Config  # type: ignore[import-not-found]
from safetensors.torch import load_file
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import no_init_weights
from transformers.models import siglip
from transformers.models.gemma import modeling_gemma as gemma
from transformers.models.gemma.modeling_gemma import GemmaForCausalLM
from transformers.models.paligemma.modeling_paligemma import (
    PaliGemmaForConditionalGeneration,
    PaliGemmaModel,
)

TIED = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"


def norm(module: Any, x: Tensor, cond: None) -> tuple[Tensor, None]:
    """Gemma's norm as pi0 calls it: its norms have no condition, so there is no gate."""
    return (module._norm(x.float()) * (1.0 + module.weight.float())).type_as(x), None


def gated_residual(x: Tensor, y: Tensor, gate: None) -> Tensor:
    """The stream x with what a block adds to it."""
    return x + y


def image_features(module: Any, pixel_values: Tensor) -> Tensor:
    """The tower's features through the projector."""
    return module.multi_modal_projector(module.vision_tower(pixel_values).last_hidden_state)


def tower(
    module: Any,
    *,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor,
    past_key_values: DynamicCache | None,
    use_cache: bool,
    adarms_cond: None,
) -> BaseModelOutputWithPast:
    """One Gemma tower: fills a new cache, or reads a given one."""
    x, filled = inputs_embeds, DynamicCache() if use_cache else None
    table = module.rotary_emb(x, position_ids)
    for index, layer in enumerate(module.layers):
        normalized, gate = layer.input_layernorm(x, cond=adarms_cond)
        past = None if past_key_values is None else past_key_values[index]
        attended, key, value = attend(layer.self_attn, normalized, table, attention_mask, past)
        if filled is not None:
            filled.update(key, value, index)
        x = gated_residual(x, attended, gate)
        normalized, gate = layer.post_attention_layernorm(x, cond=adarms_cond)
        x = gated_residual(x, layer.mlp(normalized), gate)
    last, _ = module.norm(x, cond=adarms_cond)
    return BaseModelOutputWithPast(last_hidden_state=last, past_key_values=filled)


def attend(
    module: Any,
    x: Tensor,
    table: tuple[Tensor, Tensor],
    mask: Tensor,
    past: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gemma's eager attention, which LeRobot asks for: the output, and x's own keys and values."""
    query, key, value = (
        project(x).view(*x.shape[:2], -1, module.head_dim).transpose(1, 2)
        for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    query, key = gemma.apply_rotary_pos_emb(query, key, *table)
    seen = (key, value)
    if past is not None:
        seen = (torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2))
    attended, _ = gemma.eager_attention_forward(module, query, *seen, mask, module.scaling)
    return module.o_proj(attended.flatten(2)), key, value


def complete_transformers() -> None:
    """Gives transformers what modeling_pi0.py asks of it."""
    gemma.GemmaRMSNorm.forward = norm
    gemma._gated_residual = gated_residual
    gemma.GemmaModel.forward = tower
    PaliGemmaModel.get_image_features = image_features
    siglip.check = SimpleNamespace(
        check_whether_transformers_replace_is_installed_correctly=lambda: True
    )


def set_sizes(sizes: dict[str, Any]) -> None:
    """Puts a model's sizes where LeRobot looks them up."""
    language, vision, expert = sizes["language"], sizes["vision"], sizes["expert"]

    def variant(name: str) -> modeling_pi0.GemmaConfig:
        tower = language if name == "gemma_2b" else expert
        return modeling_pi0.GemmaConfig(
            width=tower["width"],
            depth=language["depth"],
            mlp_dim=tower["mlp_width"],
            num_heads=language["num_heads"],
            num_kv_heads=language["num_kv_heads"],
            head_dim=language["head_dim"],
        )

    def build_paligemma(config: Any) -> PaliGemmaForConditionalGeneration:
        config.text_config.vocab_size = language["vocab_size"]
        config.vision_config.hidden_size = vision["width"]
        config.vision_config.intermediate_size = vision["mlp_width"]
        config.vision_config.num_hidden_layers = vision["depth"]
        config.vision_config.num_attention_heads = vision["num_heads"]
        config.vision_config.projection_dim = language["width"]
        return PaliGemmaForConditionalGeneration(config)

    def build_expert(config: Any) -> GemmaForCausalLM:
        config.vocab_size = language["vocab_size"]
        return GemmaForCausalLM(config)

    modeling_pi0.get_gemma_config = variant
    modeling_pi0.PaliGemmaForConditionalGeneration = build_paligemma
    modeling_pi0.GemmaForCausalLM = build_expert


def load(sizes: dict[str, Any], weights: str, device: str) -> modeling_pi0.PI0Pytorch:
    """LeRobot's model of these sizes with these weights, every one of them accounted for."""
    set_sizes(sizes)
    config = PI0Config(
        chunk_size=sizes["action_horizon"],
        n_action_steps=sizes["action_horizon"],
        max_action_dim=sizes["action_dim"],
        max_state_dim=sizes["state_dim"],
        image_resolution=(sizes["image_height"], sizes["image_width"]),
        device=device,
    )
    with no_init_weights():
        model = modeling_pi0.PI0Pytorch(config)
    model.paligemma_with_expert.paligemma.tie_weights()  # which no_init_weights leaves out too
    missing, unexpected = model.load_state_dict(load_file(weights), strict=False)
    wrong = (set(missing) - {TIED}) | set(unexpected)
    if wrong:
        raise ValueError(f"{weights}: {sorted(wrong)} are not in both the file and LeRobot's pi0.")
    return model.to(device)


def arguments(batch: dict[str, Tensor]) -> tuple[Any, ...]:
    """What PI0Pytorch's forward and sample_actions have in common."""
    cameras = range(batch["images"].shape[1])
    return (
        [batch["images"][:, camera] for camera in cameras],
        [batch["image_mask"][:, camera] for camera in cameras],
        batch["prompt_tokens"],
        batch["prompt_mask"],
        batch["state"],
    )


def measure(model: modeling_pi0.PI0Pytorch, work: str, path: str, device: str) -> Measured:
    """One step on a stored batch."""
    batch = {name: tensor.to(device) for name, tensor in load_file(path).items()}
    observed, noise = arguments(batch), batch["noise"]
    if work == "sample":
        return sampling(model, lambda: model.sample_actions(*observed, noise=noise, num_steps=10))
    actions, time = batch["actions"], batch["time"]
    return train_step(model, lambda: model(*observed, actions, noise=noise, time=time))


def serve() -> None:
    """Answers requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    model, device = None, "cpu"
    for line in sys.stdin:
        request, answer = json.loads(line), {}
        if request["do"] == "load":
            device = request["device"]
            model = load(request["model"], request["weights"], device)
        elif request["do"] == "free":
            model = None
            release_memory()
        else:
            answer = dataclasses.asdict(measure(model, request["do"], request["batch"], device))
        answers.write(json.dumps(answer) + "\n")


def main() -> None:
    """Serve, or check the imports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    complete_transformers()
    if not options.check:
        serve()


if __name__ == "__main__":
    main()
