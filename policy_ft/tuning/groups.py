"""Which parameters learn, and how fast: named groups, ordered rules, first match wins."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import nn

from data_tools.errors import nearest
from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.config.tuning import GroupRule
from policy_ft.errors import UserError, describe
from policy_ft.models.leaves import ADAPTER, matches
from policy_ft.tuning.stochastic import batch_norms

ParameterState = Literal["trained", "frozen", "dormant"]

TOWERS = ("vision", "language", "expert")
"""Top-level groups whose leaves follow one another from input to output."""
ADAPTED = "(adapted)"
"""Stands for a rule in the table where an edit, and no rule, says that something stays as it is."""
_UNDER_ADAPTERS = "lie under an adapter and never learn"


class GroupedModel(Protocol):
    """What a model tells about its own parameters."""

    def groups(self) -> dict[str, list[str]]:
        """Leaf group -> parameter names; together a partition of all parameters."""

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that must not decay: norms, biases, embeddings."""

    def held(self) -> dict[str, bool]:
        """Parameters that stay as they are without a rule -> whether one can let them learn."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As torch.nn.Module.named_parameters."""


@dataclass(frozen=True)
class Assignment:
    """What the rules decided for one parameter."""

    parameter: str
    leaf: str
    depth: int
    """Of the leaf among those of its tower, counted from the input: 0 for vision.embeddings and
    language.embed, then one more for each leaf of the model's order."""
    pattern: str
    state: ParameterState
    num_values: int
    lr_scale: float
    weight_decay: float


@dataclass(frozen=True)
class GroupRow:
    """One line of the table printed before step 0: one top-level group under one rule."""

    group: str
    pattern: str
    state: ParameterState
    tensors: int
    parameters: int
    lr: tuple[float, float]
    """The lowest and the highest rate among them."""
    weight_decay: float
    decayed_tensors: int


@dataclass(frozen=True)
class GroupPlan:
    """The decision for every parameter of a model, in the model's order."""

    assignments: tuple[Assignment, ...]
    lr: float

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that learn, in the model's order."""
        return tuple(a.parameter for a in self.assignments if a.state == "trained")

    def table(self) -> list[GroupRow]:
        """Rows that together cover every parameter exactly once."""
        keyed: dict[tuple[str, str, ParameterState], list[Assignment]] = {}
        for a in self.assignments:
            keyed.setdefault((_row_name(a.leaf), a.pattern, a.state), []).append(a)
        return [self._row(key, members) for key, members in keyed.items()]

    def _row(self, key: tuple[str, str, ParameterState], members: list[Assignment]) -> GroupRow:
        group, pattern, state = key
        scales = [a.lr_scale if state == "trained" else 0.0 for a in members]
        return GroupRow(
            group=group,
            pattern=pattern,
            state=state,
            tensors=len(members),
            parameters=sum(a.num_values for a in members),
            lr=(self.lr * min(scales), self.lr * max(scales)),
            weight_decay=max(a.weight_decay for a in members) if state == "trained" else 0.0,
            decayed_tensors=sum(a.weight_decay > 0 for a in members) if state == "trained" else 0,
        )

    def apply(self, model: nn.Module) -> None:
        """Sets requires_grad as planned, and the modes of the modules.

        Must come before the model is wrapped for distributed training: a wrapper fixes its
        parameter set then.
        """
        trained = set(self.trained)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        self.set_modes(model)

    def set_modes(self, model: nn.Module) -> None:
        """Training mode (dropout) for what learns, evaluation for what is frozen and for BatchNorm.

        BatchNorm normalizes by the statistics it was loaded with, as usual in fine-tuning: those
        of a batch would make the loss depend on how the batch is divided among micro-batches and
        processes, and each validation's on the steps before it.
        """
        model.train()
        for name in batch_norms(model):
            model.get_submodule(name).eval()
        frozen = {a.parameter for a in self.assignments if a.state == "frozen"}
        for prefix, module in model.named_modules():
            owned = [
                f"{prefix}.{name}" if prefix else name for name, _ in module.named_parameters()
            ]
            if owned and frozen.issuperset(owned):
                module.eval()


