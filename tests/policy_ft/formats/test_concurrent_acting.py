"""Threads that act side by side get the bits that each would get alone."""

import copy
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest
import torch
from timm.models.efficientformer import Attention
from torch import Tensor, nn

import policy_ft
from data_tools.episode import Observation
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.model import ModelConfig, TimmVisionConfig
from policy_ft.models.build import build_model
from policy_ft.models.solvers import Euler, SampleRequest
from policy_ft.policy import Policy

NUM_THREADS = 3
TINY = {"channels": [32] * 4, "stem_chs": 32, "layers": [1] * 4}
TOWERS = {
    "film": TimmVisionConfig(
        tower="resnetv2_18",
        tower_args={**TINY, "norm_layer": "groupnorm1"},
        feature_level=2,
        film=True,
    ),
    "hooks": TimmVisionConfig(
        tower="resnetv2_18",
        tower_args={**TINY, "norm_layer": "groupnorm1", "feature_cls": "hook"},
        feature_level=2,
    ),
    "transformer": TimmVisionConfig(
        tower="vit_tiny_patch16_224",
        tower_args={"img_size": 32, "embed_dim": 48, "num_heads": 3, "depth": 3},
        feature_level=2,
        film=True,
    ),
}
PUBLISHED = ("openpi pi0", "openpi pi05", "lerobot pi0", "lerobot pi05", "lerobot smolvla")
MakePolicy = Callable[[str], Policy]


@pytest.fixture
def make(
    fitted, small_model, openpi_directory, lerobot_directory, tokenizer_file, arm, tmp_path
) -> MakePolicy:
    """make(name): a tiny policy of each family and of each way into a timm tower."""

    def own(tower: TimmVisionConfig) -> Policy:
        config = ModelConfig.model_validate(small_model(vision=tower))
        model = build_model(config).eval()
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        return Policy(model, fitted(), config)

    def make(name: str) -> Policy:
        if name in TOWERS:
            return own(TOWERS[name])
        layout, family = name.split()
        if layout == "openpi":
            directory = openpi_directory(tmp_path / "checkpoint", family)
            return policy_ft.load_policy(directory, tokenizer=tokenizer_file, embodiment=arm)
        return policy_ft.load_policy(lerobot_directory(tmp_path / "checkpoint", family))

    return make


