"""What the report says of a run, made from its log; and that writing it harms no run."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, Configure, events
from helpers_cli import Tiny, fail, succeed
from markupsafe import Markup

from bidaf.errors import DataError
from bidaf.reporting import report
from bidaf.reporting.answers import breakdowns, changes, read_answers
from bidaf.reporting.html import script_json
from bidaf.reporting.report import report_page
from bidaf.reporting.words import details, duration, headline, plain, signed
from bidaf.runs.folder import Run
from bidaf.runs.log import RunLog, read_run
from bidaf.training.launch import resume_run, start_run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are laid out, not drawn: enough where a test is about words, and most of a page's time."""
    monkeypatch.setattr("bidaf.reporting.svg.to_svg", lambda figure, title, values=None: Markup("<svg></svg>"))


def log_of(folder: Path, raw: list[float], shadow: list[float] | None, *, total: int, config: Any = None) -> RunLog:
    """The log of a run that was scored like this, once every 100 steps."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    run.log_event(
        event="start", step=0, total_steps=total, steps_per_epoch=100, weights=9, features="none",
        counts={}, config=config or {},
    )  # fmt: skip
    best = -1.0
    for number, score in enumerate(raw, 1):
        step = 100 * number
        run.log_event(
            event="train", step=step, epoch=float(number), loss=5 / number, grad_norm=1.0, ema_decay=0.99,
            questions_per_second=100.0, memory_bytes=10**9, elapsed=float(step),
        )  # fmt: skip
        averaged = {"ema": {"exact_match": shadow[number - 1], "f1": shadow[number - 1]}} if shadow else {}
        answering = shadow[number - 1] if shadow else score
        run.log_event(
            event="eval", step=step, epoch=float(number), raw={"exact_match": score, "f1": score}, **averaged,
            distance=0.1 if shadow else None, best=answering > best, seconds=1.0, elapsed=float(step),
        )  # fmt: skip
        best = max(best, answering)
    return read_run(folder)


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Within the block the run is in training."""
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# Words


@pytest.mark.parametrize(
    ("raw", "shadow", "said"),
    [
        ([40, 60, 70], [10, 50, 71], "The shadow overtook the raw weights at step 300 and ended 1.0 F1 above them."),
        (
            [40, 60, 70],
            [41, 61, 72],
            "The shadow led the raw weights from the first evaluation on and ended 2.0 F1",
        ),
        ([40, 60, 70], [10, 50, 60], "The shadow did not beat the raw weights: it ended 10.0 F1 below them."),
        ([40, 60, 70], [50, 50, 60], "it ended 10.0 F1 below them, though it led at 1 of 3 evaluations."),
        ([40, 60, 70], [10, 50, 70.01], "The shadow ended level with the raw weights, at 70.0 F1."),
        ([40, 60, 70, 70], [10, 61, 60, 71], "The lead changed hands 3 times; the shadow ended 1.0 F1 above the raw"),
        ([40, 60, 70], None, "This run keeps no average: its raw weights have 70.0 F1 after step 300."),
        ([], None, "Nothing is scored yet: training is at step 0."),
    ],
)
def test_the_headline_says_what_the_average_did(
    tmp_path: Path, raw: list[float], shadow: list[float] | None, said: str
) -> None:
    assert said in headline(log_of(tmp_path / "run", raw, shadow, total=100 * len(raw)))


@pytest.mark.usefixtures("quick")
def test_a_run_that_goes_on_is_told_as_one(tmp_path: Path) -> None:
    run = log_of(tmp_path / "run", [40, 60], [10, 61], total=300)
    assert headline(run) == "The shadow overtook the raw weights at step 200 and is now 1.0 F1 above them."
    assert run.status == "stopped"
    assert 'id="reload"' not in report_page([run])
    with locked(run.folder):
        assert 'id="reload"' in report_page([read_run(run.folder)])
    patient = log_of(tmp_path / "patient", [40, 60], [50, 49], total=300, config={"evaluation": {"patience": 1}})
    assert patient.status == "finished"
    assert 'id="reload"' not in report_page([patient])


def test_details_compare_the_best_of_both_and_how_steady_they_were(tmp_path: Path) -> None:
    run = log_of(tmp_path / "run", [10, 70, 60, 70, 60, 70], [10, 50, 60, 66, 67, 68], total=600)
    best, steady = details(run)
    assert best == "The best shadow scored 68.00 F1 at step 600, 2.00 below the best of the raw weights (70.00)."
    assert steady.endswith("the raw weights' F1 fell 2 times, by 10.0 at most; the shadow's never fell.")


