"""The configs that come with the project, each tried with its real sizes, and the commands that show configs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers_cli import fail, succeed, write_tiny

from bidaf.config_file import find_config, load_config

CONFIGS = sorted(path.name for path in Path(__file__).parents[1].joinpath("configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and vectors, but for the vectors of the configs' own width."""
    folder = tmp_path_factory.mktemp("configs")
    write_tiny(folder)
    (folder / "vectors100.txt").write_text("".join(f"{word}{' 0.5' * 100}\n" for word in ("the", "in")))
    return folder


def test_there_are_configs_for_the_paper_the_released_code_and_a_small_corpus() -> None:
    assert {"mini.yaml", "squad.yaml", "squad_released.yaml"} <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_each_config_tries_out_one_step_of_the_model_it_describes(folder: Path, name: str) -> None:
    config = load_config(find_config(name))
    vectors = "null" if config.data.vectors is None else "vectors100.txt"
    data = ["data.train=train.json", "data.dev=dev.json", f"data.vectors={vectors}", "training.batch_size=2"]
    ran = succeed("train", "-c", name, "--dry-run", *(f"--set={setting}" for setting in data), cwd=folder)
    text, table = ran.out.split("\n\n", 1)
    shown = yaml.safe_load(text)
    assert shown["model"] == config.to_dict()["model"]
    assert (shown["data"]["train"], shown["training"]["batch_size"]) == (["train.json"], 2)
    counts = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in table.splitlines()
        if line.startswith("│")
    }
    everything, beside_tables = (
        int(counts[row][0].replace(",", "")) for row in ("all", "all but the embedding tables")
    )
    assert 0 < beside_tables < everything
    if config.model.hidden_size == 100:
        assert round(beside_tables / 1e6, 2) == {"paper": 1.61, "released": 2.57}[config.model.variant]
    assert counts["kept"] == ["6", "6"]
    batches = config.training.epochs * 3
    steps = min(batches, config.training.max_steps or batches)
    assert f"steps: {steps:,}, batches of 2" in table
    assert "one step on the longest batch, on cpu: loss " in table
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("mini")])
def test_without_its_data_a_config_ends_with_the_name_of_the_missing_file(tmp_path: Path, name: str) -> None:
    message = fail(3, "train", "-c", name, "--dry-run", "--set", "data.vectors=null", cwd=tmp_path)
    missing = load_config(find_config(name)).data.train[0]
    assert str(tmp_path / missing) in message
    assert "no such file" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_what_config_show_prints_is_the_same_config_again(tmp_path: Path, name: str) -> None:
    (tmp_path / "again.yaml").write_text(succeed("config", "show", name, cwd=tmp_path).out)
    assert succeed("config", "diff", name, "again.yaml", cwd=tmp_path).out == "no difference\n"
    shown = succeed("config", "show", name, "--json", cwd=tmp_path).json
    assert shown == load_config(find_config(name)).to_dict()
    assert succeed("config", "validate", name, cwd=tmp_path).out.endswith("is valid\n")


def test_of_settings_given_twice_the_last_counts(tmp_path: Path) -> None:
    sets = ["--set", "training.seed=1", "--set", "ema.decay=0.5", "--set", "training.seed=2"]
    shown = succeed("config", "show", "mini.yaml", *sets, "--json", cwd=tmp_path).json
    assert (shown["training"]["seed"], shown["ema"]["decay"]) == (2, 0.5)


def test_diff_names_each_setting_with_both_values(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {train: t.json, dev: d.json}\nema: {decay: 0.9}")
    (tmp_path / "b.yaml").write_text("data: {train: t.json, dev: d.json}\ntraining: {seed: 7}\n")
    assert succeed("config", "diff", "a.yaml", "b.yaml", cwd=tmp_path).out.splitlines() == [
        "ema.decay: 0.9 -> None",
        "training.seed: 0 -> 7",
    ]
    listed = succeed("config", "diff", "a.yaml", "b.yaml", "--json", cwd=tmp_path).json
    assert listed == {"ema.decay": [0.9, None], "training.seed": [0, 7]}


def test_validate_names_every_problem_at_once(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: {train: t.json, dev: d.json}\nmodel: {hiden_size: 3}\nema: {decay: 1.5}\n")
    message = fail(2, "config", "validate", "c.yaml", cwd=tmp_path)
    assert "model.hiden_size (c.yaml, line 2): unknown setting; did you mean model.hidden_size?" in message
    assert "ema.decay (c.yaml, line 3)" in message
