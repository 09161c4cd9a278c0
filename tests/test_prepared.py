"""The prepared folder: found by what it was made from, by nothing else; verified; made again where it is corrupted."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_cli import fail, succeed, write_sealed, write_tiny

from bidaf.config import DataConfig
from bidaf.data import vectors
from bidaf.data.cache import MANIFEST_FILE, Prepared, open_by_key, open_prepared
from bidaf.data.features import ARRAYS, Features
from bidaf.data.hub import locate
from bidaf.data.prepare import prepare
from bidaf.errors import BidafError, DataError
from bidaf.files.reading import sha256_of

FORMAT1 = Path(__file__).parent / "fixtures" / "format1"


def write_squad(path: Path, word: str, *, context: str = "") -> str:
    context = context or f"The {word} cat sat on 1970s-80s mats in McAllen's house, don't you know?"
    answer = {"text": word, "answer_start": context.index(word)}
    questions = [
        {"id": f"{word}-1", "question": "What sat on 1970s-80s mats?", "answers": [answer]},
        {"id": f"{word}-2", "question": "Who?", "answers": [answer]},
    ]
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": questions}]}]}))
    return str(path)


def settings(folder: Path, **options: Any) -> DataConfig:
    folder.mkdir(exist_ok=True)
    vectors = folder / "v.txt"
    vectors.write_text("the 1 2\ncat 3 4\nsat 5 6\n")
    values = {
        "train": write_squad(folder / "train.json", "black"),
        "dev": write_squad(folder / "dev.json", "white"),
        "vectors": str(vectors),
        "prepared_dir": str(folder / "prepared"),
        "min_word_count": 1,
        "min_char_count": 1,
    }
    return DataConfig.model_validate(values | options)


@pytest.fixture
def made(tmp_path: Path) -> Prepared:
    """The prepared data of `settings(tmp_path)`."""
    return prepare(settings(tmp_path))


def was_made(config: DataConfig, **options: Any) -> bool:
    """Whether `prepare` made something, that is, found nothing it could use."""
    messages: list[str] = []
    prepare(config, echo=messages.append, **options)
    return any("questions" in message for message in messages)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_preparing_writes_everything_once_and_then_finds_it(tmp_path: Path) -> None:
    config = settings(tmp_path)
    messages: list[str] = []
    made = prepare(config, echo=messages.append)
    assert messages == [
        f"{tmp_path}/train.json: SQuAD, questions: 2",
        f"{tmp_path}/dev.json: SQuAD, questions: 2",
        "train: 2 questions, dev: 2 questions",
    ]
    before = made.folder.stat().st_mtime_ns
    again = prepare(config, echo=messages.append)
    assert (again.folder, again.manifest) == (made.folder, made.manifest)
    assert len(messages) == 3
    assert made.folder.stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == [made.key]
    assert made.vocabulary().fixed_words == ["the", "cat", "sat"]
    assert made.vectors().tolist() == [[1, 2], [3, 4], [5, 6]]
    assert made.features("train").ids == ["black-1", "black-2"]
    assert made.features("dev").ids == ["white-1", "white-2"]
    assert made.features("dev").titles == ["t", "t"]
    assert made.counts["train"]["read"] == made.counts["train"]["kept"] == 2
    assert made.counts["train"]["exact_spans"] == 1.0
    types = made.counts["dev"]
    assert types["fixed_forms"] + types["trained_forms"] + types["unknown_forms"] == types["forms"]
    assert made.counts["vocabulary"]["fixed_words"] == 3


def test_two_builds_are_equal_to_the_byte(tmp_path: Path) -> None:
    one, other = (prepare(settings(tmp_path, prepared_dir=str(tmp_path / name))).folder for name in ("a", "b"))
    assert files_of(one) == files_of(other)
    assert len(files_of(one)) == 7


@pytest.mark.parametrize("split", ["train", "dev"])
def test_the_arrays_are_those_of_the_first_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    monkeypatch.chdir(FORMAT1)
    [old] = (FORMAT1 / "prepared").iterdir()
    before = open_prepared(old)
    new = prepare(before.manifest.config.model_copy(update={"prepared_dir": str(tmp_path)}))
    theirs, ours = before.features(split), new.features(split)
    for name in ARRAYS:
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    for name in ("ids", "questions", "contexts", "answers"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert theirs.titles == [None] * len(theirs)
    assert None not in ours.titles
    assert new.vocabulary() == before.vocabulary()
    assert new.counts == before.counts


# Found by content


CHANGES: dict[str, Any] = {
    "train": "other.json",
    "dev": "other.json",
    "vectors": None,
    "language": "de",
    "second_split": False,
    "split_questions": False,
    "max_context_tokens": 5,
    "max_question_tokens": 4,
    "min_word_count": 2,
    "min_char_count": 2,
    "max_word_chars": 7,
}


def change(config: DataConfig, option: str, folder: Path) -> DataConfig:
    value = CHANGES[option]
    if value == "other.json":
        value = (write_squad(folder / value, "brown"),)
    return config.model_copy(update={option: value})


def test_every_option_but_the_folder_has_a_change_to_test() -> None:
    # `unanswerable` changes nothing here, where every question has an answer: tests/test_no_answer.py
    assert set(CHANGES) == set(DataConfig.model_fields) - {"prepared_dir", "unanswerable"}


@pytest.mark.parametrize("option", CHANGES)
def test_a_changed_option_meets_no_stale_cache_and_changes_the_bytes(
    tmp_path: Path, made: Prepared, option: str
) -> None:
    other = prepare(change(settings(tmp_path), option, tmp_path))
    assert other.folder != made.folder
    assert other.manifest.files != made.manifest.files
    assert not was_made(settings(tmp_path))


@pytest.mark.parametrize("name", ["train.json", "dev.json", "v.txt"])
def test_changed_content_under_the_same_name_meets_no_stale_cache(tmp_path: Path, name: str) -> None:
    config = settings(tmp_path)
    prepare(config)
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text.replace("sat", "sut"))
    assert was_made(config)


def test_moved_sources_still_find_what_was_prepared(tmp_path: Path, made: Prepared) -> None:
    assert not was_made(settings(tmp_path / "moved", prepared_dir=str(tmp_path / "prepared")))


@pytest.mark.parametrize("option", ["train", "dev", "vectors"])
def test_a_missing_source_is_named_and_never_replaced_by_one_of_the_same_name(
    tmp_path: Path, made: Prepared, option: str
) -> None:
    name = {"train": "train.json", "dev": "dev.json", "vectors": "v.txt"}[option]
    missing = str(tmp_path / "elsewhere" / name)
    config = settings(tmp_path, **{option: missing})
    with pytest.raises(DataError, match=rf"elsewhere/{name}: no such file"):
        prepare(config)


def test_every_missing_data_source_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare(settings(tmp_path, train=str(tmp_path / "no.json"), dev=str(tmp_path / "nor.json")))
    for part in ("data.train: ", "/no.json", "data.dev: ", "/nor.json", "--prepared FOLDER"):
        assert part in str(caught.value)
    assert "rajpurkar" not in str(caught.value)  # where SQuAD is helps with SQuAD's own files alone
    with pytest.raises(DataError, match="rajpurkar"):
        prepare(settings(tmp_path, train=str(tmp_path / "no.json"), dev=str(tmp_path / "dev-v1.1.json")))


def test_another_spacy_prepares_again_and_none_says_what_to_do(
    tmp_path: Path, made: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    monkeypatch.setattr("bidaf.data.identity.version", lambda name: "0.0.1")
    assert was_made(config)

    def none(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("bidaf.data.identity.version", none)
    with pytest.raises(BidafError, match=r"needs spaCy.*--prepared FOLDER"):
        prepare(config)
    assert not was_made(config, key=made.key)


def test_no_source_is_located_or_hashed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any) -> Any:
            calls[f"{function.__name__} {Path(path).name}"] += 1
            return function(path)

        return call

    for module in ("sources", "vectors"):
        monkeypatch.setattr(f"bidaf.data.{module}.sha256_of", counted(sha256_of))
    monkeypatch.setattr("bidaf.data.sources.locate", counted(locate))
    monkeypatch.setattr(vectors, "_locate", counted(vectors._locate))
    config = settings(tmp_path)
    names = ("train.json", "dev.json")
    once = Counter([f"{what} {name}" for what in ("sha256_of", "locate") for name in names])
    once += Counter(["sha256_of v.txt", "_locate v.txt"])
    for _ in range(2):  # made, found
        prepare(config)
        assert calls == once
        calls.clear()


def test_finding_and_loading_import_neither_spacy_nor_datasets_nor_torch(tmp_path: Path, made: Prepared) -> None:
    code = (
        "import sys, bidaf.config, bidaf.data.prepare as p\n"
        "found = p.prepare(bidaf.config.DataConfig.model_validate_json(sys.argv[1]))\n"
        "assert len(found.features('train')) == 2 and found.vocabulary() and found.vectors() is not None\n"
        "print(*sorted({'spacy', 'datasets', 'torch'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, settings(tmp_path).model_dump_json()]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


# Found by key


def test_a_run_finds_its_features_by_their_key_without_any_source(tmp_path: Path, made: Prepared) -> None:
    config = settings(tmp_path)
    for name in ("train.json", "dev.json", "v.txt"):
        (tmp_path / name).unlink()
    assert prepare(config, key=made.key).features("train").ids == ["black-1", "black-2"]
    with pytest.raises(DataError, match=r"no intact prepared data in .*0123.*train\.json: no such file"):
        prepare(config, key="0123")


@pytest.mark.parametrize("option", CHANGES)
def test_a_key_gives_no_features_of_other_settings_or_content(tmp_path: Path, made: Prepared, option: str) -> None:
    changed = change(settings(tmp_path), option, tmp_path)
    with pytest.raises(DataError, match=rf"the data changed since the run began: data\.{option}: "):
        prepare(changed, key=made.key)


def test_lost_features_of_a_key_are_made_again_from_the_same_sources_only(tmp_path: Path, made: Prepared) -> None:
    shutil.rmtree(made.folder)
    with pytest.raises(DataError, match=f"the data changed since the run began.*{made.key}"):
        prepare(change(settings(tmp_path), "train", tmp_path), key=made.key)
    assert was_made(settings(tmp_path), key=made.key)


def test_a_folder_under_a_foreign_key_is_refused(tmp_path: Path, made: Prepared) -> None:
    made.folder.rename(made.folder.with_name("0" * 16))
    with pytest.raises(DataError, match=f"holds the features {made.key}"):
        open_by_key(tmp_path / "prepared", "0" * 16)


# Verified


def lose_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()


def cut_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).write_text('{"files": ')


def lose_array(folder: Path) -> None:
    (folder / "train" / "features.safetensors").unlink()


def cut_array(folder: Path) -> None:
    path = folder / "vectors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("corrupt", [lose_manifest, cut_manifest, lose_array, cut_array])
def test_a_corrupted_folder_is_made_again_and_refused_without_its_sources(
    tmp_path: Path, made: Prepared, corrupt: Callable[[Path], None]
) -> None:
    config, intact = settings(tmp_path), files_of(made.folder)
    corrupt(made.folder)
    assert was_made(config)
    assert files_of(made.folder) == intact
    corrupt(made.folder)
    (tmp_path / "train.json").unlink()
    with pytest.raises(DataError, match=r"no intact prepared data in .* can't be made again: .*train\.json"):
        prepare(config, key=made.key)


FLIPS = 60


def test_a_flipped_bit_is_found_wherever_it_is(made: Prepared) -> None:
    rng = random.Random(0)
    for name in [*made.manifest.files, MANIFEST_FILE]:
        path = made.folder / name
        intact = path.read_bytes()
        changed = [b"\xef\xbb\xbf" + intact, intact.replace(b"\n", b"\r\n")] if name == MANIFEST_FILE else []
        for _ in range(FLIPS):
            flipped = bytearray(intact)
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            changed.append(bytes(flipped))
        for content in changed:
            path.write_bytes(content)
            with pytest.raises(DataError, match=r"corrupted|can't be read|is not|is of format"):
                open_by_key(made.folder.parent, made.folder.name).verify()
            path.write_bytes(intact)
    open_prepared(made.folder).verify()


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("vocabulary.json", Prepared.vocabulary),
        ("vectors.safetensors", Prepared.vectors),
        ("dev/texts.json", lambda prepared: prepared.features("dev")),
        ("train/features.safetensors", lambda prepared: prepared.features("train")),
    ],
)
def test_each_part_is_verified_when_it_is_loaded(made: Prepared, name: str, load: Callable[[Prepared], object]) -> None:
    opened = open_prepared(made.folder)
    path = made.folder / name
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(DataError, match=f"corrupted: {name}"):
        load(opened)


def test_answering_does_not_care_for_the_training_features(made: Prepared) -> None:
    shutil.rmtree(made.folder / "train")
    assert open_prepared(made.folder).features("dev").ids == ["white-1", "white-2"]


def test_a_file_is_hashed_once_in_the_life_of_what_was_opened(made: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: Counter[str] = Counter()

    def counting(path: Path) -> str:
        hashed[path.relative_to(made.folder).as_posix()] += 1
        return sha256_of(path)

    monkeypatch.setattr("bidaf.data.cache.sha256_of", counting)
    opened = open_prepared(made.folder)
    opened.verify()
    for split in ("train", "dev", "dev"):
        opened.features(split)
    opened.vectors()
    opened.vocabulary()
    assert hashed == Counter(dict.fromkeys(made.manifest.files, 1))


def test_a_manifest_that_someone_made_is_one_message(made: Prepared) -> None:
    path = made.folder / MANIFEST_FILE
    document = json.loads(path.read_text())
    crafted: Any
    for crafted in ([], {}, {"material": []}, {"material": {"format": 2}}, {**document, "material": {"format": 4}}):
        path.write_text(json.dumps(crafted))
        with pytest.raises(DataError, match="manifest"):
            open_prepared(made.folder)
    write_sealed(path, {**document, "config": {**document["config"], "nonesuch": 1}})
    with pytest.raises(DataError, match=r"manifest.*nonesuch"):
        open_prepared(made.folder)


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Features, "save", full)
    with pytest.raises(BidafError, match=r"can't be written to .*: No space left on device"):
        prepare(settings(tmp_path))
    assert list((tmp_path / "prepared").iterdir()) == []


def test_a_split_without_a_usable_question_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`data\.train` holds no question .*: 2 were read, 2 question longer than 1"):
        prepare(settings(tmp_path, max_question_tokens=1))
    assert list((tmp_path / "prepared").iterdir()) == []


# Kept with a run


def no_links(*args: Any) -> None:
    raise OSError(1, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_a_run_keeps_what_answering_takes(
    tmp_path: Path, made: Prepared, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    kept = made.keep(tmp_path / "run" / "data")
    shutil.rmtree(made.folder)
    assert {path.parent.name for path in kept.folder.rglob("texts.json")} == {"dev"}
    again = open_prepared(tmp_path / "run" / "data")
    assert again.key == made.key
    again.verify()
    assert again.features("dev").ids == ["white-1", "white-2"]
    assert again.vectors().tolist() == [[1, 2], [3, 4], [5, 6]]
    assert again.counts == made.counts
    with pytest.raises(DataError, match="holds no train features"):
        again.features("train")


def test_what_format_2_prepared_is_kept_with_checksums(tmp_path: Path) -> None:
    [old] = (FORMAT1 / "prepared").iterdir()
    kept = open_prepared(old).keep(tmp_path / "data")
    path = kept.folder / "dev" / "texts.json"
    path.unlink()  # a link to the fixture itself
    path.write_bytes((old / "dev" / "texts.json").read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(DataError, match=r"corrupted: dev/texts\.json"):
        open_prepared(kept.folder).features("dev")


# Named by the user


TRAIN = ("train", "-c", "tiny.yaml", "--set", "training.max_steps=1")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with prepared data and without the sources it was made from."""
    write_tiny(tmp_path)
    folder = succeed("prepare", "-c", "tiny.yaml", "--json", cwd=tmp_path).json["folder"]
    (tmp_path / "away").mkdir()
    (tmp_path / folder).rename(tmp_path / "away" / Path(folder).name)
    for name in ("train.json", "dev.json", "vectors.txt"):
        (tmp_path / name).unlink()
    return tmp_path