def test_numbers_are_written_as_people_write_them() -> None:
    assert [signed(points) for points in (-24.278, 0.04, -0.04, 0.25001)] == ["−24.3", "0.0", "0.0", "+0.3"]
    assert [duration(seconds) for seconds in (59.6, 61, 3599, 7500)] == [
        "1 min 00 s",
        "1 min 01 s",
        "59 min 59 s",
        "2 h 05 min",
    ]
    assert [plain(value) for value in (0.1 + 0.2, 12000, True, None, ["a", 1e-8])] == [
        "0.3",
        "12,000",
        "yes",
        "–",
        "a, 1e-08",
    ]


# The log


@pytest.mark.usefixtures("quick")
def test_lines_that_do_not_hold_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    log_of(folder, [40, 60], [10, 61], total=200)
    bad = [
        {"event": "train", "step": 150},
        {"event": "eval", "step": 300, "epoch": 3.0, "raw": {"exact_match": "x", "f1": 1.0}},
        {"event": "start", "step": 0, "config": 3},
        {"event": "skip", "step": 4},
        {"event": "something else", "step": 4},
    ]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in bad) + '{"event": "eval", "st')
    run = read_run(folder)
    assert (run.unread, run.skipped, len(run.evaluations), len(run.intervals)) == (4, 1, 2, 2)
    page = report_page([run])
    assert "4 unreadable lines of metrics.jsonl" in page
    assert "1 step skipped" in page


@pytest.mark.usefixtures("quick")
def test_a_log_without_a_start_says_what_it_lacks(tmp_path: Path) -> None:
    log_of(tmp_path / "run", [40, 60], [10, 61], total=200)
    lines = events(tmp_path / "run")[1:]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report_page([read_run(tmp_path / "run")])
    assert "The log of this run does not hold its settings" in page
    assert "The dev questions are not shown: " in page


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "has no metrics.jsonl"), ("{}\nx\n", "holds no event of a run")]
)
def test_a_folder_without_a_log_is_an_error(tmp_path: Path, content: str | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(DataError, match=problem):
        read_run(tmp_path)


def test_a_run_starts_with_all_that_its_lines_rest_on_and_again_where_that_changes(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure(training={"epochs": 1})
    start_run(config, tmp_path / "run", CPU, lambda message: None)
    resume_run(tmp_path / "run", CPU, lambda message: None)
    resume_run(tmp_path / "run", CPU, lambda message: None, config=configure(training={"epochs": 2}))
    first, second = events(tmp_path / "run", "start")
    assert (first["step"], first["total_steps"], first["steps_per_epoch"]) == (0, 6, 6)
    assert (second["step"], second["total_steps"]) == (6, 12)
    assert first["config"] == config.to_dict()
    assert first["counts"]["train"]["kept"] == 24
    run = read_run(tmp_path / "run")
    assert run.start is not None
    assert run.start.total_steps == 12
    assert run.environment["device"] == "cpu"
    assert run.status == "finished"


@pytest.mark.usefixtures("quick")
def test_a_run_that_tells_no_time_is_shown_without(tmp_path: Path) -> None:
    log_of(tmp_path / "run", [40, 60], [10, 61], total=200)
    unmeasured = dict.fromkeys(("elapsed", "seconds", "questions_per_second", "memory_bytes"))
    lines = [{**line, **{k: unmeasured[k] for k in unmeasured if k in line}} for line in events(tmp_path / "run")]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(tmp_path / "run")
    assert (run.unread, len(run.evaluations)) == (0, 2)
    page = report_page([run])
    assert "The shadow overtook the raw weights at step 200" in page
    assert "Speed and memory" not in page


@pytest.mark.parametrize("name", [b"\xff", "a\n\x1b[31m漢字".encode(), b"_hidden", b"$\\frac{x"])
def test_a_run_may_have_any_name_a_folder_can_have(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    run = log_of(folder, [40, 60], [10, 61], total=200)
    for runs in ([run], [run, run]):
        assert "<svg" in report_page(runs)


# Dev questions


def test_the_answers_are_those_that_were_scored(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.folder)
    run = read_run(tiny.run)
    answers = read_answers(run)
    assert run.best is not None
    assert answers.step == run.best.step
    for weights, scores in (("raw", run.best.scores["raw"]), ("shadow", run.best.scores["ema"])):
        given = [getattr(asked, weights) for asked in answers.questions]
        assert 100 * sum(each.exact for each in given) / len(given) == pytest.approx(scores["exact_match"])
        assert 100 * sum(each.f1 for each in given) / len(given) == pytest.approx(scores["f1"])
        assert all(1 < len(each.spans) <= 5 for each in given)
        assert all(a[2] >= b[2] for each in given for a, b in zip(each.spans, each.spans[1:], strict=False))
    for rows in breakdowns(answers.questions).values():
        assert sum(row.questions for row in rows) == 6
        assert sum(row.questions * row.f1 for row in rows) / 6 == pytest.approx(run.best.f1)
        assert sum(row.questions * row.raw_f1 for row in rows) / 6 == pytest.approx(run.best.raw_f1)
    changed = [a for a in answers.questions if a.shadow and a.shadow.spans[0][:2] != a.raw.spans[0][:2]]
    assert changes(answers.questions).changed == len(changed) > 0
    assert [answers.features.contexts[0][start:end] for start, end in answers.gold_spans(0)] == ["in Rome", "Rome"]


def remove_features() -> None:
    for folder in ("prepared", "runs/tiny/data"):
        shutil.rmtree(folder)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), ".n_best.json is missing"),
        (lambda path: path.write_text("{"), "can't be read as answers"),
        (lambda path: path.write_text('{"step": 20, "answers": {"raw": {"x": []}}}'), "can't be read as answers"),
        (
            lambda path: path.write_text('{"step": 19, "answers": {}}'),
            "is of step 19, and the best",
        ),
        (lambda path: path.write_text('{"step": 20, "answers": {"raw": {"x": [[0, 1, 0.5]]}}}'), "other questions"),
        (lambda path: remove_features(), "no prepared data in "),
    ],
)
def test_what_is_not_at_hand_is_said_in_its_place(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, said: str
) -> None:
    shutil.copytree(tiny.folder, tmp_path / "home", symlinks=True)
    monkeypatch.chdir(tmp_path / "home")
    spoil(Path("runs/tiny/predictions/step-000020.n_best.json"))
    page = report_page([read_run(Path("runs/tiny"))])
    assert "The dev questions are not shown: " in page
    assert said in page.replace("&#39;", "'")
    assert "<svg" in page


