"""Devices and processes that train as one: all that knows of tf.distribute.

Each replica takes its rows of every batch, with their rows of the noise. What they
compute is summed as one flat vector; then every process changes weights of its own in
the same way. The first process is the chief: it alone has the run's folder and the
screen, and sends the others what it read.
"""

import contextlib
import contextvars
import dataclasses
import json
import math
import os

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy
from tensorflow.python.eager import context

from core import consistency
from core import settings as settings_of
from core.data import batches
from core.errors import UserError
from core.progress import say
from core.training import state as states
from core.training.objective import Losses

COMING = 45  # seconds in which all processes have to come
OWN = "worker", "data_dir"  # settings that may differ from the chief's
_team = contextvars.ContextVar("team", default=None)  # that this program is

# --- Steps ----------------------------------------------------------------------------


def compiled(train_block, jit: bool):
    """A block of steps as one compiled function. XLA has no exchange on a CPU: with
    replicas the block is a graph, and each `part` of it is compiled."""
    if team := _team.get():
        team.jit = jit
    return tf.function(train_block, jit_compile=jit and not team)


def part(function):
    """A function as it is; compiled by itself where its block cannot be."""
    team = _team.get()
    return tf.function(function, jit_compile=True) if team and team.jit else function


def sum_over(gradients_of, model, params, batch, loss_settings, kl_weight):
    """`gradients_of(model, params, batch, loss_settings, kl_weight)` -> `Losses` and
    gradients, by all replicas: the means of each count as its share of the rows."""
    team, images = _team.get(), batch.x.shape[0]
    if not team:
        return gradients_of(model, params, batch, loss_settings, kl_weight)
    count, weights = team.strategy.num_replicas_in_sync, tf.nest.flatten(params)
    values = tf.nest.map_structure(tf.convert_to_tensor, params)

    @part  # here: each replica has a thread of its own, which knows of no team
    def share_of(values, batch, kl_weight):
        losses, grads = gradients_of(model, values, batch, loss_settings, kl_weight)
        numbers = tf.concat([tf.reshape(n, [-1]) for n in (*losses, *grads)], axis=0)
        return numbers * (batch.x.shape[0] / images)

    def of_replica():
        first, last = (images * i // count for i in (_replica(), _replica() + 1))
        return share_of(values, batches.rows(batch, first, last), kl_weight)

    total = team.strategy.reduce("SUM", team.strategy.run(of_replica), axis=None)
    shapes = [()] * len(Losses._fields) + [tuple(w.shape) for w in weights]
    parts = tf.split(total, [math.prod(shape) for shape in shapes])
    parts = [*map(tf.reshape, parts, shapes)]
    return Losses(*parts[: -len(weights)]), parts[-len(weights) :]


def _replica() -> int:
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    return int(tf.get_static_value(number))


def expect_equal(state) -> None:
    """Raise UserError if processes have other weights than the chief, as by processors
    that round differently: what they sum would be of no one model."""
    if team := _team.get():
        team.expect_same({"the weights": states.digest(state)})


# --- Processes ------------------------------------------------------------------------


class Team(contextlib.ExitStack):
    """The processes of a run, one if no more are named; what is done while it is open
    is done by all. UserError then: one is gone, or does not answer."""

    def __init__(self, settings):
        """As `settings.Run`, TF_CONFIG or SLURM ask."""
        super().__init__()
        self.hosts, self.index = _cluster(settings)
        self.count, self.chief, self.jit = len(self.hosts), self.index == 0, False
        self.strategy = self._join() if self.count > 1 else _of_devices(settings)
        if self.strategy:
            self.callback(_team.reset, _team.set(self))
        if not self.chief:
            say(f"Worker {self.index} of {self.hosts}: the screen is the chief's.")
            nowhere = self.enter_context(open(os.devnull, "w"))
            self.enter_context(contextlib.redirect_stdout(nowhere))
            os.environ["TQDM_DISABLE"] = "1"

    def _join(self):
        # TensorFlow looks after the others: a stopped one is known in 25 s. Its service
        # of coordination, the default, waits for them for ever, and takes SIGTERM.
        tf.get_logger().setLevel("CRITICAL")
        context.context().configure_coordination_service("")
        health = collective_all_reduce_strategy.CollectiveAllReduceExtended
        health._check_health_interval = health._check_health_retry_limit = 2
        health._check_health_initial_timeout = COMING
        cluster = tf.train.ClusterSpec({"worker": self.hosts})
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            cluster, task_type="worker", task_id=self.index, rpc_layer="grpc"
        )
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
        except (RuntimeError, tf.errors.OpError) as error:
            taken = "gRPC server" in str(error)
            reason = "its port is in use" if taken else "not all the others came"
            here = f"worker {self.index} of {self.hosts}"
            raise UserError(f"{here}: {reason}; start all again") from error

    def __exit__(self, kind, error, trace):
        super().__exit__(kind, error, trace)
        if isinstance(error, tf.errors.OpError) and "ollective" in str(error):
            raise UserError(f"{self._lost() or error}; start all again") from error

    def _lost(self) -> str:
        found = []
        for i, host in enumerate(self.hosts):
            try:
                task = f"/job:worker/replica:0/task:{i}"
                context.context().check_collective_ops_peer_health(task, 5000)
            except tf.errors.OpError as error:
                stopped = isinstance(error, tf.errors.DeadlineExceededError)
                what = "does not answer" if stopped else "has ended"
                found.append(f"worker {i} ({host}) {what}")
        return ", ".join(found)

    def sum(self, array):
        """The sum over processes of a NumPy array of each."""
        return array if self.count == 1 else self._sum(tf.constant(array)).numpy()

    @tf.function  # in half the time: who wants to stop is asked after each block
    def _sum(self, array):
        each = self.strategy.num_replicas_in_sync // self.count

        def once():  # by the first of a process's replicas
            return tf.zeros_like(array) if _replica() % each else tf.identity(array)

        return self.strategy.reduce("SUM", self.strategy.run(once), axis=None)

    def _chiefs(self, value: dict) -> dict:
        """The chief's value: its bytes pass a sum with zeros."""
        content = json.dumps(value).encode() * self.chief
        size = int(self.sum(np.array(len(content))))
        content = np.frombuffer(content.ljust(size, b"\0"), np.uint8).astype(np.int32)
        return json.loads(self.sum(content).astype(np.uint8).tobytes())

    def expect_same(self, own: dict) -> None:
        """Raise UserError, in every process, if one has other values than the chief."""
        own, chiefs = json.loads(json.dumps(own)), self._chiefs(own)
        other = [f"{n}: {own[n]}, not {chiefs[n]}" for n in own if own[n] != chiefs[n]]
        who = self.sum(np.eye(self.count)[self.index] * bool(other)).nonzero()[0]
        if len(who):
            how = "; ".join(other) or "it says in what"
            raise UserError(
                f"worker {who} is unlike the chief ({how}); start all alike"
            )

    def settings(self, past, asked, typed):
        """`consistency.going_on` by the chief, of settings that are asked of all."""
        if self.count > 1:
            here = dict(workers=",".join(self.hosts), worker=self.index)
            asked = asked._replace(run=dataclasses.replace(asked.run, **here))
        own = settings_of.values_of(asked)
        self.expect_same({f"--{name}": own[name] for name in own if name not in OWN})
        images = own["batch_size"]
        if self.strategy and images < self.strategy.num_replicas_in_sync:
            raise UserError(f"--batch_size={images}: expected one for each replica")
        found = consistency.going_on(past, asked, typed) if self.chief else asked
        chiefs = self._chiefs(settings_of.values_of(found))
        own = {name: own[name] for name in OWN if name in {*typed, "worker"}}
        return settings_of.from_record(chiefs | own, asked.run.run_dir)

    def share(self, state, stop) -> None:
        """Give all the chief's state; a request to stop one of them is now one to all,
        which look at it at the same places of the loop."""
        here = np.eye(self.count, dtype=np.int32)[self.index]
        stop.exchange = lambda number: int(self.sum(here * number).max())
        for variable in tf.nest.flatten(state):  # as integers, whose sum is exact
            old = variable.numpy()
            new = self.sum(np.atleast_1d(old).view(np.int32) * self.chief)
            variable.assign(new.view(old.dtype).reshape(old.shape))

    def end(self, function, log_marginal, folder, work) -> None:
        """End a run by the chief's `function`; all help it with log p(x)."""
        *before, run_settings, settings = work
        if self.count > 1 and settings.importance_samples:
            folder.known = {"log_p": self.sum(log_marginal(*work))}
        if self.chief:
            folder.expect_there()
            function(*before, folder, run_settings, settings)


