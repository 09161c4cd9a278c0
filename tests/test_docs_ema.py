"""What docs/ema.md and docs/fidelity.md say is so: examples run, numbers come out, settings and tests exist."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file
from torch import nn

from bidaf.config import Config, DataConfig, ModelConfig
from bidaf.config_file import load_config
from bidaf.config_optimizer import AdadeltaConfig
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


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """The variables after each example of the page, which are run in their order, and the folder they write to."""
    folder = tmp_path_factory.mktemp("examples")
    frameworks: dict[str, dict[str, Any]] = {
        "lightning": {"Callback": object},
        "transformers": {"Trainer": FakeTrainer},
    }
    names: dict[str, Any] = {}
    after = []
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.chdir(folder)
        for module, content in frameworks.items():
            patch.setitem(sys.modules, module, types.SimpleNamespace(**content))
        torch.manual_seed(0)
        for example in re.findall(r"```python\n(.*?)```", text(EMA), flags=re.DOTALL):
            exec(compile(example, EMA.name, "exec"), names)
            after.append(dict(names))
    return after, folder


class FakeTrainer:
    """What the recipe for transformers overrides."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimizer = self.create_optimizer()

    def create_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=1.0)

    def evaluate(self) -> torch.Tensor:
        (weight,) = self.model.parameters()
        return weight.detach().clone()


def test_the_first_example_saves_the_average_that_it_scored(examples: tuple[list[dict[str, Any]], Path]) -> None:
    names, folder = examples[0][0], examples[1]
    assert names["accuracy"] > 0.9
    saved = load_file(folder / "averaged.safetensors")
    assert all(torch.equal(saved[name], shadow) for name, shadow in names["ema"].shadow.items())
    assert not torch.equal(saved["0.weight"], names["model"][0].weight)


def test_statistics_of_batch_normalisation_estimated_again_score_as_the_page_says(
    examples: tuple[list[dict[str, Any]], Path],
) -> None:
    scores = examples[0][1]["scores"]
    claimed = [
        float(number) / 100 for number in re.findall(r"(\d\d\.\d) %", text(EMA).split("On one CPU thread:")[1][:150])
    ]
    assert list(scores.values()) == pytest.approx(claimed, abs=0.01)
    assert scores["raw"] < scores["averaged"] < scores["averaged, estimated again"]


def test_the_recipes_update_once_per_step_and_validate_the_shadow(examples: tuple[list[dict[str, Any]], Path]) -> None:
    names = examples[0][-1]
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    callback, loop = names["Averaging"](), types.SimpleNamespace(optimizers=[optimizer])
    callback.on_fit_start(loop, model)
    trainer = names["AveragingTrainer"](nn.Linear(2, 1, bias=False))
    for averaged, stepper, ema in ((model, optimizer, callback.ema), (trainer.model, trainer.optimizer, trainer.ema)):
        for _ in range(3):
            averaged(torch.ones(1, 2)).sum().backward()
            stepper.step()
        assert ema.steps == 3
        assert not torch.equal(averaged.weight, ema.shadow["weight"])
    callback.on_validation_start(loop, model)
    assert torch.equal(model.weight, callback.ema.shadow["weight"])
    callback.on_exception(loop, model, ValueError())
    assert not callback.ema.is_applied
    assert torch.equal(trainer.evaluate(), trainer.ema.shadow["weight"])


def test_the_average_rebuilt_from_ones_own_snapshots_is_as_near_as_predicted(
    examples: tuple[list[dict[str, Any]], Path],
) -> None:
    names = examples[0][-1]
    exact, model = names["exact"].shadow, names["model"]
    off = torch.cat([(names["average"][name] - exact[name]).flatten() for name in exact]).norm()
    gap = torch.cat([(weight.detach() - exact[name]).flatten() for name, weight in model.named_parameters()]).norm()
    assert len(names["snapshots"]) < 50
    assert names["fit"].predicted_error < 0.005
    assert off / gap < 2.5 * names["fit"].predicted_error + 1e-4


def test_the_table_of_other_implementations_is_what_the_script_prints() -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "asked_for.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    printed = [line for line in ran.stdout.splitlines() if line.startswith("| bidaf")]
    assert printed
    assert all(line.split("|")[3:] in [row.split("|")[3:] for row in text(EMA).splitlines()] for line in printed)
    assert "is not installed: skipped" in ran.stderr or len(ran.stdout.splitlines()) == 7


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
    of_another = {"model.word_size", "data.unanswerable"}  # follow the vectors and `model.no_answer`
    assert settings - named == of_the_files | of_another


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
