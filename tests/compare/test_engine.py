"""Units are measured once, whatever happens between them."""

import os
import signal
from pathlib import Path

import pytest
import torch

from quadnas.compare.engine import raise_failures, require_same, run_experiment
from quadnas.compare.experiment import Unit
from quadnas.errors import ConfigError, DataError, Interrupted, MachineError
from quadnas.run.events import Event, Notice
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import StopFlag

from .toys import ARMS, run, toy

RESULTS = ("results.json", "table.csv", "table.md", "report.html", "picture.png")
UNITS = [f"{arm}-{part}" for part in ("one", "two") for arm in ARMS]


def results(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in RESULTS}


def test_every_unit_is_measured_once_and_ends_in_the_table(tmp_path: Path) -> None:
    outcome, work = run(tmp_path / "run")
    assert work.measured == UNITS
    lines = (tmp_path / "run" / "table.csv").read_text().splitlines()
    assert lines[0] == "arm,length,paper:length,ratio:Alpha"
    assert [line.split(",")[0] for line in lines[1:]] == list(ARMS)
    lengths = {row.arm: row.values["length"] for row in outcome.table.rows}
    assert lengths == pytest.approx({"alpha": 10.2, "beta": 8.2, "gamma": 10.2})
    assert outcome.table.rows[1].ratios["Alpha"] == pytest.approx(8.2 / 10.2)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("killed", [UNITS[0], UNITS[2], UNITS[5]])
def test_a_killed_run_goes_on_and_ends_with_the_identical_files(tmp_path: Path, killed: str) -> None:
    run(tmp_path / "whole")

    def die(unit: Unit) -> None:
        if str(unit) == killed:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        torch.set_num_threads(1)  # a forked child has none of its parent's threads
        run(tmp_path / "killed", before=die)
        os._exit(70)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    _, work = run(tmp_path / "killed")
    assert work.measured == UNITS[UNITS.index(killed) :]
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_a_failing_unit_is_reported_and_takes_no_other_with_it(tmp_path: Path) -> None:
    def fail(unit: Unit) -> None:
        if unit.arm == "beta":
            raise RuntimeError("CUDA out of memory\n  tried to allocate")

    seen: list[str] = []

    def observe(event: Event) -> None:
        assert isinstance(event, Notice)
        seen.append(event.text)

    outcome, work = run(tmp_path / "run", before=fail, observe=observe)
    assert work.measured == [name for name in UNITS if not name.startswith("beta")]
    told = "beta-one failed: RuntimeError: CUDA out of memory tried to allocate"
    assert told in seen
    assert "RuntimeError: CUDA out of memory" in (tmp_path / "run" / "table.csv").read_text()
    assert "CUDA out of memory" in (tmp_path / "run" / "report.html").read_text()
    folder = RunFolder.open(tmp_path / "run")
    with pytest.raises(MachineError, match=r"2 of 6 units failed, first beta-one: RuntimeError.*--resume"):
        raise_failures(outcome, folder)

    again, work = run(tmp_path / "run")
    assert work.measured == ["beta-one", "beta-two"]
    assert not again.failures
    raise_failures(again, folder)
    run(tmp_path / "whole")
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_a_failure_that_the_user_can_mend_keeps_its_exit_code(tmp_path: Path) -> None:
    def fail(unit: Unit) -> None:
        raise DataError("images.bin is corrupt")

    outcome, _ = run(tmp_path / "run", before=fail)
    with pytest.raises(DataError, match=r"6 of 6 units failed, first alpha-one: images\.bin is corrupt"):
        raise_failures(outcome, RunFolder.open(tmp_path / "run"))


def test_a_request_to_stop_is_honoured_after_the_unit_which_is_kept(tmp_path: Path) -> None:
    stop = StopFlag()

    def ask(unit: Unit) -> None:
        if str(unit) == UNITS[1]:
            stop.signal = signal.SIGTERM

    with pytest.raises(Interrupted, match=r"--resume .*run") as caught:
        run(tmp_path / "run", before=ask, stop=stop)
    assert caught.value.exit_code == 143
    _, work = run(tmp_path / "run")
    assert work.measured == UNITS[2:]


def test_a_unit_that_stops_itself_names_the_run_of_the_experiment(tmp_path: Path) -> None:
    def interrupted(unit: Unit) -> None:
        raise Interrupted("stopped; go on with --resume arms/alpha-one", signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        run(tmp_path / "run", before=interrupted)
    assert caught.value.exit_code == 130
    assert str(caught.value).endswith(f"--resume {tmp_path / 'run'}")


def test_old_results_are_not_mixed_with_those_of_changed_settings(tmp_path: Path) -> None:
    run(tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    require_same(toy(), folder, "toy.yaml")
    with pytest.raises(ConfigError, match=r"other settings than toy.yaml has now \(factor\)"):
        require_same(toy(factor=2.0), folder, "toy.yaml")


def test_old_results_are_not_mixed_with_those_of_other_inputs(tmp_path: Path) -> None:
    run(tmp_path / "run")
    experiment = toy()
    work = experiment.prepare()
    work.inputs = {"seed": 8}
    with RunFolder.open(tmp_path / "run") as folder, pytest.raises(ConfigError, match="the seed changed"):
        run_experiment(experiment, work, folder, lambda event: None, StopFlag())