@pytest.mark.usefixtures("quick")
def test_a_page_holds_so_many_questions_and_says_so(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.folder)
    monkeypatch.setattr(report, "MAX_QUESTIONS", 4)
    run = read_run(tiny.run)
    page = report_page([run])
    assert "This page holds 4 of 6 questions" in page
    data = json.loads(re.findall(r'<script type="application/json" id="answers-0">(.*?)</script>', page)[0])
    shown = {asked["id"] for asked in data["questions"]}
    answers = read_answers(run)
    changed = {answers.features.ids[asked.number] for asked in answers.questions if asked.changed}
    assert len(shown) == 4
    assert changed <= shown or shown <= changed


def test_the_mean_over_seeds_stands_below_the_scores_it_is_made_of(tmp_path: Path) -> None:
    runs = [log_of(tmp_path / "raw", [40, 50], None, total=200, config={"a": 1})]
    for seed, last in enumerate((61, 63)):
        config = {"training": {"seed": seed}}
        runs.append(log_of(tmp_path / f"seed{seed}", [40, 60], [10, last], total=200, config=config))
    runs.append(log_of(tmp_path / "begun", [], None, total=200, config={"training": {"seed": 7}}))
    labels, rows = report._comparison(runs)
    name, cells = rows[-1]
    assert name == "2 seeds: 0, 1"  # the third one has no score yet
    assert dict(zip(labels, cells, strict=True))["best shadow F1"] == "62.0 ± 1.4"
    assert dict(zip(labels, cells, strict=True))["best raw F1"] == ""


@pytest.mark.usefixtures("quick")
def test_the_shadow_is_the_average_where_the_raw_weights_rank_checkpoints(tmp_path: Path) -> None:
    scores = [40.0, 60.0, 70.0], [10.0, 50.0, 71.0]
    ranked = log_of(tmp_path / "ranked", *scores, total=300, config={"evaluation": {"rank_by": "raw"}})
    other = log_of(tmp_path / "other", *scores, total=300)
    assert headline(ranked) == headline(other)
    assert details(ranked) == details(other)
    assert [each.gain for each in ranked.evaluations] == [-30, -10, 1]
    assert "best raw F1" in report_page([ranked])


# The page


def test_several_runs_stand_beside_each_other_with_what_differs(tmp_path: Path) -> None:
    one = log_of(tmp_path / "one", [40, 60], [10, 61], total=200, config={"ema": {"decay": 0.99}, "a": 1})
    two = log_of(tmp_path / "$x_2$", [40, 50], None, total=200, config={"ema": {"decay": 0.5}, "a": 1})
    page = report_page([one, two])
    assert "1 setting differs between the runs" in page
    row = re.search(r"<code>ema.decay</code>.*?</tr>", page, re.DOTALL)
    assert row is not None
    assert re.findall(r"<code>(.*?)</code>", row[0]) == ["ema.decay", "0.99", "0.5"]
    assert "<code>a</code>" not in page
    for label in ("one", "$x_2$", "dashed: raw weights"):
        assert f">{label}</text>" in page


