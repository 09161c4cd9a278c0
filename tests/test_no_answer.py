"""Questions without an answer, from file to answer: kept or left out by one rule, trained on, thresholds kept."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import CPU, events
from helpers_cli import CONFIG, DEV, TRAIN, fail, squad, succeed, write_tiny
from helpers_serve import load_service, running

from bidaf.config import Config
from bidaf.config_file import load_config
from bidaf.data.corpus import read_corpus
from bidaf.data.features import ARRAYS, NO_ANSWER, Features
from bidaf.data.prepare import prepare
from bidaf.data.sources import find_source
from bidaf.errors import DataError
from bidaf.evaluation.metrics import read_gold
from bidaf.evaluation.squad_v2 import score_answers
from bidaf.inference.loading import load_model
from bidaf.inference.predictor import Predictor
from bidaf.runs.checkpoint import open_checkpoint
from bidaf.training.trainer import Trainer

CONFIG2 = CONFIG.replace("hidden_size: 4", "no_answer: true, hidden_size: 4")
SPLITS = {"train": TRAIN, "dev": DEV}


def with_unanswerable(split: str) -> dict[str, Any]:
    """The split with a question on each context that it does not answer; a title per context."""
    document = squad(SPLITS[split], split)
    (article,) = document["data"]
    for number, paragraph in enumerate(article["paragraphs"]):
        id = f"{split}-no-{number}"
        paragraph["qas"].append({"id": id, "question": "What is the zebra?", "answers": [], "is_impossible": True})
    return {"data": [{"title": str(n), "paragraphs": [each]} for n, each in enumerate(article["paragraphs"])]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a model that knows "no answer", and its data."""
    folder = tmp_path_factory.mktemp("no-answer")
    write_tiny(folder)
    for split in SPLITS:
        (folder / f"{split}.json").write_text(json.dumps(with_unanswerable(split)), encoding="utf-8")
    (folder / "two.yaml").write_text(CONFIG2, encoding="utf-8")
    succeed("train", "-c", "two.yaml", "--run-dir", "runs/two", "--set", "ema.snapshots={every: 1}", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    with contextlib.chdir(folder):
        return load_config(Path("two.yaml"))


def features(folder: Path, config: str, split: str) -> Features:
    """Of a config in the folder, its texts too."""
    with contextlib.chdir(folder):
        found = prepare(load_config(Path(config)).data).features(split)
        _ = found.texts
    return found


def test_it_is_served(folder: Path) -> None:
    service = load_service(folder, "two")
    question, context = "What is the zebra?", DEV[0][0]
    for predictor in service.predictors.values():
        predictor.no_answer_threshold = 0.0  # so that nothing else is answered
    with running(service) as server:
        asked = {"question": question, "context": context, "n_best": 2}
        found = httpx.post(f"{server.address}answer", json=asked).json()
        assert (found["answer"], found["start"], found["end"]) == ("", 0, 0)
        assert found["no_answer"] == found["score"] > 0
        assert found["answers"][1]["answer"] in context
        shown = httpx.post(
            f"{server.address}explain", json={"question": question, "context": context, "weights": ["raw"]}
        ).json()
        assert "(no answer)" in shown["verdict"]
        assert (shown["explanations"][0]["isAnswer"], shown["explanations"][0]["exact"]) == ([], True)
        assert shown["gold"] == ["(no answer)"]
        for predictor in service.predictors.values():
            predictor.no_answer_threshold = 1.0
        found = httpx.post(f"{server.address}answer", json=asked).json()
        assert found["answer"] in context
        assert 0 < found["no_answer"] < 1


# ---- Data


def test_the_model_decides_whether_such_questions_are_kept(folder: Path, config: Config) -> None:
    assert config.data.unanswerable
    with contextlib.chdir(folder):
        kept, left_out = prepare(config.data), prepare(load_config(Path("tiny.yaml")).data)
        counts = {"two": kept.counts["dev"], "tiny": left_out.counts["dev"]}
    assert [(each["kept"], each.get("kept_unanswerable"), each["unanswerable"]) for each in counts.values()] == [
        (9, 3, 0),
        (6, None, 3),
    ]
    assert counts["two"]["spans"] == counts["tiny"]["spans"]


def test_a_question_without_an_answer_has_one_gold_answer_that_says_so(folder: Path) -> None:
    train = features(folder, "two.yaml", "train")
    for number, id in enumerate(train.ids):
        spans = train.answer_spans[train.answer_offsets[number] : train.answer_offsets[number + 1]]
        absent = id.startswith("train-no-")
        assert (spans.tolist() == [[NO_ANSWER, NO_ANSWER]]) is absent
        assert (train.answers[number] == []) is absent
        assert len(train.gold_spans(number)) == (not absent)


def test_where_they_are_left_out_the_features_are_those_of_a_file_without_them(folder: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    for split in SPLITS:
        with_, without = (features(place, "tiny.yaml", split) for place in (folder, tmp_path))
        assert with_.ids == without.ids
        assert all(np.array_equal(getattr(with_, name), getattr(without, name)) for name in ARRAYS)


def test_gold_answers_that_say_half_of_it_are_corrupted(folder: Path, tmp_path: Path) -> None:
    dev = features(folder, "two.yaml", "dev")
    spans = dev.answer_spans.copy()
    spans[-1] = (NO_ANSWER, 0)
    replace(dev, answer_spans=spans, read_texts=lambda: dev.texts).save(tmp_path)
    with pytest.raises(DataError, match="answer_spans holds a number out of range"):
        Features.load(tmp_path)


def test_a_model_without_no_answer_is_not_trained_on_such_gold(folder: Path, config: Config) -> None:
    with contextlib.chdir(folder):
        prepared = prepare(config.data)
        other = config.model_copy(update={"model": config.model.model_copy(update={"no_answer": False})})
        with pytest.raises(DataError, match=r"questions without an answer, and model\.no_answer is false"):
            Trainer(other, prepared, CPU)


def test_every_question_is_accounted_for(folder: Path) -> None:
    for keep in (True, False):
        corpus = read_corpus([find_source(str(folder / "dev.json"), "dev")], unanswerable=keep)
        assert corpus.counts.read == 9 == corpus.counts.kept + corpus.counts.unanswerable
        assert sum(example.impossible for example in corpus.examples) == 3 * keep


def test_the_two_settings_can_not_disagree(tmp_path: Path) -> None:
    data = "data: {train: t.json, dev: d.json, unanswerable: UNANSWERABLE}\nmodel: {no_answer: NO_ANSWER}\n"
    for no_answer, unanswerable in (("true", "false"), ("false", "true")):
        text = data.replace("NO_ANSWER", no_answer).replace("UNANSWERABLE", unanswerable)
        (tmp_path / "c.yaml").write_text(text)
        assert "data.unanswerable" in fail(2, "config", "validate", "c.yaml", cwd=tmp_path)


# ---- Scores and thresholds


def test_every_evaluation_chooses_a_threshold_for_each_weight_set(folder: Path) -> None:
    evaluations = events(folder / "runs/two", "eval")
    assert len(evaluations) == 2
    for evaluation in evaluations:
        for metrics in evaluation["scores"].values():
            assert {"f1", "exact_match", "unanswerable_f1", "cross_fitted_f1"} < metrics.keys()
            assert 0 <= metrics["no_answer_threshold"] <= 1
    last = open_checkpoint(folder / "runs/two/last")
    for weights in ("raw", "ema"):
        kept = last.no_answer_threshold(weights)
        assert kept == evaluations[-1]["scores"][weights]["no_answer_threshold"]


def test_eval_scores_by_v2_what_training_scored(folder: Path) -> None:
    ran = succeed("eval", "-m", "runs/two/last", "--both", "--json", cwd=folder)
    assert "scored by the rule of SQuAD v2.0" in ran.err
    logged = events(folder / "runs/two", "eval")[-1]["scores"]
    for result in ran.json:
        assert {name: result[name] for name in logged[result["weights"]]} == logged[result["weights"]]
        assert (result["questions"], result["rule"]) == (9, "SQuAD v2.0")
    table = succeed("eval", "-m", "runs/two/last", cwd=folder).out
    assert all(label in table for label in ("HasAns", "NoAns", "threshold"))


def test_predict_answers_as_the_threshold_of_its_weights_says(folder: Path) -> None:
    succeed("predict", "dev.json", "-m", "runs/two/last", "-o", "answers.json", cwd=folder)
    answers = json.loads((folder / "answers.json").read_text())
    records = succeed("predict", "dev.json", "-m", "runs/two/last", "--n-best", 3, cwd=folder).json
    threshold = open_checkpoint(folder / "runs/two/last").no_answer_threshold("ema")
    assert threshold is not None
    for record in records:
        first = record["answers"][0]
        assert answers[record["id"]] == first["text"]
        assert (first["text"] == "") is (record["no_answer"] > threshold)
        assert len(record["answers"]) == 3
        if first["text"] == "":
            assert (first["start"], first["end"], first["probability"]) == (0, 0, record["no_answer"])
    scored = succeed("score", "dev.json", "answers.json", "--json", cwd=folder).json
    assert scored["f1"] == succeed("eval", "-m", "runs/two/last", "--json", cwd=folder).json["f1"]
    (folder / "n-best.json").write_text(json.dumps(records))
    options = ("--no-answer", "n-best.json", "--threshold", threshold)
    again = succeed("score", "dev.json", "n-best.json", *options, "--json", cwd=folder).json
    assert {name: again[name] for name in ("f1", "unanswerable_f1")} == {
        name: scored[name] for name in ("f1", "unanswerable_f1")
    }


def test_probabilities_of_no_answer_give_the_official_best_threshold(folder: Path) -> None:
    with contextlib.chdir(folder):
        predictor = Predictor(load_model("runs/two/last", device=CPU))
        dev = predictor.loaded.dev_features()
        assert dev is not None
        predictions = predictor.predict(dev)
    spans = {id: next(each.text for each in ranked if not each.is_empty) for id, ranked in predictions.items()}
    no_answer = {id: next(each.probability for each in ranked if each.is_empty) for id, ranked in predictions.items()}
    best = score_answers(read_gold(folder / "dev.json"), spans, no_answer).best_f1
    assert best is not None
    assert best.threshold == predictor.no_answer_threshold


def test_weights_that_were_never_scored_get_a_threshold_of_their_own(folder: Path) -> None:
    with contextlib.chdir(folder):
        loaded = load_model("runs/two/last", weights="decay:0.9", device=CPU)
        assert loaded.no_answer_threshold is None
        threshold = Predictor(loaded).no_answer_threshold
    scored = succeed("eval", "-m", "runs/two/last", "--weights", "decay:0.9", "--json", cwd=folder).json
    assert threshold == scored["no_answer_threshold"]


def test_an_export_keeps_its_threshold(folder: Path, tmp_path: Path) -> None:
    for weights in ("raw", "decay:0.9"):
        model = tmp_path / weights.replace(":", "-")
        succeed("export", "-m", "runs/two/last", "--weights", weights, "-o", model, cwd=folder)
        ours, theirs = (
            succeed("eval", *options, "--data", "dev.json", "--json", cwd=folder).json
            for options in (("-m", model), ("-m", "runs/two/last", "--weights", weights))
        )
        assert ours["no_answer_threshold"] == theirs["no_answer_threshold"]
        assert ours["f1"] == theirs["f1"]
        assert "SQuAD v2.0" in (model / "README.md").read_text(encoding="utf-8")


def test_a_v1_model_says_how_many_it_leaves_out(folder: Path, tmp_path: Path) -> None:
    succeed("train", "-c", "tiny.yaml", "--run-dir", tmp_path / "one", "--set", "training.max_steps=1", cwd=folder)
    ran = succeed("eval", "-m", tmp_path / "one", "--data", "dev.json", "--json", cwd=folder)
    assert "scored by the rule of SQuAD v1.1" in ran.err
    assert "3 unanswerable questions are left out" in ran.err
    assert (ran.json["questions"], ran.json.keys() & {"no_answer_threshold"}) == (6, set())


# ---- Training and showing


def test_a_stopped_run_ends_as_one_that_was_not(folder: Path, tmp_path: Path) -> None:
    options = ("-c", "two.yaml", "--device", "cpu", "--set", "training.deterministic=true")
    steps = [f"training.max_steps={count}" for count in (9, 7)]
    for run, count in zip(("whole", "resumed"), steps, strict=True):
        succeed("train", *options, "--run-dir", tmp_path / run, "--set", count, cwd=folder)
    succeed("train", "--resume", tmp_path / "resumed", "--set", steps[0], "--device", "cpu", cwd=folder)
    for name in ("weights/raw", "weights/ema", "optimizer"):
        whole, resumed = (tmp_path / run / "last" / f"{name}.safetensors" for run in ("whole", "resumed"))
        assert whole.read_bytes() == resumed.read_bytes()


def test_no_answer_is_shown_as_an_answer(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(DEV[0][0], encoding="utf-8")
    options = ("-m", "runs/two/last", "-c", tmp_path / "text.txt", "-q", "What is the zebra?", "--n-best", 9)
    lines = [line.split("\t")[1] for line in succeed("ask", *options, cwd=folder).out.splitlines()]
    assert lines.count("(no answer)") == 1
    page = tmp_path / "page.html"
    image = ("--png", tmp_path / "image.png")
    succeed("explain", "dev-no-0", "-m", "runs/two/last", "-o", page, *image, cwd=folder)
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    (shown,) = json.loads(found[0])
    assert shown["gold"] == ["(no answer)"]
    for explanation in shown["explanations"]:
        first = explanation["answers"][0][0]
        assert explanation["exact"] is (first == "(no answer)")
        assert (explanation["isAnswer"] == []) is (first == "(no answer)")
        assert len(base64.b64decode(explanation["toQuestion"])) > 0


def test_two_weight_sets_are_compared_as_they_were_scored(folder: Path) -> None:
    found = succeed("compare", "runs/two/last", "--json", cwd=folder)
    assert "scored by the rule of SQuAD v2.0" in found.err
    logged = events(folder / "runs/two", "eval")[-1]["scores"]
    for side, weights in (("a", "raw"), ("b", "ema")):
        for metric in ("exact_match", "f1", "answerable_f1", "unanswerable_f1"):
            assert found.json["metrics"][metric][side]["value"] == pytest.approx(logged[weights][metric])
    table = succeed("compare", "runs/two/last", cwd=folder).out
    assert all(label in table for label in ("HasAns F1", "NoAns"))
    left_out = succeed("compare", "runs/two/last", "--answerable-only", "--json", cwd=folder).json
    assert (left_out["rule"], left_out["questions"], left_out["unanswerable"]) == ("SQuAD v1.1", 6, 3)


def test_the_report_counts_right_what_is_right(folder: Path) -> None:
    succeed("report", "runs/two", "-o", "report.html", cwd=folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(f"ema {label}</th>" in page for label in ("HasAns F1", "NoAns", "threshold"))
    embedded = re.findall(r'<script type="application/json" id="[^"]*">(.*?)</script>', page)
    questions = next(data["questions"] for data in map(json.loads, embedded) if "questions" in data)
    assert {each["id"] for each in questions if not each["answers"]} == {f"dev-no-{number}" for number in range(3)}
    for each in questions:
        if not each["answers"]:
            is_empty = each["raw"]["spans"][0][:2] == [0, 0]
            assert each["raw"]["exact"] is is_empty
            assert each["raw"]["f1"] == float(is_empty)


def test_an_ensemble_has_its_own_threshold_wherever_it_answers(folder: Path, tmp_path: Path) -> None:
    both, written = tmp_path / "both", tmp_path / "records.json"
    members = ("two", "two", "-w", "raw", "-w", "ema")
    printed = succeed(
        *("ensemble", *members, "--export", both, "-p", written, "--n-best", 2, "--json"), cwd=folder
    ).json
    scored = succeed("eval", "-m", both, "-d", "dev.json", "--json", cwd=folder).json
    assert scored["rule"] == "SQuAD v2.0"
    for name in ("exact_match", "f1", "no_answer_threshold"):
        assert scored[name] == pytest.approx(printed[name])
    single = succeed("eval", "-m", "two", "-w", "raw", "--json", cwd=folder).json
    assert printed["members"][0]["f1"] == pytest.approx(single["f1"])
    records = json.loads(written.read_text())
    assert succeed("predict", "dev.json", "-m", both, "--n-best", 2, cwd=folder).json == records
    threshold = printed["no_answer_threshold"]
    assert all((not each["answers"][0]["text"]) == (each["no_answer"] > threshold) for each in records)
    files = [tmp_path / f"{name}.json" for name in ("raw", "ema")]
    for path in files:
        succeed("predict", "dev.json", "-m", "two", "-w", path.stem, "--n-best", 20, "-o", path, cwd=folder)
    joined = succeed("ensemble", *files, "-d", "dev.json", "--json", cwd=folder).json
    assert joined["sizes"] == printed["sizes"]
    without = json.loads(files[0].read_text())
    for each in without:
        del each["no_answer"]
        each["answers"] = [answer for answer in each["answers"] if answer["text"]]
    files[0].write_text(json.dumps(without))
    assert "probability" in fail(3, "ensemble", *files, "-d", "dev.json", cwd=folder)
