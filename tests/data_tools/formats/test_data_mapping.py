"""A mapped dataset says the same as the recorded one, in the words of another."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, GripperSpec, StateSpec
from data_tools.episode import EpisodeView
from data_tools.errors import UserError
from data_tools.formats.mapping.mapped import MappedDataset, MappedEpisode, mapped
from data_tools.formats.mapping.mapping import ConventionsMapping, mapping_faults
from data_tools.formats.reader import open_dataset
from data_tools.storage.frames.images import resize_center_pad
from data_tools.writer import EpisodeWriter

TARGET = Conventions(
    cameras=(
        CameraSpec(name="front", height=32, width=32, source="sim"),
        CameraSpec(name="wrist", height=32, width=32, source="sim"),
    ),
    state=StateSpec(names=("x", "y", "opening"), units=("m", "m", "m"), frame="world"),
    action=ActionSpec(
        names=("x", "y", "gripper"),
        units=("m", "m", "1"),
        references=("absolute", "absolute", "absolute"),
        low=(-1, -1, -1),
        high=(1, 1, 1),
        frame="world",
        grippers=(GripperSpec(column="gripper", open_value=1, closed_value=-1),),
    ),
    control_hz=10,
)
RECORDED = Conventions(
    cameras=(CameraSpec(name="agentview", height=48, width=64, source="camera model 7"),),
    state=StateSpec(
        names=("opening", "eef_y", "eef_x", "torso"), units=("m", "mm", "mm", "m"), frame="world"
    ),
    action=ActionSpec(
        names=("grip", "eef_x", "eef_y"),
        units=("1", "mm", "mm"),
        references=("absolute", "absolute", "absolute"),
        low=(0, -1000, -1000),
        high=(1, 1000, 1000),
        frame="world",
        grippers=(GripperSpec(column="grip", open_value=0, closed_value=1),),
    ),
    control_hz=10,
)
TO_METRES = tuple({"kind": "linear", "column": name, "scale": 0.001} for name in ("x", "y"))
MAPPING = {
    "cameras": {"front": "agentview", "wrist": None},
    "state": {"rename": {"x": "eef_x", "y": "eef_y"}, "maps": TO_METRES, "drop": ["torso"]},
    "action": {"rename": {"x": "eef_x", "y": "eef_y", "gripper": "grip"}, "maps": TO_METRES},
}


def mapping(**changes):
    """The mapping from RECORDED to TARGET; a part given by name is changed key by key."""
    parts = {name: {**MAPPING[name], **changes.get(name, {})} for name in MAPPING}
    return ConventionsMapping.model_validate(parts)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("mapping") / "old.hdf5"
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, RECORDED) as writer:
        writer.add(
            images={"agentview": rng.integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)},
            state=rng.normal(size=(5, 4)).astype(np.float32) * [1, 100, 100, 1],
            actions=np.array([[g, 100 * s, -50 * s] for s, g in enumerate([0, 1, 0.25, 0, 1])]),
            instruction="push the block",
            success=True,
            attributes={},
        )
    return open_dataset(path)


@pytest.fixture
def episode(recorded):
    return MappedDataset(recorded, TARGET, mapping())[0]


def faults_of(result, absent=("wrist",), target=TARGET):
    return "\n".join(
        mapping_faults(
            result.conventions,
            target,
            absent,
            found_name="data.mixture.old",
            expected_name="data.mixture.new",
        )
    )


def test_columns_are_reordered_renamed_and_scaled(episode, recorded):
    own = recorded[0].state()
    np.testing.assert_allclose(
        episode.state(), np.stack([own[:, 2] / 1000, own[:, 1] / 1000, own[:, 0]], 1), rtol=1e-6
    )
    np.testing.assert_allclose(episode.actions()[:, 0], [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(episode.actions()[:, 1], [0, -0.05, -0.1, -0.15, -0.2], rtol=1e-6)
    assert episode.state().dtype == episode.actions().dtype == np.float32


def test_a_gripper_opens_where_it_opened_and_closes_where_it_closed(episode):
    """0 opens and 1 closes in the data, 1 opens and -1 closes in the target; 0.25 is 0.5."""
    np.testing.assert_array_equal(episode.actions()[:, 2], [1, -1, 0.5, 1, -1])


def test_the_mapped_declaration_is_the_targets(recorded):
    assert faults_of(MappedDataset(recorded, TARGET, mapping())) == ""
    declared = MappedDataset(recorded, TARGET, mapping()).conventions
    assert declared.action == TARGET.action
    assert declared.state == TARGET.state
    assert declared.camera_names == ("front",)


def test_an_observation_is_the_same_as_its_parts(episode):
    observation = episode.observation(3, ["front"])
    np.testing.assert_array_equal(observation.state, episode.state()[3])
    np.testing.assert_array_equal(observation.images["front"], episode.image("front", 3))
    assert observation.instruction == "push the block"


def test_images_are_resized_whole_and_padded_with_black(episode, recorded):
    image = episode.image("front", 2)
    assert image.shape == (32, 32, 3)
    np.testing.assert_array_equal(
        image, resize_center_pad(recorded[0].image("agentview", 2), 32, 32)
    )
    assert (image[:4] == 0).all()  # 48 x 64 becomes 24 x 32
    assert (image[-4:] == 0).all()
    assert image[4:-4].mean() == pytest.approx(recorded[0].image("agentview", 2).mean(), rel=0.02)


def test_a_camera_that_is_not_there_has_no_image(episode):
    with pytest.raises(KeyError, match="wrist"):
        episode.image("wrist", 0)


def test_an_own_map_of_the_gripper_column_takes_the_place_of_the_sign(recorded):
    own = {"maps": [*TO_METRES, {"kind": "linear", "column": "gripper", "scale": 1.0}]}
    told = faults_of(MappedDataset(recorded, TARGET, mapping(action=own)))
    assert "action grippers" in told
    assert "(open 0," in told
    right = {"kind": "linear", "column": "gripper", "scale": -2.0, "offset": 1.0}
    own = {"maps": [*TO_METRES, right]}
    result = MappedDataset(recorded, TARGET, mapping(action=own))
    assert faults_of(result) == ""
    np.testing.assert_array_equal(result[0].actions()[:, 2], [1, -1, 0.5, 1, -1])


def test_limits_turn_round_with_a_negative_scale_and_infinite_ones_stay_infinite():
    wide = RECORDED.action.model_copy(
        update={"low": (0.0, -1000.0, float("-inf")), "high": (1.0, 500.0, 7.0)}
    )
    turned = [{"kind": "linear", "column": name, "scale": -0.001} for name in ("x", "y")]
    result = mapped(
        RECORDED.model_copy(update={"action": wide}), TARGET, mapping(action={"maps": turned})
    )
    assert result.conventions.action.low == (-0.5, -0.007, -1.0)
    assert result.conventions.action.high == (1.0, float("inf"), 1.0)


def test_the_fingerprint_is_of_the_data_and_the_mapping(recorded):
    one, other = (
        MappedDataset(recorded, TARGET, mapping(state=change)).fingerprint
        for change in ({}, {"maps": [{**TO_METRES[0], "scale": 0.002}, TO_METRES[1]]})
    )
    assert len({one, other, recorded.fingerprint}) == 3
    assert one == MappedDataset(recorded, TARGET, mapping()).fingerprint


def test_a_mapped_dataset_survives_the_way_to_a_worker(recorded):
    there = pickle.loads(pickle.dumps(MappedDataset(recorded, TARGET, mapping())))
    here = MappedDataset(recorded, TARGET, mapping())
    np.testing.assert_array_equal(there[0].actions(), here[0].actions())
    np.testing.assert_array_equal(there[0].image("front", 1), here[0].image("front", 1))


REFUSED = {
    "unknown target camera": ({"cameras": {"frnt": "agentview"}}, "did you mean 'front'?"),
    "unknown own camera": ({"cameras": {"front": "agent_view"}}, "did you mean 'agentview'?"),
    "no camera": ({"cameras": {"front": None}}, "Name a camera: without one"),
    "unknown target column": ({"state": {"rename": {"xx": "eef_x"}}}, "state.rename: found 'xx'"),
    "unknown own column": (
        {"state": {"rename": {"x": "eef_xx", "y": "eef_y"}}},
        "state.rename.x: found 'eef_xx'; expected a column of the dataset, one of",
    ),
    "column without a source": (
        {"action": {"rename": {"x": "eef_x", "y": "eef_y"}}},
        "Name it in action.rename ({gripper: <the dataset's name>})",
    ),
    "column without a use": ({"state": {"drop": []}}, "or in state.drop if the target can do"),
    "dropped and used": ({"state": {"drop": ["torso", "eef_x"]}}, "Remove it from the list"),
    "unknown dropped": ({"state": {"drop": ["torzo", "torso"]}}, "did you mean 'torso'?"),
    "map of no column": (
        {"action": {"maps": [{"kind": "linear", "column": "grip", "scale": 1}]}},
        "did you mean 'gripper'?",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mapping_that_names_what_is_not_there_is_refused(case, recorded):
    changes, remedy = REFUSED[case]
    with pytest.raises(UserError) as caught:
        MappedDataset(recorded, TARGET, mapping(**changes))
    assert remedy in str(caught.value)


def test_all_faults_of_a_mapping_are_told_at_once(recorded):
    with pytest.raises(UserError) as caught:
        MappedDataset(recorded, TARGET, mapping(state={"drop": []}, cameras={"frnt": "agentview"}))
    assert len(caught.value.faults) == 2


LEFT = {
    "units": (RECORDED, mapping(state={"maps": []}), "Name a map in state.maps that turns each"),
    "range": (
        RECORDED.model_copy(
            update={"action": RECORDED.action.model_copy(update={"high": (1, 900, 1000)})}
        ),
        mapping(),
        "Correct the declared range of one of the two",
    ),
    "reference": (
        RECORDED.model_copy(
            update={"action": RECORDED.action.model_copy(update={"references": ("delta",) * 3})}
        ),
        mapping(),
        "Convert the action columns",
    ),
    "rate": (RECORDED.model_copy(update={"control_hz": 20.0}), mapping(), "Resample the data"),
    "frame": (
        RECORDED.model_copy(
            update={"state": RECORDED.state.model_copy(update={"frame": "robot_base"})}
        ),
        mapping(),
        "Convert the state columns",
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_a_difference_that_no_map_takes_away_is_refused(case):
    recorded, how, remedy = LEFT[case]
    told = faults_of(mapped(recorded, TARGET, how))
    assert told.startswith("data.mixture.old, ")
    assert "as data.mixture.new declares" in told
    assert remedy in told


def test_a_camera_of_another_make_must_be_named_to_be_accepted():
    recorded = RECORDED.model_copy(
        update={"cameras": (RECORDED.cameras[0].model_copy(update={"name": "front"}),)}
    )
    absent = {name: own for name, own in MAPPING["cameras"].items() if own is None}
    unnamed = ConventionsMapping.model_validate({**MAPPING, "cameras": absent})
    assert "to accept how it sees" in faults_of(mapped(recorded, TARGET, unnamed))
    named = ConventionsMapping.model_validate({**MAPPING, "cameras": {"front": "front", **absent}})
    assert faults_of(mapped(recorded, TARGET, named)) == ""


def test_a_missing_camera_must_be_said_to_be_missing():
    one = ConventionsMapping.model_validate({**MAPPING, "cameras": {"front": "agentview"}})
    told = faults_of(mapped(RECORDED, TARGET, one), absent=())
    assert "or null where it has none" in told


class ToldAnew(EpisodeView):
    """An episode whose sentence changes from step to step, as LeRobot's may."""

    def observation(self, step, cameras):
        return replace(self._episode.observation(step, cameras), instruction=f"sentence {step}")


def test_the_sentence_of_a_step_stays_its_own(recorded):
    how = mapped(recorded.conventions, TARGET, mapping())
    seen, plain = (
        MappedEpisode(episode, how).observation(2, ["front"])
        for episode in (ToldAnew(recorded[0]), recorded[0])
    )
    assert (seen.instruction, plain.instruction) == ("sentence 2", recorded[0].instruction)
    np.testing.assert_array_equal(seen.images["front"], plain.images["front"])
    np.testing.assert_array_equal(seen.state, plain.state)