def _of_devices(settings):
    """The strategy of this machine's devices; None for one of them."""
    if settings.devices in ("", "1") and settings.logical_cpus == 1:
        return None
    (cpu,) = tf.config.list_physical_devices("CPU")
    made = [tf.config.LogicalDeviceConfiguration()] * settings.logical_cpus
    try:
        tf.config.set_logical_device_configuration(cpu, made)
    except RuntimeError as error:  # as at the second run in a notebook
        here = f"--logical_cpus={settings.logical_cpus}"
        raise UserError(f"{here}: {error}: start Python anew") from error
    there = tf.config.list_logical_devices
    names = [device.name for device in there("GPU") or there("CPU")]
    count = len(names) if settings.devices == "all" else int(settings.devices or 1)
    if count > len(names):
        raise UserError(f"--devices={count}: expected at most {len(names)}, all here")
    tf.get_logger().setLevel("ERROR")
    return tf.distribute.MirroredStrategy(names[:count]) if count > 1 else None


def _cluster(settings) -> tuple[list[str], int]:
    """All processes as HOST:PORT, the chief first, and the number of this one."""
    of, slurm = tf.distribute.cluster_resolver, "SLURM_STEP_NUM_TASKS" in os.environ
    if settings.mode not in ("train", "evaluate"):
        return [""], 0
    if settings.worker >= settings.processes:
        raise UserError(f"--worker={settings.worker}: expected one of --workers")
    if settings.workers:
        return settings.workers.split(","), settings.worker
    try:
        resolver = of.TFConfigClusterResolver()
        if slurm and "TF_CONFIG" not in os.environ:
            # SLURM itself gives each task its GPUs: none is counted here.
            resolver = of.SlurmClusterResolver(None, 8888, 9999, 1, auto_set_gpu=False)
        jobs = resolver.cluster_spec().as_dict()
        chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
        hosts, before = chiefs + workers or [""], {"chief": 0, "worker": len(chiefs)}
        index = before[resolver.task_type or "worker"] + int(resolver.task_id or 0)
        if not 0 <= index < len(hosts):
            raise ValueError(f"this is process {index} of {len(hosts)}")
        return hosts, index
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise UserError(f"TF_CONFIG or SLURM names no cluster: {error!r}") from error
