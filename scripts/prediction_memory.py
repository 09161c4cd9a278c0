"""Peak memory of `bidaf predict` on files of JSON lines of several lengths, each read by a process of its own.

    python scripts/prediction_memory.py MODEL               # 20,000 and 200,000 questions
    python scripts/prediction_memory.py MODEL 1000 5000

The questions are those of the embedded corpus, over and over, each time with other ids. Prints seconds, questions per
second and peak memory per file. Exit code 1 when the longest file takes 5 % more memory than the shortest, or 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from bidaf.data.questions import read_questions

MOST_GROWTH, MOST_BYTES = 1.05, 2e9


def write_questions(path: Path, number: int) -> None:
    """This many questions as JSON lines."""
    examples = read_questions("embedded:mini")
    with path.open("w", encoding="utf-8") as file:
        for position, example in enumerate(islice(cycle(examples), number)):
            record = {"id": f"{position}-{example.id}", "context": example.context, "question": example.question}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def measure(model: str, number: int, folder: Path) -> tuple[float, int]:
    """Seconds and peak bytes of a prediction of this many questions."""
    questions, answers = folder / f"{number}.jsonl", folder / f"{number}.answers.jsonl"
    write_questions(questions, number)
    command = [sys.executable, "-m", "bidaf", "predict", questions, "-m", model, "-o", answers, "--device", "cpu"]
    began = time.perf_counter()
    child = subprocess.Popen([*map(str, command)])
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"bidaf predict ended with code {os.waitstatus_to_exitcode(status)}")
    with answers.open("rb") as file:
        assert sum(1 for _ in file) == number
    return time.perf_counter() - began, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run or an export")
    parser.add_argument("questions", type=int, nargs="*", default=[20_000, 200_000], help="numbers of questions")
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory(dir=".") as name:
        for number in options.questions:
            seconds, peak = measure(options.model, number, Path(name))
            peaks.append(peak)
            print(
                f"{number:>9,} questions: {seconds:7.1f} s, {number / seconds:6.0f}/s, {peak / 1e6:6.0f} MB", flush=True
            )
    sys.exit(peaks[-1] > MOST_GROWTH * peaks[0] or max(peaks) > MOST_BYTES)


if __name__ == "__main__":
    main()
