"""Devices and processes that train as one. What needs some of them starts them."""

import contextlib
import hashlib
import json
import re
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import loop
from core import settings as settings_of
from core.data import batches
from core.errors import UserError
from core.run import files, process
from core.settings import Data, Model, Objective, Run, Settings
from core.training import replicas
from tests.conftest import as_arguments, program, run, small_settings
from tests.runs import newest_checkpoint, timeless

# --- One process, one device ----------------------------------------------------------


def test_one_device_calls_the_functions_themselves():
    """So that nothing can differ from a program without replicas."""
    batch = batches.Batch(tf.zeros([6, 784]), None, tf.zeros([1, 6, 2]))
    with replicas.Team(Run()) as team:
        seen = replicas.sum_over(lambda *a: a, "model", {}, batch, Objective(), 0.5)
        assert seen == ("model", {}, batch, Objective(), 0.5)
        assert replicas.part(loop.update) is loop.update
        assert team.chief and team.count == 1 and team.strategy is None
        team.expect_same({"data": "any"})
        stop, before = process.NoStop(), tf.Variable([-0.0, 2])
        team.share([before], stop)
        assert stop.signal == 0 and before.numpy().tobytes() == b"\0\0\0\x80\0\0\0@"


def test_a_replica_has_its_rows_of_everything():
    x = tf.reshape(tf.range(24.0), [6, 4])
    batch = batches.Batch(x, -x, tf.stack([2 * x, 3 * x]))
    mine = batches.rows(batch, 2, 5)
    np.testing.assert_array_equal(mine.x, x[2:5])
    np.testing.assert_array_equal(mine.y, -x[2:5])
    np.testing.assert_array_equal(mine.noise, [2 * x[2:5], 3 * x[2:5]])
    assert batches.rows(batch._replace(y=None), 0, 1).y is None


ENVIRONMENT = ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
CLUSTER = {"chief": ["a:1"], "worker": ["b:2", "c:3"]}


def task(kind, index, cluster=CLUSTER):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "settings, environment, expected",
    [
        (Run(), {}, ([""], 0)),
        (Run(workers="a:1,b:2", worker=1), {}, (["a:1", "b:2"], 1)),
        (Run(), {"TF_CONFIG": task("chief", 0)}, (["a:1", "b:2", "c:3"], 0)),
        (Run(), {"TF_CONFIG": task("worker", 1)}, (["a:1", "b:2", "c:3"], 2)),
        (
            Run(),
            {"TF_CONFIG": task("worker", 1, {"worker": ["b:2", "c:3"]})},
            (["b:2", "c:3"], 1),
        ),
        (Run(mode="report", workers="a:1,b:2"), {}, ([""], 0)),
        (Run(mode="report"), {"TF_CONFIG": task("worker", 1)}, ([""], 0)),
        (
            Run(),
            {
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_PROCID": "1",
                "SLURM_STEP_NODELIST": "n[1-2]",
                "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
            },
            (["n1:8888", "n2:8888"], 1),
        ),
    ],
    ids=[
        "none",
        "flags",
        "a chief",
        "after a chief",
        "workers",
        "a report",
        "its flags",
        "slurm",
    ],
)
def test_processes_are_named_by_flags_or_schedulers(
    settings, environment, expected, monkeypatch
):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert replicas._cluster(settings) == expected


def test_a_worker_that_is_none_of_them_is_refused():
    with pytest.raises(UserError, match="--worker=2: expected one of --workers"):
        replicas.Team(Run(mode="evaluate", workers="a:1,b:2", worker=2))


def test_logical_devices_come_before_tensorflows_first_work():
    """Else they are refused in a line, as in a notebook at the second run."""
    tf.constant(0)
    with pytest.raises(UserError, match="^--logical_cpus=3: .*: start Python anew$"):
        replicas.Team(Run(logical_cpus=3, devices="all"))


def test_a_mode_of_one_process_refuses_workers(trained):
    """At once, without waiting for the others."""
    with pytest.raises(UserError, match="--workers is not used by --mode=generate"):
        here = dict(run_dir=trained["run_dir"], workers="a:1,b:2")
        run(here, mode="generate")


