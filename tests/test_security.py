"""Nothing that is read can run code, leave its folder, or take memory that it only claims to need."""

from __future__ import annotations

import ast
import http.server
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_cli import fail, sign_export, succeed
from helpers_fuzz import Home, make_home, sign_checkpoint, sign_prepared
from safetensors.torch import load_file, save_file
from strategies_fuzz import PICKLE, Trap, remove_unpickled

import bidaf
from bidaf.data import vectors
from bidaf.data.batches import batches_by_length
from bidaf.data.vocabulary import load_vectors_matrix
from bidaf.device import peak_memory
from bidaf.errors import DataError
from bidaf.evaluation import evaluator
from bidaf.inference import predictor
from bidaf.inference.loading import find_checkpoint

ROOT = Path(bidaf.__file__).parents[1]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.getbasetemp())


# The source


def source_files() -> list[Path]:
    return sorted([*(ROOT / "bidaf").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])


def called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", source_files(), ids=lambda path: path.name)
def test_no_module_reads_or_writes_pickles_or_runs_text(path: Path) -> None:
    check_source(path.read_text(encoding="utf-8"))


def check_source(text: str) -> None:
    tree = ast.parse(text)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile"}
    assert "yaml" not in {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    for name, call in called(tree):
        options = {option.arg: ast.unparse(option.value) for option in call.keywords}
        # The object collectives of torch.distributed unpickle what another process sends.
        assert not re.search(r"\b(all_gather|gather|broadcast|scatter|send|recv)_object(_list)?$", name)
        assert name not in {"eval", "exec", "os.system", "np.load", "numpy.load", "shutil.unpack_archive"}
        assert not name.startswith(("torch.load", "torch.save", "torch.jit.load", "torch.hub", "pd.read_pickle"))
        assert not name.endswith((".extract", ".extractall"))
        assert options.get("shell") in (None, "False")
        if name in {"np.save", "numpy.save"}:
            assert options["allow_pickle"] == "False"
        if name in {"yaml.load", "yaml.compose", "yaml.parse"}:
            assert ast.unparse(call.args[1]) == "_Loader"  # a SafeLoader, next to it
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    loaders = {name for name in attributes if re.match(r"yaml\.\w*load", name, re.IGNORECASE)}
    assert loaders <= {"yaml.load", "yaml.SafeLoader"}


@pytest.mark.parametrize(
    "text",
    [
        *("import pickle", "from joblib import load", "from yaml import unsafe_load", "eval(text)", "np.load(path)"),
        *("torch.load(path)", "run(command, shell=True)", "archive.extractall()", "dist.all_gather_object(found, one)"),
        *(
            "yaml.unsafe_load(text)",
            "yaml.full_load_all(text)",
            "yaml.load(text, yaml.Loader)",
            "L = yaml.FullLoader",
        ),
        *("yaml.load(text, Loader)", "np.save(path, array, allow_pickle=True)"),
    ],
)
def test_the_search_finds_each_of_them(text: str) -> None:
    with pytest.raises(AssertionError):
        check_source(text)


def test_the_yaml_loader_is_the_safe_one() -> None:
    import yaml

    from bidaf import config_yaml

    assert issubclass(config_yaml._Loader, yaml.SafeLoader)
    assert not issubclass(config_yaml._Loader, yaml.FullLoader)


# Planted pickles: each would leave a folder behind


def objects_array(path: Path) -> None:
    array = np.empty(2, dtype=object)
    array[:] = [Trap(), Trap()]
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=True)


def torch_file(path: Path) -> None:
    torch.save({"weights": Trap()}, path)


def bare_pickle(path: Path) -> None:
    path.write_bytes(PICKLE)