def plan_groups(
    model: GroupedModel,
    rules: Sequence[GroupRule],
    optimizer: OptimizerConfig,
    reached: Set[str],
) -> GroupPlan:
    """The rate, decay and state of every parameter: the first rule that matches decides.

    A pattern is a group's name (and then covers every leaf below it), a shell-style pattern over
    group names, or one over parameter names. Parameters that no rule matches learn at the
    optimizer's own rate, but for those that adapters of an edit learn in place of. After
    google-research/big_vision `optax.py`: ordered patterns, each parameter covered, no pattern in
    vain.

    Example: rules `vision` (frozen), `language.layers.*` (lr_scale 0.1) freeze all of `vision.stem`
        and `vision.layers.3`, slow `language.layers.0`, and leave `language.embed` and
        `expert.layers.0` at full rate.

    Args:
        model: tells its groups.
        rules: in order.
        optimizer: the rate and decay of what no rule changes.
        reached: names of the parameters that an objective reaches; the others are dormant.

    Raises:
        UserError: a pattern matches nothing, or only what earlier rules took or cannot learn, or
            nothing is left to learn.
    """
    groups = model.groups()
    leaf_of, depth_of = {name: leaf for leaf in groups for name in groups[leaf]}, depths(groups)
    shapes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    _require_partition(leaf_of, shapes)
    above = _layers_above(depth_of)
    dormant, undecayed = shapes.keys() - reached, model.no_weight_decay()
    held = model.held()
    unable = dict.fromkeys(dormant, "no loss reaches")
    unable |= {name: _UNDER_ADAPTERS for name in held if not held[name]}
    rule_of = _first_matches(rules, leaf_of, shapes, unable)
    assignments = []
    for name, num_values in shapes.items():
        rule, leaf = rule_of.get(name), leaf_of[name]
        is_held = name in held and (rule is None or not held[name])
        is_frozen = is_held or (rule is not None and rule.frozen)
        assignments.append(
            Assignment(
                parameter=name,
                leaf=leaf,
                depth=depth_of[leaf],
                pattern=ADAPTED if is_held else "*" if rule is None else rule.pattern,
                state="frozen" if is_frozen else "dormant" if name in dormant else "trained",
                num_values=num_values,
                lr_scale=_lr_scale(rule, above[leaf]),
                weight_decay=_weight_decay(rule, optimizer, is_spared=name in undecayed),
            )
        )
    plan = GroupPlan(tuple(assignments), optimizer.lr)
    _require_learning(plan, rules)
    return plan


def _require_learning(plan: GroupPlan, rules: Sequence[GroupRule]) -> None:
    """UserError for a plan in which nothing learns."""
    if not plan.trained:
        raise UserError(
            describe(
                "tuning.groups",
                f"rules {[rule.pattern for rule in rules]} that leave no tensor to train",
                "at least one tensor that learns",
                "Remove a frozen rule, or put a rule that is not frozen before it.",
            )
        )


def depths(leaves: Iterable[str]) -> dict[str, int]:
    """Leaf -> its place among the leaves of its tower (the first part of their names), from 0.

    Example: vision.embeddings, vision.layers.0, projector, language.embed, language.layers.0 have
        the depths 0, 1, 0, 0, 1.

    Args:
        leaves: in the model's order, from the input to the output of each tower.
    """
    seen: Counter[str] = Counter()
    found = {}
    for leaf in leaves:
        tower, base = leaf.partition(".")[0], leaf.removesuffix(f".{ADAPTER}")
        if base not in found:
            found[base] = seen[tower]
            seen[tower] += 1
        found[leaf] = found[base]  # an adapter lies as deep as what it stands beside
    return found


