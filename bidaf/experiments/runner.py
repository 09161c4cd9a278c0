"""Training the runs of an experiment, several at a time, each in a process of its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bidaf.data.prepare import prepare
from bidaf.data.workers import usable_cpus
from bidaf.device import choose_device
from bidaf.errors import DataError, UsageError
from bidaf.experiments.definition import Experiment, Job
from bidaf.files.reading import read_regular
from bidaf.runs.layout import CONFIG
from bidaf.runs.log import is_training
from bidaf.training.interrupt import Interrupted, InterruptRequests

Echo = Callable[[str], None]

OUTPUTS = "output"  # in the experiment's folder: what each process printed
POLL_SECONDS = 0.1
VISIBLE = "CUDA_VISIBLE_DEVICES"
ENDED_BY_SIGNAL = {128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}


@dataclass(frozen=True)
class Resources:
    """What the runs share: processor threads, or GPUs."""

    device: str
    threads: int
    processes: int
    at_once: int
    gpus: tuple[tuple[str, ...], ...] = ()
    """One group of GPUs per run; none on other devices, and where `device` names a GPU itself."""

    @classmethod
    def of(cls, experiment: Experiment, device: str, at_once: int | None) -> Resources:
        """`at_once` runs (default: as processors or GPUs allow). Raises `UsageError` as `choose_device` does."""
        processes = experiment.processes
        gpus: tuple[tuple[str, ...], ...] = ()
        if choose_device(device).type == "cuda" and device in ("auto", "cuda"):
            names = os.environ.get(VISIBLE) or ",".join(map(str, range(torch.cuda.device_count())))
            visible = names.split(",")
            if len(visible) < processes:
                raise UsageError(f"each run takes {processes} processes, and there are {len(visible)} GPUs")
            gpus = tuple(
                tuple(visible[first : first + processes]) for first in range(0, len(visible) - processes + 1, processes)
            )
        fitting = len(gpus) or usable_cpus() // (experiment.threads * processes)
        return cls(device, experiment.threads, processes, at_once or max(1, fitting), gpus)

    def environment(self, place: int) -> dict[str, str]:
        """Variables for the run in one of `at_once` places."""
        variables = {"OMP_NUM_THREADS": str(self.threads)}
        if self.gpus:
            variables[VISIBLE] = ",".join(self.gpus[place % len(self.gpus)])
        return variables


def command_of(job: Job, device: str, launcher: Sequence[str] = ("bidaf",)) -> list[str]:
    """What trains or resumes this run; `launcher` starts `bidaf`."""
    where = ["--resume", str(job.folder)] if (job.folder / CONFIG).is_file() else ["--run-dir", str(job.folder)]
    return [*launcher, "train", *where, *job.arguments, *([] if device == "auto" else ["--device", device])]


def shown_command(job: Job, experiment: Experiment, device: str) -> str:
    """`command_of` as a line for a shell or a scheduler, whose machines may have other devices than this one."""
    processes = f"--nproc-per-node={experiment.processes}"
    several = ("torchrun", "--standalone", processes, "-m", "bidaf")
    command = command_of(job, device, several if experiment.processes > 1 else ("bidaf",))
    return f"OMP_NUM_THREADS={experiment.threads} {shlex.join(command)}"


def train(jobs: Sequence[Job], resources: Resources, echo: Echo) -> dict[str, str]:
    """Train or resume these runs; name of each that failed -> what it reported.

    Their data is prepared first, so that runs that start together find it. Raises as `prepare` does, but `DataError`
    only where it leaves no run to train, and `Interrupted` on SIGINT or SIGTERM, once every run has saved and ended.
    """
    runner = _Runner(resources, echo)
    for data in dict.fromkeys(job.config.data for job in jobs):
        try:
            prepare(data, echo=echo)
        except DataError as error:
            names = [job.name for job in jobs if job.config.data == data]
            runner.failures |= dict.fromkeys(names, str(error))
            if len(runner.failures) == len(jobs):
                raise
            echo(f"{', '.join(names)}: failed: {error}")
    runner.run([job for job in jobs if job.name not in runner.failures])
    return runner.failures


@dataclass
class _Running:
    job: Job
    place: int
    process: subprocess.Popen[bytes]
    output: Path
    """What the process prints."""
    printed: int
    """Bytes of that file before this session."""


@dataclass
class _Runner:
    """Trains runs, each in a subprocess; a failure of one does not stop the others."""

    resources: Resources
    echo: Echo
    failures: dict[str, str] = field(default_factory=dict)
    """Name of a run that failed -> what it reported."""
    held: set[str] = field(default_factory=set)
    """Names of runs that another process was training when their turn came."""

    def run(self, jobs: Sequence[Job]) -> None:
        """Returns when all have ended, raises `Interrupted` when all have been stopped."""
        waiting, running = deque(jobs), list[_Running]()
        places = list(range(self.resources.at_once))
        with InterruptRequests() as requests:
            try:
                while waiting or running:
                    while places and (job := self._next(waiting)):
                        running.append(self._start(job, places.pop(0)))
                    time.sleep(POLL_SECONDS)
                    for each in [each for each in running if each.process.poll() is not None]:
                        running.remove(each)
                        places.append(each.place)
                        if each.process.returncode and is_training(each.job.folder):
                            waiting.append(each.job)  # another process was faster to lock it
                        else:
                            self._end(each, left=len(waiting) + len(running))
                    requests.check_own()
            except Interrupted:
                if running:
                    self.echo(f"stopping {', '.join(each.job.name for each in running)}: saving first")
                for each in running:
                    each.process.terminate()
                for each in running:
                    each.process.wait()
                raise
            finally:  # a second signal, or an error of ours
                for each in running:
                    with suppress(ProcessLookupError):
                        each.process.kill()
                    each.process.wait()

    def _next(self, waiting: deque[Job]) -> Job | None:
        """Take the first run that no other process trains: an experiment that was killed leaves its runs training."""
        for job in waiting:
            if not is_training(job.folder):
                waiting.remove(job)
                return job
            if job.name not in self.held:
                self.held.add(job.name)
                self.echo(f"{job.name}: waiting for another process that is training it")
        return None

    def _start(self, job: Job, place: int) -> _Running:
        output = job.folder.parent / OUTPUTS / f"{job.name}.txt"
        output.parent.mkdir(parents=True, exist_ok=True)
        python = (sys.executable, "-m")
        processes = self.resources.processes
        launcher = (
            (*python, "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "bidaf")
            if processes > 1
            else (*python, "bidaf")
        )
        command = command_of(job, self.resources.device, launcher)
        with output.open("ab") as file:
            printed = file.tell()
            # A session of its own: Ctrl-C in the terminal reaches this process alone, which passes it on once.
            process = subprocess.Popen(
                command,
                env=os.environ | self.resources.environment(place),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.echo(f"{job.name}: {'resumed' if '--resume' in command else 'started'}")
        return _Running(job, place, process, output, printed)

    def _end(self, ended: _Running, left: int) -> None:
        code, name = ended.process.returncode, ended.job.name
        if code == 0:
            self.echo(f"{name}: finished; {left} left")
            return
        lines = read_regular(ended.output)[ended.printed :].decode("utf-8", "replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        reason = errors[-1] if errors else f"ended with exit code {code}"
        if code in ENDED_BY_SIGNAL:
            reason = "was stopped by a signal"
        self.failures[name] = reason
        self.echo(f"{name}: failed: {reason} (see {ended.output})")
