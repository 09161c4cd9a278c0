"""Files are written whole or not at all, to where their name leads, and by one process at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers_cli import Tiny, fail, succeed

from bidaf.errors import BidafError, UsageError
from bidaf.files.writing import (
    check_output,
    claim_folder,
    point_link,
    put_folder,
    remove,
    remove_stale,
    save_tensors,
    sync,
    temporary_sibling,
    write_output,
    write_text,
)

LINES = 400


@pytest.fixture
def umask() -> Iterator[None]:
    """One that lets the group write."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """A process that runs `code` with these arguments."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


# ---- outputs: the names that a user gave


def test_an_output_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "real.json", tmp_path / "link.json"
    link.symlink_to("elsewhere/real.json")
    for content in ("made", "replaced"):
        write_output(link, content)
        assert link.is_symlink()
        assert target.read_text() == content
    assert os.listdir(tmp_path / "elsewhere") == ["real.json"]


def test_an_output_is_written_into_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_output(pipe, "through")
    reader.join()
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_an_output_is_written_into_a_device(tmp_path: Path) -> None:
    null, full = tmp_path / "null", tmp_path / "full"
    os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    write_output(null, "gone")
    assert stat.S_ISCHR(null.stat().st_mode)
    with pytest.raises(BidafError, match="full can't be written: No space left"):
        write_output(full, "text")


def test_standard_output_stays_open_where_it_is_named_as_the_output(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from bidaf.files.writing import write_output\n"
    code += "write_output(Path('/dev/stdout'), 'data\\n'); print('after')"
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "data\nafter\n"
    code = code.replace("/dev/stdout", "/dev/stderr").replace("print('after')", "print('after', file=sys.stderr)")
    with (tmp_path / "err").open("w") as err:
        subprocess.run([sys.executable, "-c", code], stderr=err, check=True)
    assert (tmp_path / "err").read_text() == "data\nafter\n"


def test_a_replaced_output_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "private.json"
    path.write_text("old")
    path.chmod(0o600)
    write_output(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["no/file", ".", "folder", "loop", "a\0b", "x" * 300])
def test_an_output_that_cannot_be_written_is_known_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="can't be written"):
        check_output(tmp_path / name)
    with pytest.raises(BidafError, match="can't be written"):
        write_output(tmp_path / name, "text")


@pytest.mark.parametrize("name", ["new", "old", "link", "pipe"])
def test_checking_an_output_leaves_all_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("new")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    check_output(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "old").read_text() == "old"


def test_files_of_ours_replace_a_link(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("another's")
    (tmp_path / "own").symlink_to("other")
    write_text(tmp_path / "own", "ours")
    assert (tmp_path / "other").read_text() == "another's"
    assert not (tmp_path / "own").is_symlink()


def test_everything_written_follows_the_umask(umask: None, tmp_path: Path) -> None:
    write_text(tmp_path / "text", "x")
    write_output(tmp_path / "output", "x")
    save_tensors({"x": torch.ones(2)}, tmp_path / "tensors")
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o664}


def test_another_user_can_read_an_export(umask: None, tiny: Tiny, tmp_path: Path) -> None:
    succeed("export", "-m", tiny.run, "-o", tmp_path / "export", cwd=tiny.folder)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "export").iterdir()} == {0o664}


# ---- several processes


WRITE = f"""
import sys
from pathlib import Path
from bidaf.files.writing import point_link, write_output, write_text
for number in range({LINES}):
    write_text(Path("text"), sys.argv[1] * 1000)
    write_output(Path("output"), sys.argv[1] * 1000)
    point_link(Path("link"), sys.argv[1])
"""
FOLDER = """
import sys
from pathlib import Path
from bidaf.files.writing import claim_folder, put_folder
for number in range(60):
    target = Path(f"folder-{number}")
    with claim_folder(target) as folder:
        for name in ("a", "b", "c"):
            (folder / name).write_text(sys.argv[1])
        if put_folder(folder, target):
            print(target)
"""


def test_two_processes_write_the_same_names(tmp_path: Path) -> None:
    for process in [python(WRITE, letter, cwd=tmp_path) for letter in "xy"]:
        assert process.communicate()[1] == ""
    assert sorted(os.listdir(tmp_path)) == ["link", "output", "text"]
    for name in ("text", "output"):
        assert (tmp_path / name).read_text() in ("x" * 1000, "y" * 1000)


