from dataclasses import replace

import numpy as np
import pytest

from eval_envs.tabletop.layout import COLORS, SHAPES, sample_layout
from eval_envs.tabletop.scene import TableState
from eval_envs.tabletop.tasks import FAMILIES, Task, is_success, is_success_any, word


@pytest.fixture
def state() -> TableState:
    """Two cubes of 4 cm at rest, an open gripper high above, the zone at (0, -0.1)."""
    return TableState(
        gripper=np.array([0.0, 0.0, 0.15]),
        opening=0.08,
        blocks=np.array([[0.1, 0.0, 0.02], [-0.1, 0.1, 0.02]]),
        half_sizes=np.full((2, 3), 0.02),
        zone=np.array([0.0, -0.1]),
    )


NEVER_LIFTED, LIFTED = np.zeros(2), np.array([0.08, 0.08])


def moved(state: TableState, block: int, *position: float) -> TableState:
    blocks = state.blocks.copy()
    blocks[block] = position
    return replace(state, blocks=blocks)


def test_nothing_is_reached_at_the_start(state: TableState) -> None:
    for family in FAMILIES:
        task = Task(family, 0, 1 if family == "stack" else None)
        assert not is_success(task, state, NEVER_LIFTED)
        assert not is_success_any(task, state, NEVER_LIFTED)


def test_reach_needs_the_gripper_low_and_over_the_block(state: TableState) -> None:
    # the block's top is at 0.04; 0.04 + 0.045 = 0.085
    task = Task("reach", 0)
    assert is_success(task, replace(state, gripper=np.array([0.1, 0.02, 0.08])), NEVER_LIFTED)
    assert not is_success(task, replace(state, gripper=np.array([0.1, 0.0, 0.09])), NEVER_LIFTED)
    assert not is_success(task, replace(state, gripper=np.array([0.1, 0.03, 0.08])), NEVER_LIFTED)


def test_reaching_another_block_is_success_any_only(state: TableState) -> None:
    over_other = replace(state, gripper=np.array([-0.1, 0.1, 0.07]))
    assert not is_success(Task("reach", 0), over_other, NEVER_LIFTED)
    assert is_success_any(Task("reach", 0), over_other, NEVER_LIFTED)


def test_pushed_means_in_the_zone_and_not_carried(state: TableState) -> None:
    task = Task("push", 0)
    in_zone = moved(state, 0, 0.03, -0.13, 0.02)
    assert is_success(task, in_zone, NEVER_LIFTED)
    assert not is_success(task, in_zone, LIFTED)
    assert not is_success(task, moved(state, 0, 0.048, -0.1, 0.02), NEVER_LIFTED)


def test_picked_means_five_centimetres_up_and_in_the_gripper(state: TableState) -> None:
    task = Task("pick", 0)
    up = moved(state, 0, 0.0, 0.0, 0.075)
    holding = replace(up, gripper=np.array([0.0, 0.0, 0.075]), opening=0.04)
    assert is_success(task, holding, LIFTED)
    assert not is_success(task, up, LIFTED)
    low = replace(moved(state, 0, 0, 0, 0.065), gripper=np.array([0, 0, 0.065]), opening=0.04)
    assert not is_success(task, low, LIFTED)


def test_placed_means_lifted_before_at_rest_in_the_zone_and_released(state: TableState) -> None:
    task = Task("place", 0)
    in_zone = moved(state, 0, 0.01, -0.1, 0.02)
    assert is_success(task, in_zone, LIFTED)
    assert not is_success(task, in_zone, NEVER_LIFTED)
    held = replace(in_zone, gripper=np.array([0.01, -0.1, 0.02]), opening=0.04)
    assert not is_success(task, held, LIFTED)
    assert is_success(task, replace(held, opening=0.075), LIFTED)
    assert not is_success(task, moved(state, 0, 0.01, -0.1, 0.03), LIFTED)


def test_stacked_means_on_the_named_block_and_released(state: TableState) -> None:
    stacked = moved(state, 0, -0.11, 0.1, 0.06)
    assert is_success(Task("stack", 0, 1), stacked, LIFTED)
    assert not is_success(Task("stack", 1, 0), stacked, LIFTED)
    assert is_success_any(Task("stack", 1, 0), stacked, LIFTED)
    held = replace(stacked, gripper=stacked.blocks[0], opening=0.04)
    assert not is_success(Task("stack", 0, 1), held, LIFTED)
    assert not is_success(Task("stack", 0, 1), moved(state, 0, -0.13, 0.1, 0.06), LIFTED)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_five_sentences_that_name_its_blocks(family: str) -> None:
    sentences = FAMILIES[family].sentences
    assert len(set(sentences)) >= 5
    assert all("{block}" in sentence for sentence in sentences)
    assert all(("{base}" in sentence) == FAMILIES[family].needs_base for sentence in sentences)


def test_a_sentence_names_the_target_and_the_base() -> None:
    names = ["red cube", "blue brick", "green cylinder"]
    sentence = word(Task("stack", 2, 0), names, np.random.default_rng(0))
    assert sentence.index("green cylinder") < sentence.index("red cube")
    assert "blue" not in sentence


def test_layouts_leave_room_for_the_open_gripper_and_a_way_to_the_zone() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        layout = sample_layout(random, COLORS[:4], SHAPES)
        centres = np.array([(block.x, block.y) for block in layout.blocks])
        zone = np.array(layout.zone)
        apart = np.linalg.norm(centres[:, None] - centres, axis=-1)[np.triu_indices(4, 1)]
        assert apart.min() >= 0.09
        assert np.linalg.norm(centres - zone, axis=1).min() >= 0.10
        for index, centre in enumerate(centres):
            way = np.linspace(centre, zone, 20)
            others = np.delete(centres, index, axis=0)
            assert np.linalg.norm(way[:, None] - others, axis=-1).min() > 0.045
