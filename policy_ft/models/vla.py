"""VLAModel, backbone and action expert together: the one class trained, evaluated and served.

Letters: b batch, k noise draw, h action step, a action column.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from policy_ft.models.backbones.backbone import Backbone, Feature
from policy_ft.models.batch import Batch
from policy_ft.models.expert import ActionExpert
from policy_ft.models.inputs import ModelInput
from policy_ft.models.leaves import ADAPTER, BASE, leaf_of, matches
from policy_ft.models.objective import Objective, Term, terms_of
from policy_ft.models.prefix import Prefix
from policy_ft.models.solvers import Euler, Solver
from policy_ft.models.turns import EvaluationMode


class VLAModel(nn.Module):
    """A vision-language-action policy that samples actions by flow matching.

    Args:
        backbone: ModelInput -> Prefix; has `dormant`.
        expert: (Prefix, state, noisy actions, time) -> velocity.
        action_horizon: h.
        action_dim: a.

    Attributes:
        autocast_dtype: what a policy that acts computes in, its weights staying as they are; None
            for the type of the weights. Set by a run, and recorded in its checkpoints.
        adapter_targets: patterns of the groups that edits gave adapters.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        expert: ActionExpert,
        action_horizon: int,
        action_dim: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.expert = expert
        self.action_shape = (action_horizon, action_dim)
        self.autocast_dtype: torch.dtype | None = None
        self.adapter_targets: tuple[str, ...] = ()
        self._evaluation = EvaluationMode()

    def forward(
        self,
        batch: Batch,
        objectives: Sequence[Objective],
        features: Prefix | Tensor | None = None,
    ) -> dict[str, Term]:
        """The terms of all objectives: the only entry of training, as wrappers hook only forward.

        Args:
            batch: b samples.
            objectives: what is minimised.
            features: of the batch's observations, computed before; as Backbone.forward takes them.
        """
        prefix = self.backbone(batch.inputs, features)
        return terms_of(objectives, self, prefix, batch)

    @torch.no_grad()
    def sample_actions(
        self,
        inputs: ModelInput,
        noise: Tensor | None = None,
        solver: Solver | None = None,
        real_columns: Tensor | None = None,
    ) -> Tensor:
        """float32[b, h, a], normalized action chunks; zero in the columns that are padding.

        No loss reaches the velocity of a padded column, so it is not followed: the column stays on
        the path on which training showed it, time * noise, whose velocity is the noise itself.

        Args:
            inputs: b observations.
            noise: float32[b, h, a], the start of the flow; drawn from torch's generator when not
                given.
            solver: of the flow; ten Euler steps when not given.
            real_columns: bool[a], False where training padded; all True when not given.
        """
        if noise is None:
            noise = torch.randn(inputs.batch_size, *self.action_shape, device=inputs.state.device)
        context = self.expert.context(self.backbone(inputs), 1, noise.shape[1])

        def velocity(x: Tensor, time: Tensor) -> Tensor:
            learned = self.expert.velocity(context, inputs.state, x[:, None], time[:, None])[:, 0]
            return learned if real_columns is None else learned.where(real_columns, noise)

        return (solver or Euler(10))(velocity, noise)

    def evaluating(self) -> AbstractContextManager[None]:
        """Evaluation mode inside the block, for any number of threads; then as before."""
        return self._evaluation.of(self)

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts worth compiling and sharding, each used through its own forward alone."""
        of_towers = [block for tower in self.backbone.towers for block in tower.blocks]
        return [*of_towers, *self.expert.layers]

    @property
    def feature_sources(self) -> dict[Feature, tuple[str, ...]]:
        """Feature -> names of the parameters it depends on: may be cached while none learns."""
        return {
            feature: tuple(f"backbone.{name}" for name in names)
            for feature, names in self.backbone.feature_sources.items()
        }

    def compile_blocks(self, enabled: bool = True) -> None:
        """Whether every block runs compiled (torch.compile), which changes results by rounding.

        Block by block, because layers of one class then share a graph, which is quick to make, and
        the names of the parameters stay as they are.
        """
        for block in self.blocks:
            if enabled:
                block.compile()
            else:
                block._compiled_call_impl = None  # torch has no public way back

    def checkpoint_activations(self, enabled: bool = True) -> None:
        """Whether every block computes its activations again in the backward pass.

        Costs one more forward pass and saves all but the blocks' inputs (Chen et al. 2016). One
        level: blocks are never checkpointed inside one another.
        """
        for tower in self.backbone.towers:
            tower.checkpoint_activations = enabled
        self.expert.checkpoint_activations = enabled

    def float32_names(self) -> frozenset[str]:
        """Parameters that stay float32 in a model of a smaller type: small, and near the edges.

        Patch and position embeddings, norms, the maps of adaptive norms and the heads, as in pi0
        (openpi, pi0_pytorch.py, to_bfloat16_for_selected_params).
        """
        parts = ("embeddings.", "image_positions", "norm")
        heads = {
            name
            for leaf, names in self.groups().items()
            if leaf.startswith("heads.")
            for name in names
        }
        return frozenset(
            heads
            | {name for name, _ in self.named_parameters() if any(part in name for part in parts)}
        )

    def no_weight_decay(self) -> set[str]:
        """Names of norms, biases, embeddings and positions, which weight decay would distort."""
        embeddings = {
            f"{name}.weight"
            for name, module in self.named_modules()
            if isinstance(module, nn.Embedding)
        }
        return embeddings | {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim < 2 or name.endswith("image_positions")
        }

    def groups(self) -> dict[str, list[str]]:
        """Leaf group -> parameter names: a partition of all parameters, in model order.

        Leaves are vision.<part>, vision.film, projector, language.embed, language.layers.<i>,
        language.norm, expert.layers.<i>, expert.norm, heads.state_in, heads.action_in, heads.time
        and heads.action_out; and below each the leaf `adapter`, where its layers have any.
        """
        groups: dict[str, list[str]] = {}
        for name, _ in self.named_parameters():
            groups.setdefault(leaf_of(name), []).append(name)
        return groups

    def held(self) -> dict[str, bool]:
        """Parameters that adapters learn in place of: name -> whether a rule can let them learn.

        Those under an adapter never learn: all that they could is the adapter's. What else a target
        of adapters names stays as it is while no rule names it.
        """
        targets = self.adapter_targets
        held = {}
        for leaf, names in self.groups().items():
            for name in names:
                if f".{BASE}" in name:
                    held[name] = False
                elif not leaf.endswith(f".{ADAPTER}") and any(
                    matches(target, leaf, name) for target in targets
                ):
                    held[name] = True
        return held