PLANTS = [bare_pickle, torch_file, objects_array]
EXPORT_FILES = ["export.json", "config.yaml", "vocabulary.json", "vectors.safetensors", "model.safetensors"]
CHECKPOINT_FILES = ["complete.json", "state.json", "config.yaml", "weights/ema.safetensors"]
PLACES = ["run", "prepared"]
PREPARED_FILES = [
    "manifest.json",
    "vocabulary.json",
    "vectors.safetensors",
    "dev/texts.json",
    "dev/features.safetensors",
]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", EXPORT_FILES)
def test_a_pickle_in_an_export_is_refused(home: Home, tmp_path: Path, name: str, plant: Callable[[Path], None]) -> None:
    folder = home.copy(home.export, "export")
    plant(folder / name)
    if name != "export.json":
        sign_export(folder)
    assert str(folder) in fail(3, "predict", home.folder / "questions.json", "-m", folder, cwd=tmp_path)
    assert not remove_unpickled(tmp_path)


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_a_pickle_in_a_checkpoint_is_refused(home: Home, name: str, plant: Callable[[Path], None]) -> None:
    sound = find_checkpoint(home.run)
    folder = home.copy(sound, "checkpoint", sound.name)
    plant(folder / name)
    if name != "complete.json":
        sign_checkpoint(folder)
    assert str(folder) in fail(3, "predict", "questions.json", "-m", folder, cwd=home.folder)
    assert not remove_unpickled(home.folder)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", PREPARED_FILES)
def test_a_pickle_in_prepared_data_is_refused(home: Home, place: str, name: str, plant: Callable[[Path], None]) -> None:
    run, folder, here = home.features(place)
    plant(folder / name)
    if name != "manifest.json":
        sign_prepared(folder)
    fail(3, "eval", "-m", run, cwd=here)
    assert not remove_unpickled(here)


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("option", ["data.train", "data.vectors"])
def test_a_pickle_in_place_of_data_is_refused(
    home: Home, tmp_path: Path, option: str, plant: Callable[[Path], None]
) -> None:
    plant(tmp_path / "data.json")
    fail(3, "prepare", "-c", "tiny.yaml", f"--set={option}={tmp_path / 'data.json'}", cwd=home.folder)
    assert not remove_unpickled(home.folder)


def test_the_trap_would_have_worked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.chdir(tmp_path)
    pickle.loads(PICKLE)
    assert remove_unpickled(tmp_path)


# Folders of somebody else's making


def link_to(target: str) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return link


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "change",
    [link_to("/dev/zero"), link_to("../elsewhere"), link_to("x" * 300), pipe],
    ids=["zero", "file", "long", "pipe"],
)
@pytest.mark.parametrize("name", EXPORT_FILES)
def test_an_export_is_files_of_its_own(home: Home, tmp_path: Path, name: str, change: Callable[[Path], None]) -> None:
    folder = home.copy(home.export, "export")
    shutil.copy(folder / name, folder.parent / "elsewhere")
    change(folder / name)
    fail(3, "predict", home.folder / "questions.json", "-m", folder, cwd=tmp_path)


@pytest.mark.parametrize("change", [link_to("/dev/zero"), link_to("x" * 300), pipe], ids=["zero", "long", "pipe"])
@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_a_checkpoint_is_files_of_its_own(home: Home, name: str, change: Callable[[Path], None]) -> None:
    sound = find_checkpoint(home.run)
    folder = home.copy(sound, "checkpoint", sound.name)
    change(folder / name)
    fail(3, "predict", "questions.json", "-m", folder, cwd=home.folder)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", [link_to("/dev/zero"), link_to("x" * 300), pipe], ids=["zero", "long", "pipe"])
@pytest.mark.parametrize("name", PREPARED_FILES)
def test_prepared_data_is_files_of_its_own(home: Home, place: str, name: str, change: Callable[[Path], None]) -> None:
    run, folder, here = home.features(place)
    change(folder / name)
    fail(3, "eval", "-m", run, cwd=here)


@pytest.mark.parametrize("name", [f"{'../' * 30}dev/zero", "/dev/zero", "../outside"])
def test_a_marker_can_not_point_out_of_its_folder(home: Home, name: str) -> None:
    sound = find_checkpoint(home.run)
    folder = home.copy(sound, "checkpoint", sound.name)
    (folder.parent / "outside").write_text("x")
    marker = json.loads((folder / "complete.json").read_text())
    (folder / "complete.json").write_text(json.dumps({**marker, name: "0" * 64}, indent=2) + "\n")
    assert "put the file itself there" in fail(3, "predict", "questions.json", "-m", folder, cwd=home.folder)


