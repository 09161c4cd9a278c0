"""scripts/results.py: what it keeps of a run, and the page that it makes of that alone."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from statistics import fmean, stdev
from xml.etree import ElementTree

import pytest
from helpers_cli import DEV, Tiny
from results import PAGE, RESULTS, collect
from results_page import draw, rewritten

from bidaf.errors import DataError, UsageError
from bidaf.evaluation.sweep import Sweep, SweptSet
from bidaf.runs.layout import ENVIRONMENT, METRICS
from bidaf.runs.sweeps import write_sweep


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run with a sweep, started from a folder of this machine."""
    folder = tmp_path_factory.mktemp("collected") / "run"
    shutil.copytree(tiny.run, folder, symlinks=True)
    environment = json.loads((folder / ENVIRONMENT).read_text())
    environment["command"][0] = "/home/someone/bidaf/__main__.py"
    (folder / ENVIRONMENT).write_text(json.dumps(environment))
    drawn = {"half_lives": [10.0, 20.0], "predicted_error": [0.0, 0.0], "exact_match": [50.0, 60.0], "f1": [50.0, 60.0]}
    with (folder / METRICS).open("a") as metrics:
        metrics.write(json.dumps({"event": "map", "step": 20, "questions": 6, **drawn}) + "\n")
    ids = [f"dev-{context}-{number}" for context in range(3) for number in range(2)]
    sets = [
        SweptSet(
            weights=name, half_life=1.0, predicted_error=0.0, initial_share=0.0, exact_match=[True] * 6, f1=[1.0] * 6
        )
        for name in ("raw", "ema", "half-life:10")
    ]
    write_sweep(folder, Sweep(step=20, checkpoint="0" * 64, ids=ids, articles=["Tiny"] * 6, sets=sets))
    return folder


@pytest.fixture(scope="module")
def results(run: Path) -> Path:
    """docs/results of two seeds, the second a little worse."""
    folder = run.parent / "results"
    for seed in (0, 1):
        collect(run, folder / f"tiny-seed{seed}", {"other": str(run.parent / "other.json")} if seed else {})
    return folder


@pytest.fixture(scope="module", autouse=True)
def other_data(tiny: Tiny, run: Path) -> None:
    document = json.loads((tiny.folder / "dev.json").read_text())
    document["data"][0]["paragraphs"].pop()
    (run.parent / "other.json").write_text(json.dumps(document))


def last_scores(run: Path) -> dict[str, dict[str, float]]:
    events = map(json.loads, (run / METRICS).read_text().splitlines())
    scores: dict[str, dict[str, float]] = [event["scores"] for event in events if event["event"] == "eval"][-1]
    return scores


def test_numbers_are_kept_and_neither_texts_nor_weights_nor_paths(run: Path, results: Path) -> None:
    kept = results / "tiny-seed0"
    text = "\n".join(path.read_text() for path in kept.rglob("*") if path.is_file())
    for context, asked in DEV:
        assert context not in text
        assert not any(question in text for question, _ in asked)
    assert "/home" not in text
    assert not list(kept.rglob("*.safetensors"))
    with (kept / "questions-dev.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, scores in last_scores(run).items():
        assert fmean(100 * float(row[f"{name} f1"]) for row in rows) == pytest.approx(scores["f1"], abs=1e-4)
        assert fmean(100 * int(row[f"{name} exact_match"]) for row in rows) == pytest.approx(scores["exact_match"])
    assert {row["article"] for row in rows} == {"Tiny"}


def test_other_data_is_scored_with_the_last_checkpoint(results: Path) -> None:
    lines = [json.loads(line) for line in (results / "tiny-seed1/comparisons.jsonl").read_text().splitlines()]
    assert [(line["data"], line["step"], line["questions"]) for line in lines] == [("dev", 20, 6), ("other", 20, 4)]
    assert len((results / "tiny-seed1/questions-other.csv").read_text().splitlines()) == 5


def test_a_path_of_the_machine_is_refused_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    started = tmp_path / "run"
    shutil.copytree(run, started, symlinks=True)
    (started / METRICS).write_text(
        (started / METRICS).read_text().replace('"train.json"', '"/home/someone/train.json"')
    )
    with pytest.raises(DataError, match=r"metrics\.jsonl holds a path of this machine, /home/someone/train\.json"):
        collect(started, tmp_path / "results/run", {})
    assert not (tmp_path / "results/run").exists()


def test_seeds_are_compared_where_all_of_them_were_scored(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "results")
    longer = tmp_path / "results/tiny-seed1" / METRICS
    events = [json.loads(line) for line in longer.read_text().splitlines()]
    last = [event for event in events if event["event"] == "eval"][-1]
    better = {name: {**scores, "f1": 99.0} for name, scores in last["scores"].items()}
    longer.write_text("".join(f"{json.dumps(event)}\n" for event in [*events, {**last, "step": 40, "scores": better}]))
    page = "<!-- begin seeds tiny -->\n<!-- end seeds tiny -->\n"
    made, both = rewritten(page, tmp_path / "results"), rewritten(page, results)
    assert "99.00" not in made
    assert made.splitlines()[:6] == both.splitlines()[:6]  # each seed, at the same step
    assert [row.split(" | ")[:6] for row in made.splitlines()[6:7]] == [both.splitlines()[6].split(" | ")[:6]]


def test_marked_parts_are_made_again_and_the_rest_stays(run: Path, results: Path) -> None:
    names = ["runs", "epochs tiny-seed0", "data tiny-seed1", "sweep tiny-seed0", "map tiny-seed0", "seeds tiny"]
    page = "# Results\n\nWords.\n" + "".join(
        f"\n<!-- begin {name} -->\nold\n<!-- end {name} -->\nMore.\n" for name in names
    )
    made = rewritten(page, results)
    assert rewritten(made, results) == made
    assert "old" not in made
    assert made.count("\nMore.\n") == len(names)
    scores = last_scores(run)
    shown = " | ".join(f"{scores[name][metric]:.2f}" for name in ("raw", "ema") for metric in ("exact_match", "f1"))
    assert made.count(shown) >= 4
    assert f"| 2 seeds |  | {scores['raw']['exact_match']:.2f} ± {stdev([1.0, 1.0]):.2f} |" in made
    assert "| other | 4 | 1 |" in made
    assert "No width is chosen" in made
    pictures = {path.relative_to(results).as_posix() for path in draw(results)}
    assert set(re.findall(r"\(results/(.*?)\)", made)) <= pictures
    for picture in pictures:
        text = (results / picture).read_text()
        ElementTree.fromstring(text)
        assert "var(" not in text


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("<!-- begin sums tiny-seed0 -->\n<!-- end sums tiny-seed0 -->\n", "there are runs, epochs"),
        ("<!-- begin epochs tiny-seed7 -->\n<!-- end epochs tiny-seed7 -->\n", "tiny-seed7"),
        ("<!-- begin seeds huge -->\n<!-- end seeds huge -->\n", "no run huge-seedN"),
        ("<!-- begin runs -->\n<!-- end epochs -->\n", "1 parts begin, and 0 of them end"),
    ],
)
def test_a_mark_that_means_nothing_is_named(results: Path, page: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        rewritten(page, results)


def test_the_page_is_what_the_kept_numbers_make_of_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert rewritten(page, RESULTS) == page