@pytest.mark.usefixtures("quick")
def test_the_policy_allows_the_page_s_own_script_alone(tmp_path: Path) -> None:
    page = report_page([log_of(tmp_path / "run", [40, 60], [10, 61], total=200)])
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy is not None
    assert f"script-src &#39;sha256-{digest}&#39;;" in policy[1]
    assert "default-src &#39;none&#39;" in policy[1]


def test_json_in_a_page_can_end_no_element() -> None:
    value = {"</script><!--": ["&amp;", "\u2028\u2029", "\ud800"]}
    text = str(script_json(value))
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_the_same_log_makes_the_same_charts(tmp_path: Path) -> None:
    run = log_of(tmp_path / "run", [40, 60], [10, 61], total=200)
    first, second = (re.sub(r"written .*? by", "", report_page([run])) for _ in range(2))
    assert first == second
    ids = re.findall(r'\bid="([^"]+)"', first)
    assert len(ids) == len(set(ids))


# Training and the command


def test_training_writes_the_report_at_every_evaluation_and_names_it(tiny: Tiny) -> None:
    assert "runs/tiny/report.html" in tiny.trained.err.splitlines()[-1]
    assert "finished: step 20 of 20" in (tiny.run / "report.html").read_text(encoding="utf-8")


def test_a_report_that_fails_is_told_once_and_ends_no_run(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(folder: Path) -> None:
        calls.append(folder)
        raise RuntimeError("no ink")

    calls: list[Path] = []
    state = start_run(configure(), tmp_path / "run", CPU, lambda message: None, broken)
    assert state.step == 12
    assert calls == [tmp_path / "run"] * 2
    assert capsys.readouterr().err.count("the report can't be written: no ink") == 1


@pytest.mark.usefixtures("quick")
def test_the_command_prints_where_the_page_is(tiny: Tiny, tmp_path: Path) -> None:
    assert succeed("report", cwd=tiny.folder).out == "runs/tiny/report.html\n"
    twice = succeed("report", "tiny", "runs/tiny", "-o", tmp_path / "page.html", "--json", cwd=tiny.folder)
    assert twice.json == {"page": str(tmp_path / "page.html")}
    assert "<h1>tiny</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("quick")
def test_the_command_names_what_is_wrong(tiny: Tiny, tmp_path: Path) -> None:
    assert "no run nowhere" in fail(3, "report", "nowhere", cwd=tiny.folder)
    assert "prepared has no metrics.jsonl" in fail(3, "report", "prepared", cwd=tiny.folder)
    assert "no run yet" in fail(3, "report", cwd=tmp_path)
    assert "no/page.html can't be written: there is no folder" in fail(
        2, "report", "-o", "no/page.html", cwd=tiny.folder
    )


@pytest.mark.usefixtures("quick")
def test_watching_writes_the_page_as_the_run_goes_on_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_of(tmp_path / "run", [40], [10], total=200)
    page = tmp_path / "run" / "report.html"
    said: list[str] = []
    messages: list[str] = []

    def pause(seconds: float) -> None:
        said.append(re.findall(r"step \d+ of 200", page.read_text(encoding="utf-8"))[0])
        if len(said) == 2:
            (tmp_path / "run" / "metrics.jsonl").unlink()
            log_of(tmp_path / "run", [40, 60], [10, 61], total=200)
            training.close()

    monkeypatch.setattr("bidaf.reporting.report.time.sleep", pause)
    training = ExitStack()
    training.enter_context(locked(tmp_path / "run"))
    assert list(report.watched_report([tmp_path / "run"], None, messages.append)) == [page]
    assert said == ["step 100 of 200", "step 100 of 200"]
    assert "finished: step 200 of 200" in page.read_text(encoding="utf-8")
    assert len(messages) == 2


@pytest.mark.usefixtures("quick")
def test_a_pattern_of_all_runs_counts_each_once_however_often_it_is_used(tmp_path: Path) -> None:
    for name in ("a", "b"):
        log_of(tmp_path / "runs" / name, [40, 60], [10, 61], total=200)
    (tmp_path / "runs" / "latest").symlink_to("b")
    for _ in range(2):
        names = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "runs").iterdir())
        page = tmp_path / succeed("report", *names, cwd=tmp_path).out.strip()
        assert page.read_text(encoding="utf-8").count("<h1>a and b</h1>") == 1


def test_a_log_of_many_lines_is_drawn_within_three_seconds(tmp_path: Path) -> None:
    run = log_of(tmp_path / "run", [40, 60], [10, 61], total=200)
    (line,) = [event for event in events(run.folder, "train") if event["step"] == 200]
    lines = "".join(json.dumps({**line, "step": step}) + "\n" for step in range(201, 50_201))
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(lines)
    began = time.process_time()
    page = report.write_report([run.folder])
    assert time.process_time() - began < 3
    assert page.stat().st_size < 1_000_000
