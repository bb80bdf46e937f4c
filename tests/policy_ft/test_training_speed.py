"""What makes a run faster or smaller changes none of its numbers, or is refused."""

import os
import subprocess
import sys
import weakref
from collections import defaultdict
from dataclasses import dataclass
from functools import partialmethod

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data_tools.formats.reader import open_dataset
from policy_ft import assemble
from policy_ft.config.model import DecoderConfig, SiglipVisionConfig, TimmVisionConfig
from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.data.loader import BatchLoader
from policy_ft.data.windows import WindowDataset
from policy_ft.models.backbones.timm_tower import TimmTower
from policy_ft.models.inputs import ModelInput
from policy_ft.models.vla import VLAModel
from policy_ft.objectives.flow import Flow
from policy_ft.training.launch import start_accelerator
from policy_ft.training.optimizer import build_optimizer
from policy_ft.training.step import TrainStep, to_device
from policy_ft.tuning.averaging import Ema
from policy_ft.tuning.plan import Phase, plan_tuning
from tests.policy_ft.losses import flow_errors

DEEP = DecoderConfig(
    family="llama",
    vocab_size=300,
    width=32,
    depth=6,
    mlp_width=96,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
)


@dataclass(frozen=True)
class Trained:
    """The records of a run, and the gradients of each parameter, one a step."""

    records: list[dict[str, object]]
    gradients: dict[str, list[Tensor]]

    def losses(self, kind: str = "train") -> list[float]:
        return [row["loss"] for row in self.records if row["kind"] == kind]


def trained(config) -> Trained:
    """The run of a config, through the whole loop."""
    episodes = open_dataset(list(config.data.path))
    policy = assemble.build_policy(config, episodes)
    gradients: dict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in policy.model.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, kept=gradients[name]: kept.append(p.grad.clone())
        )
    return Trained(assemble.train(config, policy, episodes).metrics, gradients)


def require_alike(found: Trained, expected: Trained) -> None:
    assert found.losses() == pytest.approx(expected.losses(), rel=1e-5)
    assert found.losses("validation") == pytest.approx(expected.losses("validation"), rel=1e-5)
    scale = max(each.abs().max() for steps in expected.gradients.values() for each in steps)
    assert found.gradients.keys() == expected.gradients.keys()
    for name, steps in expected.gradients.items():
        for one, other in zip(found.gradients[name], steps, strict=True):
            assert (one - other).abs().max() <= 1e-5 * scale, name


class HeldMemory(TorchDispatchMode):
    """Adds up the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.most_bytes = self._held = 0
        self._storages: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._storages:
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._storages.add(storage)
        self._held += storage.nbytes()
        self.most_bytes = max(self.most_bytes, self._held)
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, num_bytes: int) -> None:
        self._held -= num_bytes


def test_checkpointed_activations_change_no_gradient_and_take_less_memory(
    run_config, small_model, tmp_path
):
    found, most = {}, {}
    for on in (False, True):
        config = run_config(
            policy={"model": small_model(language=DEEP)},
            training={"activation_checkpointing": on, "noise_draws": 8, "steps": 3, "log_every": 1},
            tuning={"ema": "off"},
            output_dir=str(tmp_path / f"checkpointing_{on}"),
        )
        found[on] = trained(config)
        with HeldMemory() as memory:
            assemble.train(config.model_copy(update={"output_dir": str(tmp_path / f"again_{on}")}))
        most[on] = memory.most_bytes
    require_alike(found[True], found[False])
    assert most[True] < 0.6 * most[False]


def test_after_a_run_the_model_is_as_it_was(run_config):
    config = run_config(training={"activation_checkpointing": True, "steps": 1})
    episodes = open_dataset(list(config.data.path))
    policy = assemble.build_policy(config, episodes)
    assemble.train(config, policy, episodes)
    assert not policy.model.expert.checkpoint_activations
    assert not policy.model.backbone.language.checkpoint_activations


# torch's own, while it compiles
compiles = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning", "ignore::DeprecationWarning:torch"
)


@compiles
@pytest.mark.slow
def test_a_compiled_run_computes_what_an_eager_one_does(run_config, small_model, tmp_path):
    """Needs a C++ compiler, as training.compile does on a CPU."""
    tower = SiglipVisionConfig(
        kind="siglip", patch_size=16, width=32, depth=2, num_heads=2, mlp_width=48
    )
    found = {}
    for on in (False, True):
        config = run_config(
            policy={"model": small_model(vision=tower)},
            training={"compile": on, "steps": 3, "log_every": 1, "batch_size": 8},
            validation={"every": 2, "num_windows": 3},
            output_dir=str(tmp_path / f"compile_{on}"),
        )
        counters.clear()
        found[on] = trained(config)
        assert (counters["stats"]["unique_graphs"] > 0) == on
    require_alike(found[True], found[False])


@compiles
@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_prompts_of_many_lengths_are_compiled_twice_at_most(golden, monkeypatch, family):
    """First for one length, then for any; graphs are made as ever and run by torch itself."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    case = golden(family)
    model = case.model.train()
    model.compile_blocks()
    graphs = [compiled_step(model, lengthened(case.inputs, n)) for n in (8, 16, 24, 32, 40)]
    # a block of the decoder with and without its stream, of the expert reading and writing,
    # and the first of a tower, whose input needs no gradient
    kinds_of_blocks = {"pi0": 8, "pi05": 8, "smolvla": 10}[family]
    assert kinds_of_blocks <= graphs[0] <= kinds_of_blocks + 1
    assert graphs[1] <= 2 * graphs[0]
    assert graphs[1:] == [graphs[1]] * 4
    model.compile_blocks(False)
    assert compiled_step(model, lengthened(case.inputs, 48)) == graphs[1]


