"""A run's folder is written inside and nowhere else, whatever somebody put into it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import CPU, Configure, checkpoint_steps
from helpers_cli import Ran, bidaf

from bidaf.errors import DataError
from bidaf.files.confined import ConfinedFolder
from bidaf.runs.folder import Run
from bidaf.runs.log import is_training
from bidaf.runs.summary import summarize_runs
from bidaf.training.launch import start_run

SECONDS = 60


@pytest.fixture(scope="module")
def half(configure: Configure, prepared: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped half-way, with checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("half") / "run"
    start_run(configure(training={"max_steps": 6, "save_every": 3}), folder, CPU, lambda message: None)
    return folder


@pytest.fixture
def run(half: Path, tmp_path: Path) -> Path:
    """A copy to put things into, in a folder with things of others."""
    shutil.copytree(half, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


@pytest.fixture
def others(half: Path, tmp_path: Path) -> Path:
    """A folder beside the run: a file, a folder, and the checkpoint of another run."""
    folder = tmp_path / "others"
    (folder / "folder").mkdir(parents=True)
    (folder / "file").write_text("another's\n")
    for name in ("file", "step-000001.raw.json", "step-000099.raw.json", ".step-000099.1.tmp"):
        (folder / "folder" / name).write_text("another's\n")
    shutil.copytree(half / "checkpoints" / "step-000003", folder / "step-000003")
    shutil.copytree(half / "checkpoints" / "step-000006", folder / "step-000009")
    return folder


class Hangs(BaseException):
    """Too long without an end."""


@pytest.fixture(autouse=True)
def nothing_hangs(half: Path) -> Iterator[None]:
    def end(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def resume(run: Path) -> Ran:
    return bidaf("train", "--resume", run, "--device", "cpu", "--set", "training.max_steps=8", cwd=run.parent)


def place(run: Path, name: str, target: Path) -> None:
    """A link of this name in the run, in place of what is there."""
    path = run / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


REFUSED = {
    ".lock": "file",
    "log.txt": "file",
    "metrics.jsonl": "file",
    "checkpoints": "folder",
    "predictions": "folder",
    "data": "folder",
    "snapshots": "folder",
}
NOT_FOLLOWED = {
    "config.yaml": "../run-config.yaml",
    "report.html": "file",
    "best": "folder",
    "last": "folder",
    "checkpoints/step-000003": "step-000003",
    "checkpoints/step-000009": "step-000009",
    "checkpoints/.step-000009.replaced": "step-000009",
    "checkpoints/.step-000009.77.tmp": "folder",
    "predictions/step-000008.raw.json": "file",
    "predictions/step-000099.raw.json": "folder",
    "predictions/.step-000006.n_best.json.77.tmp": "file",
    ".metrics.jsonl.tmp": "file",
    "predictions/step-000006.n_best.json": "file",
    "predictions/step-000099.n_best.json": "folder",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_link_that_would_be_written_through_is_refused_before_any_work(run: Path, others: Path, name: str) -> None:
    place(run, name, others / REFUSED[name])
    before, inside = content(others), content(run)
    ran = resume(run)
    assert ran.code == 3
    assert f"{name} is a link" in ran.err
    assert content(others) == before
    assert content(run) == inside


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_a_link_is_replaced_or_removed_and_what_it_leads_to_stays(run: Path, others: Path, name: str) -> None:
    shutil.copy(run / "config.yaml", run.parent / "run-config.yaml")
    place(run, name, others / NOT_FOLLOWED[name])
    before = content(others), (run.parent / "run-config.yaml").read_bytes()
    ran = resume(run)
    assert ran.code == 0, ran.err
    assert (content(others), (run.parent / "run-config.yaml").read_bytes()) == before
    assert 8 in checkpoint_steps(run)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


DEVICE = pytest.param(make_device, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device"))


UNREAD = ("environment.json", "predictions/step-000006.n_best.json", "checkpoints/step-000003/state.json")


@pytest.mark.parametrize("name", [".lock", "log.txt", "metrics.jsonl", "checkpoints", *UNREAD])
@pytest.mark.parametrize("make", [make_fifo, DEVICE])
def test_pipes_and_devices_neither_block_nor_fill_a_command(run: Path, name: str, make: Callable[[Path], None]) -> None:
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)
    ran = resume(run)
    assert ran.code == (0 if name in UNREAD else 3), ran.err
    assert name in UNREAD or f"{name} is no " in ran.err
    assert bidaf("runs", run.parent, cwd=run.parent).code == 0
    assert bidaf("report", run, "-o", "page.html", cwd=run.parent).code in (0, 3)
    assert not is_training(run)


def test_one_run_that_cannot_be_read_leaves_the_others_in_the_list(run: Path) -> None:
    for name, spoiled in (("metrics", "metrics.jsonl"), ("log", "log.txt"), ("environment", "environment.json")):
        shutil.copytree(run, run.parent / name, symlinks=True)
        (run.parent / name / spoiled).unlink()
        (run.parent / name / spoiled).mkdir()
    assert {each.folder.name for each in summarize_runs(run.parent)} == {"run", "metrics", "log", "environment"}


def test_listing_runs_never_keeps_one_from_starting(run: Path) -> None:
    """Who asks whether a run is training holds its lock for a moment."""
    reader = ConfinedFolder(run).open(".lock", os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    threading.Timer(0.05, os.close, [reader]).start()
    with Run(run).locked():
        assert is_training(run)


# ---- the class itself


def test_content_is_made_replaced_appended_and_removed(tmp_path: Path) -> None:
    files = ConfinedFolder(tmp_path)
    assert files.entries("folder") == []
    files.make_folder("folder")
    files.write_text("folder/text", "one")
    files.write_json("folder/json", [1])
    files.append("log", "a\n")
    files.append("log", "b\n")
    assert (tmp_path / "log").read_text() == "a\nb\n"
    assert [path.name for path in files.entries("folder")] == ["json", "text"]
    files.link("best", tmp_path / "folder")
    assert os.readlink(tmp_path / "best") == "folder"
    files.sync("log")
    files.sync("nothing")
    for name in ("folder", "log", "best", "nothing"):
        files.remove(name)
    assert os.listdir(tmp_path) == []


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    ConfinedFolder(tmp_path / "link").append("log", "a")
    assert (tmp_path / "real" / "log").read_text() == "a"


@pytest.mark.parametrize(
    "act",
    [
        lambda files: files.write_text("out/text", "x"),
        lambda files: files.write_json("out/file", "x"),
        lambda files: files.append("out/file", "x"),
        lambda files: files.append("link", "x"),
        lambda files: files.make_folder("out"),
        lambda files: files.make_folder("out/deep"),
        lambda files: files.make_folder("link"),
        lambda files: files.entries("out"),
        lambda files: files.link("out/best", files.root / "x"),
        lambda files: files.remove("out/file"),
        lambda files: files.sync("out/file"),
        lambda files: files.open("link", os.O_RDONLY),
    ],
)
def test_no_link_is_followed(tmp_path: Path, act: Callable[[ConfinedFolder], object]) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "file").write_text("another's")
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to("../others")
    (root / "link").symlink_to("../others/file")
    with pytest.raises(DataError, match="is a link and is not written to"):
        act(ConfinedFolder(root))
    assert content(tmp_path / "others") == {"file": b"another's"}
