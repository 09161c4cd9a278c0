"""What docs/ema.md and docs/fidelity.md say is so: examples run, numbers come out, settings and tests exist."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file

from bidaf.config import AdadeltaConfig, Config, DataConfig, ModelConfig
from bidaf.config_file import load_config
from bidaf.model.bidaf import Bidaf, count_weights

ROOT = Path(__file__).parents[1]
EMA, FIDELITY = ROOT / "docs" / "ema.md", ROOT / "docs" / "fidelity.md"
PAGES = [EMA, FIDELITY]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the tables under a heading, without their head lines."""
    section = text(page).split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_example_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", text(EMA), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(example, EMA.name, "exec"), names)
    assert names["accuracy"] > 0.9
    averaged = load_file(tmp_path / "averaged.safetensors")
    assert all(torch.equal(averaged[name], shadow) for name, shadow in names["ema"].shadow.items())
    assert not torch.equal(averaged["0.weight"], names["model"][0].weight)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_numbers_come_out_as_shown(page: Path) -> None:
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted > 0
    assert found.failed == 0


def test_every_guard_names_tests_that_exist() -> None:
    named = re.findall(r"`(test_\w+)`", text(EMA))
    written = {
        name for file in (ROOT / "tests").glob("test_*.py") for name in re.findall(r"def (test_\w+)", text(file))
    }
    assert len(named) > 15
    assert [name for name in named if name not in written] == []


def test_every_setting_that_is_named_exists() -> None:
    sections: dict[str, type[BaseModel]] = {
        name: section
        for name, field in Config.model_fields.items()
        if isinstance(section := field.annotation, type) and issubclass(section, BaseModel)
    }
    named = re.findall(rf"`({'|'.join(sections)})\.(\w+)[`:]", text(FIDELITY) + text(EMA))
    assert len(named) > 20
    assert [f"{a}.{b}" for a, b in named if b not in sections[a].model_fields] == []


def test_every_choice_of_form_is_in_the_table() -> None:
    """Settings of the network and of what it reads are there because paper and released code leave a choice."""
    named = set(re.findall(r"`((?:data|model)\.\w+)`", text(FIDELITY)))
    settings = {f"data.{name}" for name in DataConfig.model_fields} | {
        f"model.{name}" for name in ModelConfig.model_fields
    }
    of_the_files = {"data.train", "data.dev", "data.prepared_dir"}
    without_vectors = {"model.word_size"}
    assert settings - named == of_the_files | without_vectors


@pytest.mark.parametrize(("variant", "column"), [("paper", 2), ("released", 3)])
def test_the_weights_are_those_of_the_table(variant: Literal["paper", "released"], column: int) -> None:
    model = Bidaf(ModelConfig(variant=variant), num_trained=3, num_chars=4, fixed=torch.zeros(5, 100))
    parts = {part: count for part, count in count_weights(model).items() if not part.endswith("table")}
    *table, total = rows(FIDELITY, "Trained weights")
    assert {row[0].strip("`"): int(row[column].replace(",", "")) for row in table} == parts
    assert int(total[column].strip("*").replace(",", "")) == sum(parts.values())


def test_a_shipped_config_differs_from_the_defaults_as_listed() -> None:
    defaults = Config(data=DataConfig(train=("train.json",), dev=("dev.json",)))
    configs = ROOT / "configs"
    assert isinstance(defaults.training.optimizer, AdadeltaConfig)

    def changed(name: str) -> dict[str, Any]:
        flat = {}
        for section, values in load_config(configs / f"{name}.yaml").to_dict().items():
            for key, value in values.items():
                if value != defaults.to_dict()[section][key]:
                    flat[f"{section}.{key}"] = value
        ours = ("data.train", "data.dev", "data.vectors", "ema.decay")
        return {key: value for key, value in flat.items() if key not in ours}

    assert changed("squad") == {}
    released = changed("squad_released")
    released.pop("training.epochs")  # max_steps ends the run
    line = next(line for line in text(FIDELITY).splitlines() if "squad_released.yaml" in line)
    listed = dict(re.findall(r"`(\w+\.\w+): (\w+)`", line))
    assert listed == {key: str(value).lower() for key, value in released.items()}
    adam = changed("squad_adam")
    assert adam.pop("training.optimizer")["name"] == "adam"
    assert adam == {"training.clip_norm": 5.0, "training.batching": "bucketed", "evaluation.max_answer_tokens": 17}