@compiles
def test_a_tower_that_an_instruction_modulates_is_compiled_whole():
    """FiLM comes by hooks, which must not cut the graph, and no instruction may stay in it."""
    torch._dynamo.reset()
    counters.clear()
    args = {"channels": [32] * 4, "stem_chs": 32, "layers": [1] * 4, "norm_layer": "groupnorm1"}
    config = TimmVisionConfig(tower="resnetv2_18", tower_args=args, feature_level=2, film=True)
    tower = TimmTower(config, (32, 32), language_width=8)
    for modulation in tower.film:
        nn.init.normal_(modulation.dense.weight)
    images, told = torch.rand(1, 3, 32, 32), torch.eye(8)[:, None]
    expected = [tower(images, language) for language in told]
    for block in tower.blocks:
        block.compile(backend="eager")
    for language, tokens in zip(told, expected, strict=True):
        assert torch.equal(tower(images, language), tokens)
    assert not torch.equal(*expected[:2])
    assert counters["stats"]["unique_graphs"] == 1


def lengthened(inputs: ModelInput, length: int) -> ModelInput:
    batch = inputs.batch_size
    return ModelInput(
        images=inputs.images,
        image_mask=inputs.image_mask,
        prompt_tokens=torch.arange(length).expand(batch, -1) % 50,
        prompt_mask=torch.ones(batch, length, dtype=torch.bool),
        state=inputs.state,
    )


def compiled_step(model: VLAModel, inputs: ModelInput) -> int:
    """The graphs made since the counters were cleared, after a training step."""
    flow_errors(model, inputs, torch.zeros(inputs.batch_size, *model.action_shape)).sum().backward()
    return counters["stats"]["unique_graphs"]


def test_a_machine_without_a_compiler_is_told_what_to_install(run_config, tmp_path):
    config = run_config(training={"compile": True})
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    environment = {
        **os.environ,
        "CXX": str(tmp_path / "no-compiler"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "policy_ft", "check", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "training.compile: found true" in said
    assert "apt-get install g++ python3-dev" in said


class HostReads(TorchFunctionMode):
    """Notes every call that would make the host wait for a device."""

    NAMES = frozenset(
        {"item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "unique", "is_nonzero"}
        | {"__bool__", "__int__", "__float__", "__index__", "equal", "allclose"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in self.NAMES or (name == "__getitem__" and _reads_values(args[1])):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def _reads_values(index: object) -> bool:
    """Whether indexing copies the index to the device or counts its True values."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(
        isinstance(part, list) or (isinstance(part, Tensor) and part.dtype == torch.bool)
        for part in parts
    )


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_a_forward_pass_never_makes_the_host_wait(golden, family):
    case = golden(family)
    actions = torch.zeros(case.inputs.batch_size, *case.model.action_shape)
    with HostReads() as reads:
        flow_errors(case.model, case.inputs, actions).sum().backward()
        case.model.sample_actions(case.inputs)
    assert reads.found == []


def test_a_forward_pass_of_our_own_model_never_makes_the_host_wait(policy, episodes):
    observation = episodes[0].observation(0, policy.transforms.config.camera_names)
    sample = policy.transforms.encode(observation)
    samples = {name: torch.from_numpy(value)[None] for name, value in sample.items()}
    inputs = policy.transforms.encode_batch(samples, "cpu")
    assert inputs.camera_slots is not None, "one of three slots is empty"
    with HostReads() as reads:
        flow_errors(
            policy.model, inputs, torch.zeros(1, *policy.model.action_shape)
        ).sum().backward()
        policy.model.sample_actions(inputs)
    assert reads.found == []


def test_a_train_step_makes_the_host_wait_once(policy, episodes):
    windows = WindowDataset(episodes, [0, 1], policy.transforms)
    plan = plan_tuning(
        policy.model, [Phase(0, ())], OptimizerConfig(), Flow().reaches(policy.model)
    )
    plan.at(0).apply(policy.model)
    step = TrainStep(
        start_accelerator(),
        policy.model,
        [Flow()],
        build_optimizer(policy.model, plan, OptimizerConfig()),
        windows.locate,
        clip_norm=1.0,
        autocast_dtype=torch.bfloat16,
    )
    ema = Ema(dict(policy.model.named_parameters()), 0.9)
    order = windows.order(0)
    loader = BatchLoader(windows, order=order, seed=0, batch_size=4, accumulation_steps=2)
    samples = next(loader.iter_from(0))
    batches = [to_device(each, policy.transforms, torch.device("cpu")) for each in samples]
    with HostReads() as reads:
        step(1, batches)
        ema.update()
    assert reads.found == ["tolist"]


def test_the_host_reads_are_noticed():
    with HostReads() as reads:
        x = torch.ones(2)
        _ = x[x > 0], x[[0, 1]], float(x.sum()), x.sum().item(), bool(x.any())
    assert reads.found == ["__getitem__", "__getitem__", "__float__", "item", "__bool__"]


def test_averaging_takes_no_memory_beside_the_averages():
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(8)))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    ema = Ema(dict(model.named_parameters()), 0.99)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        ema.update()
    taken = sum(max(event.self_cpu_memory_usage, 0) for event in profiler.events())
    assert taken < 0.01 * weights