@pytest.fixture
def often_interrupted() -> Iterator[None]:
    """Threads take turns thousands of times a second, not 200 times."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def seen(policy: Policy, number: int) -> Observation:
    """The observation of that number: no two look alike or are told the same."""
    generator = np.random.default_rng(number)
    return Observation(
        images={
            c.name: generator.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8)
            for c in policy.conventions.cameras
        },
        state=generator.normal(size=len(policy.conventions.state.names)).astype(np.float32),
        instruction=f"{('push', 'lift', 'open', 'reach')[number]} the {'red ' * number}block",
    )


def chunks(policy: Policy, order: list[int]) -> dict[int, bytes]:
    """Number of an observation -> the bits of its chunk, from one call each in this order."""
    noise = torch.linspace(-1, 1, 4 * policy.config.action_horizon * policy.config.action_dim)
    noise = noise.view(4, 1, *policy.chunk_shape)
    return {
        k: policy.act([seen(policy, k)], SampleRequest(noise[k], Euler(2)))[0].tobytes()
        for k in order
    }


def side_by_side(work: Callable[[int], object]) -> list[object]:
    """work(0), work(1), ... in a thread each, begun together."""
    start = Barrier(NUM_THREADS)

    def run(number: int) -> object:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        return list(threads.map(run, range(NUM_THREADS)))


@pytest.mark.parametrize("name", [*TOWERS, *PUBLISHED])
def test_threads_get_the_bits_of_calls_one_after_the_other(make, often_interrupted, name):
    policy = make(name)
    alone = chunks(policy, [0, 1, 2, 3])
    assert len(set(alone.values())) == 4
    orders = [[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 2], [1, 3, 0, 2, 1, 3]]
    assert side_by_side(lambda number: chunks(policy, orders[number])) == [alone] * NUM_THREADS


def test_threads_get_the_same_bits_of_weights_in_bfloat16(
    lerobot_directory, tmp_path, often_interrupted
):
    directory = lerobot_directory(tmp_path / "checkpoint", "smolvla")
    policy = policy_ft.load_policy(directory, dtype="bfloat16")
    alone = chunks(policy, [0, 1, 2, 3])
    assert side_by_side(lambda _: chunks(policy, [0, 1, 2, 3])) == [alone] * NUM_THREADS


@pytest.mark.slow
def test_hundreds_of_calls_side_by_side_have_the_bits_of_calls_alone(make, often_interrupted):
    policy = make("film")
    alone = chunks(policy, [0, 1, 2, 3])
    orders = np.random.default_rng(0).integers(0, 4, (NUM_THREADS, 25, 4)).tolist()
    for calls in zip(*orders, strict=True):
        expected = [{k: alone[k] for k in order} for order in calls]
        assert side_by_side(lambda number, calls=calls: chunks(policy, calls[number])) == expected


@pytest.mark.parametrize("name", ["film", "transformer"])
def test_threads_meet_inside_a_tower_and_each_is_told_its_own_sentence(make, name):
    policy = make(name)
    alone = chunks(policy, [0, 1, 2, 3])
    meeting = Barrier(NUM_THREADS)

    def wait(*_: object) -> None:
        meeting.wait(timeout=30)

    next(policy.model.backbone.vision.body.children()).register_forward_hook(wait)
    found = side_by_side(lambda number: chunks(policy, [number]))
    assert found == [{number: alone[number]} for number in range(NUM_THREADS)]


def test_a_tower_that_timm_reads_out_by_hooks_lets_in_one_thread_at_a_time(make):
    """Each waits for the others where the features of all would lie."""
    policy = make("hooks")
    alone = chunks(policy, [0, 1, 2, 3])
    meeting = Barrier(NUM_THREADS)

    def wait(*_: object) -> None:
        with suppress(BrokenBarrierError):
            meeting.wait(timeout=0.2)

    list(policy.model.backbone.vision.body.children())[-1].register_forward_hook(wait)
    found = side_by_side(lambda number: chunks(policy, [number]))
    assert found == [{number: alone[number]} for number in range(NUM_THREADS)]


def test_dropout_stays_out_of_every_thread_until_the_last_has_acted(make, often_interrupted):
    policy = make("film")
    alone = chunks(policy, [0, 1, 2, 3])
    policy.model.expert.register_module("dropout", nn.Dropout(0.9))
    policy.model.expert.layers[0].mlp.register_forward_hook(
        lambda mlp, inputs, x: policy.model.expert.dropout(x)
    )
    policy.model.train()
    policy.model.backbone.vision.eval()
    before = [module.training for module in policy.model.modules()]
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]]
    for _ in range(3):
        assert side_by_side(lambda number: chunks(policy, orders[number])) == [alone] * NUM_THREADS
        assert [module.training for module in policy.model.modules()] == before


def test_modes_come_back_when_the_last_thread_is_out(make):
    model = make("film").model.train()
    first, second = model.evaluating(), model.evaluating()
    with second:
        with first:
            assert not any(module.training for module in model.modules())
        assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.modules())


def test_a_model_copied_while_it_acts_has_modes_of_its_own(make):
    model = make("film").model
    with model.evaluating():
        again = copy.deepcopy(model).train()
    with again.evaluating():
        assert not any(module.training for module in again.modules())
    assert all(module.training for module in again.modules())


@pytest.mark.parametrize("is_training", [False, True])
def test_weights_that_change_between_calls_count_whatever_layers_keep(make, is_training):
    """Attention of some timm towers keeps its table of biases until its mode is set."""
    model = make("film").model
    attention = Attention(dim=8, key_dim=4, num_heads=2, resolution=2)
    model.register_module("attention", attention)
    model.train(is_training)
    tokens = torch.linspace(-1, 1, 32).view(1, 4, 8)
    found = []
    for bias in (0.0, 1.0):
        with torch.no_grad(), model.evaluating():
            found.append(attention(tokens))
            attention.attention_biases[:, 0] = bias + 1.0
    assert not torch.equal(*found)


def test_models_built_side_by_side_have_the_weights_of_their_seeds(small_model, often_interrupted):
    config = ModelConfig.model_validate(small_model())
    alone = [weights_hash(build_model(config, seed=seed)) for seed in range(NUM_THREADS)]
    for _ in range(3):
        found = side_by_side(lambda seed: weights_hash(build_model(config, seed=seed)))
        assert found == alone


def test_a_copied_model_computes_the_same_while_the_first_is_busy(make):
    vision = make("hooks").model.backbone.vision
    arguments = torch.zeros(1, 3, 32, 32), torch.ones(1, 32)
    again = copy.deepcopy(vision)
    with vision._turn, ThreadPoolExecutor(1) as thread:
        found: Tensor = thread.submit(again, *arguments).result(timeout=10)
    assert torch.equal(found, vision(*arguments))
