"""`extends` in a config: settings of another file, each problem named with the file that it stands in."""

from __future__ import annotations

from pathlib import Path

import pytest

from bidaf.config import Config
from bidaf.config_file import load_config
from bidaf.config_optimizer import AdamConfig
from bidaf.errors import UsageError

BASE = """\
data: {train: train.json, dev: dev.json}
model:
  hidden_size: 50
  dropout: 0.1
training:
  optimizer: {name: adadelta, rho: 0.9}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("base.yaml", BASE)
    return tmp_path


def write(name: str, text: str) -> None:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def load(text: str, *overrides: str) -> Config:
    write("own.yaml", text)
    return load_config(Path("own.yaml"), overrides)


def failure(text: str, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(text, *overrides)
    return str(caught.value)


def test_own_settings_go_over_those_of_the_base() -> None:
    config = load("extends: base.yaml\nmodel: {hidden_size: 7}\nema: {decay: 0.9}\n", "model.dropout=0.3")
    assert (config.model.hidden_size, config.model.dropout, config.ema.decay) == (7, 0.3, 0.9)
    assert config.data.train == ("train.json",)
    assert config.training == load_config(Path("base.yaml")).training


def test_a_section_with_another_name_replaces_that_of_the_base() -> None:
    config = load("extends: base.yaml\ntraining: {optimizer: {name: adam, lr: 0.01}}\n")
    assert config.training.optimizer == AdamConfig(lr=0.01)
    config = load("extends: base.yaml\ntraining: {optimizer: {lr: 0.25}}\n")
    assert config.training.optimizer.model_dump() == {"name": "adadelta", "lr": 0.25, "rho": 0.9, "eps": 1e-8}


def test_a_base_may_extend_another_and_lies_next_to_its_file_or_among_the_configs() -> None:
    write("configs/middle.yaml", "extends: below.yaml\nmodel: {hidden_size: 8}\n")
    write("configs/below.yaml", "data: {train: t.json, dev: d.json}\nmodel: {hidden_size: 9, dropout: 0.5}\n")
    config = load("extends: middle.yaml\n")
    assert (config.model.hidden_size, config.model.dropout) == (8, 0.5)


def test_a_shipped_config_can_be_extended() -> None:
    assert load("extends: squad_adam.yaml\nmodel: {hidden_size: 7}\n").training.clip_norm == 5.0


def test_old_names_of_settings_are_read_in_every_file() -> None:
    write("base.yaml", f"{BASE}  seed: 3\n".replace("dropout: 0.1", "form: released"))
    assert load("extends: base.yaml\nmodel: {hidden_size: 7}\n").model.variant == "released"


def test_each_problem_is_named_with_its_own_file() -> None:
    write("base.yaml", BASE.replace("dropout: 0.1", "dropout: 1.5"))
    message = failure("extends: base.yaml\nmodel:\n  hidden_size: 0\nema: {dekay: 1}\n", "training.seed=-1")
    assert "model.dropout (base.yaml, line 4)" in message
    assert "model.hidden_size (own.yaml, line 3)" in message
    assert "ema.dekay (own.yaml, line 4): unknown setting" in message
    assert "training.seed (--set)" in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("extends: bsae.yaml", "own.yaml, line 1: extends: no config bsae.yaml"),
        ("model: {}\nextends: [base.yaml]", "own.yaml, line 2: extends should name a config, found ['base.yaml']"),
        ("extends:", "own.yaml, line 1: extends should name a config, found None"),
        ("extends: configs", "own.yaml, line 1: extends: configs is a folder"),
        ("extends: own.yaml", "own.yaml, line 1: extends leads back to where it began: own.yaml -> own.yaml"),
        ("extends: a.yaml", "b.yaml, line 1: extends leads back to where it began: own.yaml -> a.yaml -> b.yaml -> "),
        ("extends: 0.yaml", "9.yaml, line 1: extends leads through more than 10 files"),
    ],
)
def test_what_can_not_be_extended_is_one_message(text: str, problem: str) -> None:
    Path("configs").mkdir()
    write("a.yaml", "extends: b.yaml")
    write("b.yaml", "extends: ./a.yaml")
    for number in range(20):
        write(f"{number}.yaml", f"extends: {number + 1}.yaml")
    assert problem in failure(text)
    assert "\n" not in failure(text)


def test_the_config_of_a_run_or_export_follows_no_path_to_another_file() -> None:
    write("own.yaml", "extends: base.yaml\n")
    with pytest.raises(UsageError, match=r"extends .*: unknown setting"):
        load_config(Path("own.yaml"), of_a_run=True)