def test_training_on_a_named_folder_needs_no_source_and_is_logged(home: Path) -> None:
    [folder] = (home / "away").iterdir()
    assert "--prepared FOLDER" in fail(3, *TRAIN, cwd=home)
    ran = succeed(*TRAIN, "--prepared", f"away/{folder.name}", "--run-dir", "run", cwd=home)
    assert f"training on {folder}" in ran.err
    assert f"training on {folder}" in (home / "run" / "log.txt").read_text()
    again = ("train", "--resume", "run", "--set", "training.max_steps=2")
    assert "done: 2 steps" in succeed(*again, cwd=home).err


def test_a_named_folder_of_other_settings_is_refused_with_each_difference(home: Path) -> None:
    [folder] = (home / "away").iterdir()
    write_squad(home / "train.json", "brown")
    options = ("--set", "data.max_context_tokens=99", "--prepared", folder)
    message = fail(2, *TRAIN, *options, cwd=home)
    assert "data.max_context_tokens: 400 -> 99" in message
    assert "data.train: the content of train.json" in message
    assert not (home / "runs").exists()


def test_a_named_folder_must_be_one_that_a_resumed_run_finds(home: Path) -> None:
    [folder] = (home / "away").iterdir()
    assert "no prepared data in" in fail(3, *TRAIN, "--prepared", "nowhere", cwd=home)
    folder.rename(home / "renamed")
    assert folder.name in fail(2, *TRAIN, "--prepared", "renamed", cwd=home)
    assert "--resume" not in fail(2, "train", "--resume", "--prepared", "renamed", cwd=home)