NO_CLUSTERS = {
    "cut": "{",
    "a number": '{"cluster": 3}',
    "a task that is a number": '{"cluster": {"worker": ["a:1"]}, "task": 5}',
    "no index": task("worker", "x"),
    "numbered": task("worker", 0, {"worker": {"1": "h:1"}}),
    "none of two": task("worker", 2),
    "none of one": task("worker", 3, {"worker": ["a:1"]}),
    "below": task("worker", -2),
    "another kind": task("ps", 0),
}


@pytest.mark.parametrize("text", NO_CLUSTERS.values(), ids=NO_CLUSTERS)
def test_a_scheduler_that_names_no_cluster_is_refused(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG or SLURM"):
        replicas._cluster(Run())


# --- What all have alike --------------------------------------------------------------


def member(chiefs, others=0):
    """Worker 1 of two, beside a chief that has `chiefs`; `others` of all differ."""
    team = object.__new__(replicas.Team)
    team.count, team.index, team.chief, team.hosts = 2, 1, False, ["a:1", "b:2"]
    team.strategy, team._chiefs = None, lambda value: chiefs
    team.sum = lambda array: array + others
    return team


def test_what_differs_from_the_chief_is_named():
    chiefs = {"--seed": 0, "--filters": [3, 4], "program": "x"}
    member(chiefs).expect_same({"--seed": 0, "--filters": (3, 4)})
    with pytest.raises(UserError, match=r"worker \[1\] .*\(--seed: 3, not 0\)"):
        member(chiefs).expect_same({"--seed": 3, "program": "x"})
    with pytest.raises(UserError, match=r"worker \[1\] .*it says in what"):
        member(chiefs, others=np.array([0, 1])).expect_same({"--seed": 0})


def test_weights_that_drift_apart_are_seen():
    weights = {"w": tf.Variable([1.0, 2.0])}
    digest = hashlib.sha256(np.float32([1, 2]).tobytes()).hexdigest()[:12]
    token = replicas._team.set(member({"the weights": digest}))
    try:
        replicas.expect_equal(weights)
        weights["w"].assign([1.0, 2.0000002])
        with pytest.raises(UserError, match="the weights"):
            replicas.expect_equal(weights)
    finally:
        replicas._team.reset(token)


def test_what_may_differ_stays_a_workers_own():
    """All else is the chief's, as the run's own model is in evaluation."""
    asked = Settings(run=Run(worker=1), data=Data(data_dir="here"))
    chiefs = asked._replace(model=Model(latent_dim=9), data=Data(data_dir="there"))
    team = member(settings_of.values_of(chiefs))
    team.expect_same = lambda own: None
    found = team.settings(None, asked, {"data_dir"})
    assert found.model.latent_dim == 9 and found.run.worker == 1
    assert found.data == asked.data
    assert team.settings(None, asked, set()).data == chiefs.data


def test_a_batch_has_an_image_for_each_replica():
    team = member({})
    team.strategy, team.expect_same = SimpleNamespace(num_replicas_in_sync=3), print
    asked = settings_of.of_values({"batch_size": 2})
    with pytest.raises(UserError, match="^--batch_size=2: expected one for each"):
        team.settings(None, asked, set())


def test_a_request_to_stop_one_is_one_to_all():
    stop, team = process.NoStop(), member({}, others=np.array([15, 0]))
    team.share([], stop)
    assert stop.signal == 15 == stop.asked


def test_a_state_is_the_chiefs_bit_for_bit(monkeypatch):
    """The sign of a zero and the smallest numbers too."""
    state = [tf.Variable([[0.0, -0.0, 5.0]]), tf.Variable(7, dtype=tf.int64)]
    chiefs = [np.float32([[-0.0, 3, 1e-45]]), np.int64(9)]
    team, sent = member({}), iter(chiefs)

    def plus_the_chiefs(array):
        assert array.dtype == np.int32 and not array.any()
        return array + np.atleast_1d(next(sent)).view(np.int32)

    monkeypatch.setattr(team, "sum", plus_the_chiefs)
    team.share(state, process.NoStop())
    assert [v.numpy().tobytes() for v in state] == [a.tobytes() for a in chiefs]


# --- Equal ----------------------------------------------------------------------------


def ports(count):
    """HOST:PORT of so many free ports, joined."""
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in found)


