"""What the doctor calls an error of the data, train refuses as check does, each told once."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from policy_ft import assemble
from policy_ft.config.config_file import dump_config
from policy_ft.errors import UserError
from tests.policy_ft.test_cli import call


def refusal(config) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        assemble.train(config)
    assert not Path(config.output_dir).exists()
    return caught.value.faults


def edited(config, change) -> None:
    with h5py.File(config.data.path[0], "r+") as file:
        change(file)


def put_nan(part, episode=2, step=1):
    """In the first chunk of the episode, which a window of it would meet, too."""

    def change(file):
        file[f"data/demo_{episode}/{part}"][step, 1] = np.nan

    return change


def break_frame(file):
    file["data/demo_2/obs/front_image"][0] = 0


def break_storage(file):
    episode = file["data/demo_2"]
    values = episode["actions"][()]
    del episode["actions"]
    episode.create_dataset("actions", data=values, chunks=values.shape, compression="gzip")
    info = episode["actions"].id.get_chunk_info(0)
    path, place, size = file.filename, info.byte_offset, info.size
    file.close()
    with Path(path).open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * size)


TOLD_ONCE = {
    "not_finite, actions": (put_nan("actions"), "demo_2, step 1: found action 'y' = nan"),
    "not_finite, state": (put_nan("obs/state"), "demo_2, step 1: found state"),
    "undecodable_frame": (break_frame, "demo_2, step 0: found camera 'front'"),
    "unreadable_numbers": (break_storage, "demo_2: found "),
}


@pytest.mark.parametrize("case", TOLD_ONCE)
def test_a_fault_of_an_episode_is_told_once_in_its_place(run_config, case):
    change, place = TOLD_ONCE[case]
    config = run_config()
    edited(config, change)
    for faults in (assemble.check(config), refusal(config)):
        (fault,) = faults or ["nothing"]
        assert place in fault
        assert case.partition(",")[0] in fault
        assert not fault.startswith("error")


def shorten(file):
    state = file["data/demo_1/obs/state"][:-3]
    del file["data/demo_1/obs/state"]
    file["data/demo_1/obs/state"] = state


def test_what_does_not_open_hides_nothing_from_check(run_config):
    config = run_config(policy={"transforms": {"cameras": ["frnt"]}})
    edited(config, put_nan("actions"))
    edited(config, shorten)
    told = assemble.check(config)
    (nan,) = [each for each in told if "nan" in each]
    assert "demo_2, step 1" in nan
    assert sum("demo_1" in each for each in told) == 1
    assert any("id you mean 'front'" in each for each in told)
    assert any("demo_1" in each for each in refusal(config))


def test_of_chosen_episodes_that_do_not_open_the_others_are_looked_at(run_config):
    def choose(file):
        file["mask/train"] = np.array(["demo_0", "demo_1"], dtype="S")
        file["mask/valid"] = np.array(["demo_2"], dtype="S")

    config = run_config(data={"mask": "train", "validation_mask": "valid"})
    for change in (choose, put_nan("actions"), put_nan("actions", episode=3), shorten):
        edited(config, change)
    faults = assemble.check(config)
    assert sum("demo_1" in each for each in faults) >= 1
    assert sum("nan" in each for each in faults) == 1, "demo_3 is not chosen"


def test_faults_of_the_settings_hide_none_of_the_data(run_config, tmp_path):
    config = run_config()
    edited(config, put_nan("actions"))
    settings = yaml.safe_load(dump_config(config))
    settings["optimizer"]["lr"] = -1
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    result = call("check", tmp_path / "run.yaml")
    told = result.stderr
    assert result.exit_code == 2
    assert "optimizer.lr" in told
    assert told.count("nan") == 1
    assert "error: error" not in told


def test_a_judgement_of_the_doctor_is_refused_unless_it_is_meant(run_config):
    config = run_config(training={"steps": 1})
    edited(config, lambda file: file["data/demo_2/actions"].__setitem__((4, 1), 7.0))
    for faults in (assemble.check(config), refusal(config)):
        (fault,) = faults
        assert fault.startswith("[action_out_of_range] ")
        assert fault.endswith("If it is meant, add it to data.ignore.")
    meant = run_config(training={"steps": 1}, data={"ignore": ["action_out_of_range"]})
    assert assemble.check(meant) == []
    assert assemble.train(meant).last_checkpoint.exists()


def test_a_rule_to_ignore_that_does_not_exist_is_refused(run_config):
    config = run_config(data={"ignore": ["gripper_polarty"]})
    for faults in (assemble.check(config), refusal(config)):
        assert any("did you mean 'gripper_polarity'" in each for each in faults)


def test_unsound_numbers_cannot_be_meant(run_config):
    config = run_config(data={"ignore": ["not_finite", "looks_delta"]})
    edited(config, put_nan("actions"))
    for faults in (assemble.check(config), refusal(config)):
        assert any("data.ignore: found ['not_finite']; expected" in each for each in faults)
        assert any("[not_finite] " in each and "demo_2, step 1" in each for each in faults)
        assert not any(each.startswith("statistics") for each in faults)


def test_a_dataset_of_a_mixture_is_named(run_config):
    config = run_config()
    edited(config, put_nan("actions"))
    path = config.data.path[0]
    mixed = {"mixture": {"own": {"path": path, "weight": 1}}, "mixture_statistics": "shared"}
    config = run_config(data={**mixed, "path": []})
    for faults in (assemble.check(config), refusal(config)):
        (fault,) = faults
        assert fault.startswith(f"data.mixture.own: [not_finite] {path}:data/demo_2, step 1")
