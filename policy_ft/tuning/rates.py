"""The learning rate of each optimizer step, before any group's scale."""

import math

from policy_ft.config.optimizer import OptimizerConfig


def learning_rate(train_step: int, config: OptimizerConfig) -> float:
    """The learning rate of one optimizer step (counted from 0), before any group's scale.

    Warm-up rises linearly, `lr * (train_step + 1) / (warmup_steps + 1)`. What follows is counted
    from its end: the cosine and the line start at `lr` at step `warmup_steps` and reach `final_lr`
    at step `decay_steps`, a total that includes the warm-up (as openpi's optax schedule); from then
    on the rate stays at `final_lr`. The inverse square root is
    `lr * sqrt((warmup_steps + 1) / (train_step + 1))`, at least `final_lr` (Vaswani et al. 2017).

    Example: lr 1.0, final_lr 0.0, warmup_steps 3, decay_steps 7 give 0.25, 0.5, 0.75, 1.0, and then
        cosine 0.854, 0.5, 0.146, 0.0; linear 0.75, 0.5, 0.25, 0.0; constant 1.0; inverse_sqrt
        0.894, 0.816, 0.756, 0.707.
    """
    warmup = config.warmup_steps
    if train_step < warmup:
        return config.lr * (train_step + 1) / (warmup + 1)
    progress = min((train_step - warmup) / max(config.decay_steps - warmup, 1), 1.0)
    match config.schedule:
        case "cosine":
            height = 0.5 * (1.0 + math.cos(math.pi * progress))
        case "linear":
            height = 1.0 - progress
        case "constant":
            return config.lr
        case "inverse_sqrt":
            return max(config.lr * math.sqrt((warmup + 1) / (train_step + 1)), config.final_lr)
    return config.final_lr + (config.lr - config.final_lr) * height