def replicated(out, *runs):
    """A process of `tests.replicated`."""
    texts = map(json.dumps, runs)
    return program(str(out), *texts, script=("-m", "tests.replicated"))


def ended(processes):
    """(exit code, output, errors) of each."""
    return [(p, *p.communicate(timeout=300)) for p in processes]


def read(out, number=0):
    with np.load(f"{out}-{number}.npz") as file:
        arrays = dict(file)
    return arrays.pop("rows").tolist(), arrays


def assert_near(found, expected):
    """All weights, moments and sums, in float64."""
    assert found.keys() == expected.keys() and len(found) > 30
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], 1e-9, 1e-10, name)


ONE = {"logical_cpus": 4}
TWO = ONE | {"devices": "2"}
SINGLE = {"dtype": "float32", "epochs": 1}
STEP = SINGLE | {"batch_size": 2500}  # one step
RUNS = {
    "one": ONE,
    "two": TWO,
    "four": ONE | {"devices": "all"},
    "again": TWO,
    "xla": TWO | {"jit": True},
    "single one": ONE | SINGLE,
    "single two": TWO | SINGLE,
    "step one": ONE | STEP,
    "step two": TWO | STEP,
}


@pytest.fixture(scope="module")
def devices(tmp_path_factory):
    """{name: (rows, arrays)} of what logical devices gave, for each of RUNS."""
    out = tmp_path_factory.mktemp("devices") / "out"
    ((ran, _, errors),) = ended([replicated(out, *RUNS.values())])
    assert ran.returncode == 0, errors
    return {name: read(out, number) for number, name in enumerate(RUNS)}


@pytest.mark.slow
@pytest.mark.parametrize("name, cuts", [("two", [25, 25]), ("four", [12, 12, 13, 13])])
def test_devices_give_what_one_gives(devices, name, cuts):
    """Each computes its rows of every batch, and no others: all of them would give the
    same."""
    rows, found = devices[name]
    assert sorted(rows) == sorted(cuts)
    assert devices["one"][0] == [50]
    assert_near(found, devices["one"][1])


@pytest.mark.slow
def test_xla_compiles_the_parts_of_a_step(devices):
    assert_near(devices["xla"][1], devices["one"][1])


@pytest.mark.slow
def test_the_same_devices_give_the_same_bits(devices):
    once, again = devices["two"][1], devices["again"][1]
    for name in once:
        np.testing.assert_array_equal(once[name], again[name], name)


@pytest.mark.slow
def test_float32_agrees_to_its_rounding(devices):
    """The first gradient, which is ten times Adam's first moment, and an epoch's loss;
    later weights do not: Adam makes a whole step of a rounding near zero."""
    one, two = (devices[f"step {name}"][1] for name in ("one", "two"))
    for i in range(8, 16):
        scale = np.max(np.abs(one[f"{i:02}"]))
        np.testing.assert_allclose(two[f"{i:02}"], one[f"{i:02}"], 0, 1e-5 * scale)
    one, two = (devices[f"single {name}"][1]["33"] for name in ("one", "two"))
    assert one[0] == pytest.approx(two[0], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_processes_give_what_one_gives(devices, count, tmp_path):
    """Each with its rows; the weights begin as the chief's."""
    workers = ports(count)
    runs = [dict(workers=workers, worker=i) for i in range(count)]
    started = [replicated(tmp_path / f"{i}", run) for i, run in enumerate(runs)]
    for ran, _, errors in ended(started):
        assert ran.returncode == 0, errors
    found = [read(tmp_path / f"{i}") for i in range(count)]
    assert [{*rows} for rows, _ in found] == [
        {50 * (i + 1) // count - 50 * i // count} for i in range(count)
    ]
    for _, arrays in found:
        assert_near(arrays, devices["one"][1])
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], found[0][1][name], name)