@pytest.mark.parametrize("features", ["../elsewhere", "/etc", "", 7])
def test_a_checkpoint_names_its_data_and_no_path(home: Home, features: Any) -> None:
    sound = find_checkpoint(home.run)
    folder = home.copy(sound, "checkpoint", sound.name)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "features": features}))
    sign_checkpoint(folder)
    assert "state.json: features" in fail(3, "predict", "questions.json", "-m", folder, cwd=home.folder)


# Sizes that are only claimed


def npy(shape: str, kind: str = "<f4") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}".encode()
    header += b" " * (-(11 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64


def tensors(**entries: Any) -> bytes:
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * 64


HUGE = 4_611_686_018_427_387_904
ARRAYS: dict[str, bytes] = {
    "a huge array": npy(f"{HUGE // 4}, 4"),
    "an array of overflowing size": npy(f"{HUGE}, {HUGE}"),
    "an array of negative size": npy("-4, 4"),
    "an array of two negative sizes": npy("-4, -4"),
    "an empty array of huge width": npy(f"0, {HUGE // 64}"),
    "an array of another type": npy("2, 4", "<f8"),
    "an array of text": npy("2, 4", "|O"),
    "a header that is a program": npy("__import__('os').mkdir('unpickled'), 4"),
    "a header without end": b"\x93NUMPY\x01\x00\xff\xff{",
    "a header that ends within a word": npy("'"),
    "a header of brackets": npy("(" * 9_000),
}


@pytest.mark.parametrize("content", ARRAYS.values(), ids=ARRAYS)
def test_an_older_array_that_only_claims_its_size_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectors.npy").write_bytes(content)
    before = peak_memory(torch.device("cpu"))
    with pytest.raises(DataError, match=r"vectors\.npy can't be read"):
        load_vectors_matrix(tmp_path)
    assert peak_memory(torch.device("cpu")) - before < 100e6
    assert not remove_unpickled(tmp_path)


SIZES: list[tuple[str, str, bytes]] = [
    (
        "vectors of a huge size",
        "vectors.safetensors",
        tensors(vectors={"dtype": "F32", "shape": [HUGE, 4], "data_offsets": [0, 64]}),
    ),
    ("a huge tensor", "model.safetensors", tensors(a={"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 64]})),
    (
        "a tensor of negative size",
        "model.safetensors",
        tensors(a={"dtype": "F32", "shape": [-4], "data_offsets": [0, 64]}),
    ),
    (
        "tensors one on another",
        "model.safetensors",
        tensors(**{n: {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]} for n in "ab"}),
    ),
    ("a header of 2^63 bytes", "model.safetensors", (2**63).to_bytes(8, "little") + b"{}"),
    ("a header of 99 MB that is not there", "model.safetensors", (99_000_000).to_bytes(8, "little") + b"{}"),
    (
        "a vocabulary that is none",
        "vocabulary.json",
        b'{"trained_words": [], "fixed_words": [], "chars": [], "max_word_chars": 16}',
    ),
]


@pytest.mark.parametrize(("name", "content"), [case[1:] for case in SIZES], ids=[case[0] for case in SIZES])
def test_a_size_that_is_only_claimed_takes_no_memory(home: Home, tmp_path: Path, name: str, content: bytes) -> None:
    folder = home.copy(home.export, "export")
    (folder / name).write_bytes(content)
    sign_export(folder)
    before = peak_memory(torch.device("cpu"))
    assert str(folder) in fail(3, "predict", home.folder / "questions.json", "-m", folder, cwd=tmp_path)
    assert peak_memory(torch.device("cpu")) - before < 100e6
    assert not remove_unpickled(tmp_path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden_size", 60_000),
        ("char_channels", 65_536),
        ("highway_layers", 64),
        ("modeling_layers", 64),
        ("variant", "released"),
    ],
)
def test_a_config_of_another_model_takes_no_memory(home: Home, tmp_path: Path, setting: str, value: Any) -> None:
    folder = home.copy(home.export, "export")
    text = (folder / "config.yaml").read_text().splitlines()
    text = [f"  {setting}: {value}" if row.startswith(f"  {setting}:") else row for row in text]
    (folder / "config.yaml").write_text("\n".join(text) + "\n")
    sign_export(folder)
    before = peak_memory(torch.device("cpu"))
    message = fail(3, "predict", home.folder / "questions.json", "-m", folder, cwd=tmp_path)
    assert "do not fit this model" in message
    assert len(message) < 3_000
    assert peak_memory(torch.device("cpu")) - before < 100e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor * torch.nan, "not finite"),
        (lambda tensor: tensor.double(), "float64"),
        (lambda tensor: tensor.to(torch.complex64), "complex64"),
    ],
)
def test_weights_are_numbers_of_the_right_kind(
    home: Home, tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    folder = home.copy(home.export, "export")
    weights = load_file(folder / "model.safetensors")
    save_file({name: change(tensor).contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    sign_export(folder)
    assert message in fail(3, "predict", home.folder / "questions.json", "-m", folder, cwd=tmp_path)


def test_training_a_model_beyond_this_machine_is_refused_before_it_takes_memory(home: Home) -> None:
    before = peak_memory(torch.device("cpu"))
    options = ("--set=model.hidden_size=60000", "--set=model.modeling_layers=60")
    message = fail(1, "train", "-c", "tiny.yaml", "--dry-run", *options, cwd=home.folder)
    assert "GB of memory" in message
    assert peak_memory(torch.device("cpu")) - before < 100e6


def test_a_batch_is_no_larger_than_the_memory(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home.copy(home.export, "export")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("batch_tokens: null", "batch_tokens: 1000000000"))
    sign_export(folder)
    sizes: list[int] = []

    def batches(lengths: Any, batch_tokens: int) -> Any:
        sizes.append(batch_tokens)
        return batches_by_length(lengths, batch_tokens)

    monkeypatch.setattr(evaluator, "batches_by_length", batches)
    monkeypatch.setattr(predictor, "free_memory", lambda device: 100_000)
    succeed("predict", home.folder / "questions.json", "-m", folder, cwd=tmp_path)
    assert sizes == [100_000 // 2 // (4 * 32 * 4)]


# Prepared data that leads out of its arrays


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("context_types", 0, 10**6, "context_types holds a number out of range"),
        ("question_types", 0, -1, "question_types holds a number out of range"),
        ("question_context", 0, 99, "question_context holds a number out of range"),
        ("context_offsets", 1, -7, "context_offsets does not divide its elements"),
        ("question_offsets", 1, 0, "a question has no token"),
        ("answer_spans", (0, 1), 10**6, "answer_spans holds a number out of range"),
        ("word_rows", 1, 10**6, "word_rows holds a number out of range"),
        ("chars", (1, 0), 30_000, "chars holds a number out of range"),
    ],
)
def test_features_that_lead_out_of_their_arrays_are_refused(
    home: Home, place: str, name: str, index: Any, value: int, message: str
) -> None:
    run, folder, here = home.features(place)
    path = folder / "dev" / "features.safetensors"
    arrays = load_file(path)
    arrays[name][index] = value
    save_file(arrays, path)
    sign_prepared(folder)
    assert message in fail(3, "eval", "-m", run, cwd=here)


# The network


def test_a_data_set_folder_asks_no_network(home: Home, tmp_path: Path) -> None:
    asked: list[str] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/train.json"
        (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {url}\n---\n")
        (tmp_path / "train.jsonl").write_text('{"a": 1}\n')
        message = fail(3, "prepare", "-c", "tiny.yaml", f"--set=data.train={tmp_path}", cwd=home.folder)
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []
    assert "no known schema, it holds an object with 'a'" in message  # it is the file in the folder that was read


def test_what_is_fetched_has_a_checksum_and_a_limit() -> None:
    for name, archive in vectors.NAMED.items():
        assert archive.url.startswith("https://"), name
        assert len(archive.sha256) == 64
        assert archive.max_bytes <= 3 << 30
