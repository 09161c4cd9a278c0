"""The run folder: made once, found by name, path or age, readable after a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Configure

from bidaf.config_file import load_config
from bidaf.errors import DataError, UsageError
from bidaf.runs.finding import find_run, new_run_folder
from bidaf.runs.folder import Run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_run_holds_its_settings_and_its_surroundings(configure: Configure, tmp_path: Path) -> None:
    config = configure(training={"seed": 7})
    run = Run.create(tmp_path / "deep" / "run", config, "cpu")
    assert load_config(Run.open(run.folder).folder / "config.yaml") == config
    surroundings = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    keys = {"started", "command", "python", "packages", "platform", "processors", "device", "processes", "threads"}
    assert set(surroundings) == keys | {"commit"}
    assert surroundings["device"] == "cpu"
    assert {"bidaf", "torch", "numpy"} <= set(surroundings["packages"])
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "environment.json",
        "predictions",
    ]


def test_a_run_is_not_made_where_one_stands(configure: Configure, tmp_path: Path) -> None:
    Run.create(tmp_path / "run", configure(training={"seed": 1}), "cpu")
    with pytest.raises(UsageError, match="already holds a run; resume it with --resume"):
        Run.create(tmp_path / "run", configure(training={"seed": 2}), "cpu")
    assert load_config(tmp_path / "run" / "config.yaml").training.seed == 1


def test_a_run_that_cannot_be_made_says_where(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"file/run can't be made: "):
        Run.create(tmp_path / "file" / "run", configure(), "cpu")


def test_a_folder_without_settings_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a run folder: it has no config\.yaml"):
        Run.open(tmp_path)


def test_a_run_without_a_checkpoint_has_no_last_one(configure: Configure, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", configure(), "cpu")
    assert run.linked("best") is None
    with pytest.raises(DataError, match="holds no checkpoint yet"):
        run.last_checkpoint()


def test_a_run_is_found_by_name_path_and_age(configure: Configure, here: Path) -> None:
    with pytest.raises(DataError, match="no run yet"):
        find_run(None)
    for name in ("one", "two"):
        Run.create(Path("runs", name), configure(), "cpu")
    assert find_run("one").samefile(here / "runs" / "one")
    assert find_run("runs/one").samefile(here / "runs" / "one")
    assert find_run(str(here / "runs" / "one")).samefile(here / "runs" / "one")
    assert find_run(None) == Path("runs/two")
    assert find_run("latest").samefile(here / "runs" / "two")
    with pytest.raises(DataError, match="no run three, neither as a path nor in runs/"):
        find_run("three")


def test_a_run_elsewhere_is_not_the_latest(configure: Configure, here: Path) -> None:
    Run.create(Path("runs", "one"), configure(), "cpu")
    Run.create(here / "elsewhere", configure(), "cpu")
    assert find_run(None) == Path("runs/one")


def test_a_latest_run_that_was_deleted_is_told(configure: Configure, here: Path) -> None:
    Run.create(Path("runs", "one"), configure(), "cpu")
    (here / "runs" / "one").rename(here / "gone")
    with pytest.raises(DataError, match="no run yet"):
        find_run(None)


def test_new_runs_never_share_a_folder(here: Path) -> None:
    first = new_run_folder("squad")
    assert first.parent == Path("runs")
    assert first.name.startswith("squad-")
    names = set()
    for _ in range(3):
        folder = new_run_folder("squad")
        assert folder.is_dir()
        names.add(folder)
    assert len(names) == 3


def test_runs_that_start_in_the_same_second_get_a_folder_each(here: Path) -> None:
    code = "from bidaf.runs.finding import new_run_folder; [print(new_run_folder('squad')) for _ in range(40)]"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=here) for _ in range(2)
    ]
    names = [name for process in processes for name in process.communicate()[0].split()]
    assert len(names) == 80
    assert sorted(names) == sorted(set(names)) == sorted(str(path.relative_to(here)) for path in here.glob("runs/*"))


def test_events_are_read_back_in_order_and_a_cut_last_line_is_left_out(configure: Configure, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", configure(), "cpu")
    assert run.events() == []
    written = [{"event": "train", "step": step, "loss": 0.1 + step} for step in range(3)]
    for event in written:
        run.log_event(**event)
    file = run.folder / "metrics.jsonl"
    whole = file.read_bytes()
    for cut in range(len(whole) - 2, whole[:-1].rindex(b"\n"), -7):
        file.write_bytes(whole[:cut])
        assert run.events() == written[:2]
    file.write_bytes(whole)
    assert run.events() == written


def test_links_stay_right_when_the_run_is_moved(configure: Configure, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", configure(), "cpu")
    for step in (1, 2):
        (run.checkpoints / f"step-00000{step}").mkdir()
        run.link("last", run.checkpoints / f"step-00000{step}")
    run.folder.rename(tmp_path / "moved")
    linked = Run.open(tmp_path / "moved").linked("last")
    assert linked is not None
    assert linked.samefile(tmp_path / "moved" / "checkpoints" / "step-000002")
    assert not os.path.isabs(os.readlink(tmp_path / "moved" / "last"))


@pytest.mark.parametrize(("keep_last", "kept"), [(1, [2, 5]), (2, [2, 4, 5]), (9, [1, 2, 3, 4, 5])])
def test_the_newest_and_the_best_are_kept(configure: Configure, here: Path, keep_last: int, kept: list[int]) -> None:
    for folder in (Path("relative"), here / "absolute"):
        config = configure(training={"keep_last": keep_last})
        run = Run.create(folder, config, "cpu")
        for step in range(1, 6):
            (run.checkpoints / f"step-00000{step}").mkdir()
        run.link("best", run.checkpoints / "step-000002")
        run.prune(config)
        assert sorted(path.name for path in run.checkpoints.iterdir()) == [f"step-00000{step}" for step in kept]


def test_a_state_that_cannot_be_read_ranks_nothing(configure: Configure, tmp_path: Path) -> None:
    config = configure(training={"keep_last": 1})
    run = Run.create(tmp_path / "run", config, "cpu")
    for step, state in enumerate(("[]", "{", "[" * 100_000, "1"), 1):
        folder = run.checkpoints / f"step-00000{step}"
        folder.mkdir()
        (folder / "complete.json").write_text("{}")
        (folder / "state.json").write_text(state)
    run.prune(config)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000004"]


def test_one_process_at_a_time_trains_in_a_run(configure: Configure, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", configure(), "cpu")
    with run.locked():
        with pytest.raises(UsageError, match="another process is training in"), Run.open(run.folder).locked():
            pass
    with run.locked():
        pass
