"""Columns: what is said of each step beside state and action, wherever it is written."""

import h5py
import numpy as np
import pytest

from data_tools.columns import column_faults, fingerprint_with
from data_tools.doctor.examination import validate
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.view.summary import summary
from data_tools.writer import EpisodeWriter
from tests.data_tools.column_cases import LENGTHS, WEIGHTS, declare, rising, weights_of


def test_what_a_writer_says_of_each_step_is_read_back(columned):
    pairs = [np.arange(2 * length).reshape(length, 2) for length in LENGTHS]
    dataset = open_dataset(columned(weight=WEIGHTS, phase=pairs))
    assert dataset.columns == dataset[0].columns == ("phase", "weight")
    assert weights_of(dataset) == WEIGHTS
    assert dataset[2].column("weight").dtype == np.float32
    np.testing.assert_array_equal(dataset[1].column("phase"), pairs[1])


def test_columns_leave_the_fingerprint_of_the_numbers_as_it_is(columned, demos):
    with_columns, without = (
        open_dataset(columned("a.hdf5", weight=WEIGHTS)),
        open_dataset(columned("b.hdf5")),
    )
    assert with_columns.fingerprint == without.fingerprint
    assert without.columns == ()
    assert fingerprint_with(with_columns, ()) == without.fingerprint
    used = fingerprint_with(with_columns, ("weight",))
    assert used not in (without.fingerprint, fingerprint_with(without, ("weight",)))
    other = [*WEIGHTS[:2], rising(5, 2.25).tolist()]
    assert used != fingerprint_with(open_dataset(columned("c.hdf5", weight=other)), ("weight",))
    assert used == fingerprint_with(open_dataset(columned("d.hdf5", weight=WEIGHTS)), ["weight"])


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("{weight: extra/quality}", WEIGHTS),
        ("{weight: 2}", [[2.0] * length for length in LENGTHS]),
        ("{weight: {attribute: score}}", [[0.5 + i] * n for i, n in enumerate(LENGTHS)]),
        ("{weight: {dataset: judged}}", [[float(i)] * n for i, n in enumerate(LENGTHS)]),
        (
            "{weight: {file: scores.json, key: '{episode}'}}",
            [[2.0 * i] * n for i, n in enumerate(LENGTHS)],
        ),
        (
            "{weight: {episodes: {demo_0: 1, demo_1: 0, demo_2: 0.5}}}",
            [[1.0] * 6, [0.0] * 4, [0.5] * 5],
        ),
    ],
)
def test_a_sidecar_says_where_a_column_is(bare, declared, expected):
    dataset = open_dataset(declare(bare, declared))
    assert dataset.columns == ("weight",)
    assert weights_of(dataset) == expected
    assert column_faults(dataset, ("weight",)) == []


def test_what_a_sidecar_says_goes_beside_and_before_what_the_file_has(columned):
    path = columned(weight=WEIGHTS, phase=WEIGHTS)
    dataset = open_dataset(declare(path, "{weight: 3}"))
    assert sorted(dataset.columns) == ["phase", "weight"]
    assert weights_of(dataset) == [[3.0] * length for length in LENGTHS]
    assert weights_of(dataset, "phase") == WEIGHTS


def test_a_star_stands_for_every_dataset_of_a_group(bare):
    dataset = open_dataset(declare(bare, "{'*': extra/*}"))
    assert dataset.columns == ("quality", "twice")
    assert weights_of(dataset, "quality") == WEIGHTS
    assert dataset[0].column("twice").shape == (6, 2)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("{weight: extra/qualty}", r"demo_0: found .*expected a dataset 'extra/qualty'.*quality"),
        ("{weight: obs}", r"demo_0: found the datasets .*expected a dataset .obs."),
        ("{weight: {attribute: scor}}", r"demo_0, column 'weight': found None; expected a number"),
        (
            "{weight: {attribute: language_instruction}}",
            r"found 'push the red block'; expected a n",
        ),
        ("{weight: {episodes: {demo_0: 1}}}", r"demo_1, column 'weight'.*one of 'demo_1' too. Add"),
        ("{weight: [1, 2]}", r"layout.columns.weight: found \[1, 2\]; expected the path of a data"),
        ("{weight: true}", r"layout.columns.weight: found True; expected the path of a dataset"),
        ("{weight: {attribute: a, dataset: b}}", r"a mapping with one of the keys episodes, attr"),
        ("{weight: {attr: a}}", r"a mapping with one of the keys episodes, attribute"),
        ("{weight: extra/*}", r"a name of letters, digits and _, and a path without a star"),
        ("{'*': extra/quality}", r"for the name '\*'; expected a path that ends in /\*"),
        ("{my weight: 1}", r"found 'my weight'.*expected a name of letters"),
        ("3", r"layout.columns: found 3; expected a mapping"),
    ],
)
def test_a_declaration_that_fits_no_episode_is_refused_with_its_place(bare, declared, message):
    with pytest.raises(UserError, match=message):
        open_dataset(declare(bare, declared))