def _layers_above(depth_of: Mapping[str, int]) -> dict[str, int]:
    """Leaf -> how many leaves of its tower lie nearer to the output; 0 where there is no tower."""
    towers = {leaf: leaf.split(".")[0] for leaf in depth_of}
    deepest: Counter[str] = Counter()
    for leaf, depth in depth_of.items():
        deepest[towers[leaf]] = max(depth, deepest[towers[leaf]])
    return {
        leaf: deepest[towers[leaf]] - depth if towers[leaf] in TOWERS else 0
        for leaf, depth in depth_of.items()
    }


def _row_name(leaf: str) -> str:
    """How the table calls the group of a leaf."""
    top = leaf.split(".")[0]
    return f"{top}, adapters" if leaf.endswith(f".{ADAPTER}") else top


def _weight_decay(rule: GroupRule | None, optimizer: OptimizerConfig, *, is_spared: bool) -> float:
    """The rule's own number wherever it gives one; norms, biases and embeddings are spared else."""
    if rule is not None and rule.weight_decay != "optimizer":
        return rule.weight_decay
    return 0.0 if is_spared else optimizer.weight_decay


def _lr_scale(rule: GroupRule | None, num_above: int) -> float:
    """The rule's factor of the rate for a leaf with so many above it in its tower.

    Layer-wise decay as in BEiT (Bao et al. 2022) and timm's `param_groups_layer_decay`.
    """
    return 1.0 if rule is None else rule.lr_scale * rule.lr_decay**num_above


def _first_matches(
    rules: Sequence[GroupRule],
    leaf_of: Mapping[str, str],
    shapes: Mapping[str, int],
    unable: Mapping[str, str],
) -> dict[str, GroupRule]:
    """Parameter -> its rule; `unable` says why some parameters cannot learn."""
    rule_of: dict[str, GroupRule] = {}
    faults = []
    for place, rule in enumerate(rules):
        hits = [name for name in shapes if matches(rule.pattern, leaf_of[name], name)]
        fresh = [name for name in hits if name not in rule_of]
        if not hits:
            faults.append(_matches_nothing(place, rule, leaf_of))
        elif not fresh:
            faults.append(
                describe(
                    f"tuning.groups[{place}].pattern",
                    f"{rule.pattern!r}, whose {len(hits)} tensors all belong to earlier rules",
                    "a pattern that decides for at least one tensor",
                    "Move the narrower rule before the wider one, or remove it.",
                )
            )
        elif not rule.frozen and unable.keys() >= set(fresh):
            faults.append(
                describe(
                    f"tuning.groups[{place}].pattern",
                    f"{rule.pattern!r}, which decides for {len(fresh)} tensors that "
                    f"{unable[fresh[0]]}, e.g. {fresh[0]!r}",
                    "a rule for at least one tensor that learns",
                    "Remove the rule, or move it before the one that took its other tensors.",
                )
            )
        rule_of.update({name: rule for name in fresh})
    if faults:
        raise UserError(faults)
    return rule_of


def _matches_nothing(place: int, rule: GroupRule, leaf_of: Mapping[str, str]) -> str:
    leaves = sorted(set(leaf_of.values()))
    above = {
        ".".join(leaf.split(".")[:end]) for leaf in leaves for end in range(1, leaf.count(".") + 1)
    }
    candidates = sorted({*leaves, *above, *leaf_of})
    tops = sorted({leaf.split(".")[0] for leaf in leaves})
    hint = nearest(rule.pattern, candidates)
    return describe(
        f"tuning.groups[{place}].pattern",
        f"{rule.pattern!r}, which matches no group and no parameter",
        f"a name or pattern of a group below {tops}, or of a parameter",
        f"Correct the pattern. {hint}".strip(),
    )


def _require_partition(leaf_of: Mapping[str, str], shapes: Mapping[str, int]) -> None:
    if leaf_of.keys() != shapes.keys():
        uncovered, unknown = (
            sorted(shapes.keys() - leaf_of.keys()),
            sorted(leaf_of.keys() - shapes.keys()),
        )
        raise ValueError(
            f"model.groups() leaves out {uncovered} and names {unknown}; expected a partition"
        )