def test_of_two_processes_that_make_a_folder_one_does_and_it_is_whole(tmp_path: Path) -> None:
    made = []
    for process in [python(FOLDER, letter, cwd=tmp_path) for letter in "xyz"]:
        out, err = process.communicate()
        assert err == ""
        made += out.split()
    assert sorted(made) == sorted(os.listdir(tmp_path))
    assert len(made) == 60
    for folder in tmp_path.iterdir():
        letters = {path.name: path.read_text() for path in folder.iterdir()}
        assert letters.keys() == {"a", "b", "c"}
        assert len(set(letters.values())) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from bidaf.files.writing import claim_folder
with claim_folder(Path("target")) as folder:
    (folder / "part").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_leftovers_of_the_dead_are_removed_and_the_work_of_the_living_is_not(tmp_path: Path) -> None:
    living, dead = (python(KILLED, cwd=tmp_path, stdin=subprocess.PIPE) for _ in range(2))
    names = []
    for process in (living, dead):
        assert process.stdout
        names.append(process.stdout.readline().strip())
    dead.kill()
    dead.communicate()
    unrelated = [".target.mine.tmp", ".other.12-abcdef01.tmp", "target.tmp"]
    for name in unrelated:
        (tmp_path / name).mkdir()
    with claim_folder(tmp_path / "target") as folder:
        assert sorted(os.listdir(tmp_path)) == sorted([names[0], folder.name, *unrelated])
        assert put_folder(folder, tmp_path / "target")
    living.communicate("")
    assert sorted(os.listdir(tmp_path)) == sorted(["target", *unrelated])


def test_a_leftover_with_the_id_of_this_process_blocks_nothing(tmp_path: Path) -> None:
    (tmp_path / f".target.{os.getpid()}.tmp").mkdir()
    with claim_folder(tmp_path / "target") as folder:
        assert os.listdir(tmp_path) == [folder.name]
    assert os.listdir(tmp_path) == []


def test_stale_links_and_files_are_removed_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    (tmp_path / ".last.tmp").symlink_to("kept")
    (tmp_path / ".last.7.tmp").write_text("half")
    os.mkfifo(tmp_path / ".last.8-00000000.tmp")
    remove_stale(tmp_path, "last")
    assert os.listdir(tmp_path) == ["kept"]


def test_a_folder_is_never_put_over_another_or_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    put = {}
    for name in ("link", "full", "file", "empty", "new"):
        with claim_folder(tmp_path / name) as folder:
            put[name] = put_folder(folder, tmp_path / name)
    assert put == {"link": False, "full": False, "file": False, "empty": True, "new": True}
    assert os.listdir(tmp_path / "other") == []


def test_writing_and_flushing_leave_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    write_text(tmp_path / "file", "text")
    sync(tmp_path)
    with claim_folder(tmp_path / "folder"):
        pass
    assert len(os.listdir("/dev/fd")) == before


def test_removing_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("x")
    (tmp_path / "link").symlink_to("other")
    remove(tmp_path / "link")
    assert (tmp_path / "other" / "x").exists()
    for name in ("link", "other", "nothing"):
        remove(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_link_that_cannot_be_placed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        point_link(tmp_path / "taken", "x")
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.parametrize("name", ["x", "é" * 127 + "x", "\N{GRINNING FACE}" * 63 + "x"], ids=["1", "255", "253"])
def test_names_of_any_length_are_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_text(path, "text")
    assert path.read_text() == "text"
    assert temporary_sibling(path) != temporary_sibling(path)


def test_an_export_that_appeared_in_the_meantime_is_kept(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "export"

    def appear(tensors: dict[str, torch.Tensor], path: Path) -> None:
        target.mkdir()
        (target / "theirs").write_text("x")
        save_tensors(tensors, path)

    monkeypatch.setattr("bidaf.export.write.save_tensors", appear)
    assert "another process" in fail(2, "export", "-m", tiny.run, "-o", target, cwd=tiny.folder)
    assert os.listdir(tmp_path) == ["export"]
    assert os.listdir(target) == ["theirs"]