def test_a_column_of_another_length_is_refused_when_the_file_is_opened(bare):
    with h5py.File(bare, "r+") as file:
        del file["data/demo_1/extra/quality"]
        file["data/demo_1/extra/quality"] = rising(3)
    message = r"demo_1, /data/demo_1/extra/quality: found 3 rows; expected 4, one a step\. .*trim"
    with pytest.raises(UserError, match=message):
        open_dataset(declare(bare, "{weight: extra/quality}"))


def test_a_column_has_the_rows_of_episodes_that_lie_one_after_another(tmp_path, conventions):
    path = tmp_path / "rows.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["action"], file["state"] = rng.normal(size=(7, 3)), rng.normal(size=(7, 3))
        file["quality"], file["ends"] = np.arange(7.0), [0, 0, 1, 0, 0, 0, 1]
        file["skip"] = [False, True, False, False, False, False, False]
    cameras = conventions.model_copy(update={"cameras": ()}).model_dump_json()
    text = (
        '{"layout": {"episodes": "rows", "root": "", "actions": "action", "state": "./state", '
        '"ends": ["ends"], "observations": "", "instruction": {"text": "push"}, "success": null, '
        '"columns": {"weight": "quality"}}, ' + cameras.removeprefix("{")
    )
    path.with_name("rows.hdf5.conventions.yaml").write_text(text)
    assert weights_of(open_dataset(path)) == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0, 6.0]]


def test_rows_that_are_left_out_take_their_part_of_a_column_along(bare):
    with h5py.File(bare, "r+") as file:
        for index, length in enumerate(LENGTHS):
            file[f"data/demo_{index}/skip"] = np.arange(length) == 1
    sidecar = bare.with_name(bare.name + ".conventions.yaml")
    sidecar.write_text("layout: {skip: skip, columns: {weight: extra/quality}}\n")
    assert weights_of(open_dataset(bare)) == [
        [weight for step, weight in enumerate(weights) if step != 1] for weights in WEIGHTS
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, np.nan, 1, 1, 1], r"demo_2, column 'weight', step 1: found nan \(1 such steps\)"),
        ([1, 1, np.inf, 1, 1], r"demo_2, column 'weight', step 2: found inf"),
        ([1, 1, 1, -2, -1], r"step 3: found -2.0 \(2 such steps\); expected weights of at least 0"),
        ([[1, 2]] * 5, r"demo_2, column 'weight': found 2 numbers a step; expected one"),
    ],
)
def test_weights_that_no_run_can_use_are_told_with_their_step(bare, values, message):
    with h5py.File(bare, "r+") as file:
        del file["data/demo_2/extra/quality"]
        file["data/demo_2/extra/quality"] = np.array(values, dtype=np.float32)
    dataset = open_dataset(declare(bare, "{weight: extra/quality, good: {dataset: judged}}"))
    (fault,) = column_faults(dataset, ("weight",))
    with pytest.raises(UserError, match=message):
        raise UserError(fault)
    assert column_faults(dataset, ("good",)) == []
    (finding,) = [f for f in validate(dataset) if f.rule == "unusable_column"]
    assert finding.severity == "warning"
    assert finding.where in fault


def test_weights_that_are_all_0_are_refused(bare):
    dataset = open_dataset(declare(bare, "{weight: 0}"))
    (fault,) = column_faults(dataset, ("weight",))
    assert fault.startswith("column 'weight': found 0 at every step of 3 episodes; expected a weig")


def test_a_column_that_an_episode_lacks_is_told_with_its_name_and_the_way_to_declare_it(
    columned,
):
    path = columned(weight=WEIGHTS)
    with h5py.File(path, "r+") as file:
        del file["data/demo_1/columns/weight"]
    dataset = open_dataset(path)
    assert dataset.columns == ("weight",)
    assert summary(dataset)["columns"] == {"weight": 2}
    (fault,) = column_faults(dataset, ("weight",))
    assert "demo_1: found the columns []; expected 'weight' too." in fault
    assert "`layout: {columns: {weight: ...}}`" in fault


def test_the_route_that_the_message_names_works(columned):
    """A sidecar with one number for all steps gives every episode the column that some lacked."""
    path = declare(columned(), "{weight: 1}")
    assert weights_of(open_dataset(path)) == [[1.0] * length for length in LENGTHS]


def test_a_writer_refuses_columns_that_do_not_fit(tmp_path, conventions, make_episode):
    columns = {"weight": [1.0, 2.0], "a b": [1.0] * 3, "n": ["x"] * 3, "weight2": [1, np.nan, 2]}
    with pytest.raises(UserError) as caught, EpisodeWriter(tmp_path / "x.h5", conventions) as w:
        w.add(**make_episode(0, num_steps=3, columns=columns))
    told = "\n".join(caught.value.faults)
    for part in ("2 rows; expected 3", "'a b'; expected letters", "<U1[3]", "step 1: found nan"):
        assert part in told
    assert not (tmp_path / "x.h5").exists()


def test_inspect_tells_columns_and_how_many_episodes_have_them(robot_data, columned):
    path = columned(weight=WEIGHTS)
    assert "weight (in all episodes)" in robot_data("inspect", path)[1]
    with h5py.File(path, "r+") as file:
        del file["data/demo_1/columns/weight"]
    assert "weight (in 2 episodes)" in robot_data("inspect", path)[1]