# --- The program ----------------------------------------------------------------------


def start(settings, count=2, **changes):
    """The program as `count` workers; `changes` are of the last one's flags."""
    workers, started = ports(count), []
    for i in range(count):
        own = settings | dict(workers=workers, worker=i)
        own |= changes if i == count - 1 else {}
        started.append(program(*as_arguments(own)))
    return started


def until_trained(worker, epochs=1):
    """Read the chief's lines until it has trained so many epochs."""
    for line in worker.stdout:
        if line.startswith(f"epoch {epochs}/"):
            return


def assert_one_line(errors):
    assert re.fullmatch(r"error: [^\n]+\n", errors), errors


@pytest.fixture(scope="module")
def pair(data_dir, tmp_path_factory):
    """(settings, what the chief said, what the other said) of a run by two workers."""
    settings = small_settings(data_dir, tmp_path_factory.mktemp("pair") / "run")
    settings |= dict(epochs=60, importance_samples=100, evaluation_images=45)
    (chief, said, errors), (other, little, more) = ended(start(settings))
    assert (chief.returncode, other.returncode) == (0, 0) and errors == more == ""
    return settings, said, little


@pytest.mark.slow
def test_the_chief_alone_has_folder_and_screen(pair, tmp_path):
    settings, said, little = pair
    assert "epoch 60/60" in said and "-log p(x)" in said
    assert little.count("\n") == 2 and "Worker 1" in little  # and TensorFlow's import
    assert len(timeless(settings["run_dir"])) == 60


@pytest.mark.slow
def test_each_worker_has_its_images_of_log_p(pair):
    """And the numbers of all are in the chief's file."""
    settings, _, _ = pair
    folder = Path(settings["run_dir"])
    (path,) = folder.glob("evaluations/*.npz")
    together = files.read_arrays(path)["log_p"]
    assert len(together) == 45
    (folder / "evaluations.jsonl").unlink()  # or it would be read again
    names = "run_dir", "evaluation_images", "importance_samples", "figures"
    run({name: settings[name] for name in names}, mode="evaluate")
    np.testing.assert_array_equal(files.read_arrays(path)["log_p"], together)


@pytest.mark.slow
def test_a_stop_of_any_worker_stops_all_and_they_go_on_in_the_same_bits(pair, tmp_path):
    """From the middle of an epoch, if the signal came there."""
    straight, _, _ = pair
    settings = straight | dict(run_dir=str(tmp_path / "run"))
    chief, other = start(settings)
    until_trained(chief)
    other.send_signal(signal.SIGTERM)
    (_, said, errors), (_, _, more) = ended([chief, other])
    assert errors == more == "" and "Stopped. Run:" in said
    assert {chief.returncode, other.returncode} == {128 + signal.SIGTERM}
    for ran, _, errors in ended(start(settings)):
        assert ran.returncode == 0, errors
    one, two = (newest_checkpoint(s["run_dir"]) for s in (settings, straight))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], name)


@pytest.mark.slow
def test_a_killed_worker_ends_all_with_a_line_and_they_go_on(small):
    small |= dict(epochs=3000)
    chief, other = start(small)
    until_trained(chief)
    other.kill()
    begun = time.monotonic()
    errors = chief.communicate(timeout=90)[1]
    other.communicate()
    assert time.monotonic() - begun < 90
    assert_one_line(errors)
    assert "worker 1 (127.0.0.1:" in errors and "has ended" in errors
    epochs = len(timeless(small["run_dir"]))
    for ran, said, errors in ended(start(small | dict(epochs=epochs + 1))):
        assert ran.returncode == 0, errors
        assert f"epoch {epochs + 1}/" in said or "Worker 1" in said


@pytest.mark.slow
def test_a_worker_with_other_flags_ends_all_with_a_line(small):
    for ran, _, errors in ended(start(small, seed=4)):
        assert ran.returncode == 1
        assert_one_line(errors)
        assert "worker 1" in errors or "worker [1]" in errors
