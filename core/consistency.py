"""What settings contradict each other, or those of the run that they go on with."""

from core import settings as settings_of
from core.errors import UserError
from core.settings import OF_LOSS, OF_RUN, Adam, Settings, as_text, values_of

MAY_CHANGE = [*OF_LOSS, *vars(Adam()), "jit", "eager", "devices"]
MAY_CHANGE = [name for name in MAY_CHANGE if name not in OF_RUN]
OWNERS = {  # a setting -> another, and the values of that to which it belongs
    "latent_dim": ("stochastic_layers", [1]),
    "latent_dims": ("stochastic_layers", [2]),
    "upper_hidden_sizes": ("stochastic_layers", [2]),
    "hidden_sizes": ("architecture", ["dense"]),
    "filters": ("architecture", ["conv"]),
    "prior_components": ("prior", ["mixture", "vamp"]),
    "flow_layers": ("prior", ["flow"]),
    "flow_units": ("prior", ["flow"]),
}


def check(settings: Settings, typed=frozenset()) -> None:
    """Raise UserError, with the reason, if settings contradict each other, or if one
    that a user `typed` has no meaning beside the others."""
    values = values_of(settings)
    for name in settings_of.FOLDERS:
        if name in typed and not values[name]:
            raise settings_of.refusal(name, "")
    for name, (owner, needed) in OWNERS.items():
        if name in typed and values[owner] not in needed:
            owned = " or ".join(f"--{owner}={value}" for value in needed)
            raise UserError(f"--{name} is of {owned}: give both, or none")
    for reason, is_so in _contradictions(settings, typed).items():
        if is_so:
            raise UserError(reason)


def _contradictions(settings: Settings, typed) -> dict:
    """{reason: whether it holds}."""
    run, data, model, _, loss, adam, evaluation, show = settings
    iwae, grey = loss.objective == "iwae", data.binarization == "none"
    stl, dreg = loss.estimator == "stl", loss.estimator == "dreg"
    conv = model.architecture == "conv"
    held_out = data.validation_size or evaluation.evaluation_split != "validation"
    bfloat16, samples = evaluation.bfloat16, evaluation.importance_samples
    return {
        "--eager runs without XLA: leave out --jit": (
            "jit" in typed and run.jit and run.eager
        ),
        "--data_dir is read instead of --dataset, which may say no more beside it than "
        "mnist: give one": data.dataset != "mnist" and typed >= {"dataset", "data_dir"},
        "--bfloat16 is of -log p(x): give --importance_samples": (
            "bfloat16" in typed and bfloat16 and not samples
        ),
        "--bfloat16 is of dense networks: leave it out": bfloat16 and conv,
        "--bfloat16 needs XLA: leave out --nojit": bfloat16 and not run.jit,
        "--weight_decay times --learning_rate is what a step takes of a weight: give "
        "less than 1 of it": adam.weight_decay * adam.learning_rate >= 1,
        "--estimator=stl is biased for the IWAE bound: use dreg": stl and iwae,
        "--estimator=dreg is of iwae: for the elbo, use stl": dreg and not iwae,
        "--estimator=dreg is derived for the unweighted bound: leave out "
        "--warmup_epochs": dreg and loss.warmup_epochs,
        "--objective=iwae bounds log p(x) for --beta=1 alone": iwae and loss.beta != 1,
        "--free_bits are a floor under the KL of each dimension: leave out iwae, stl": (
            loss.free_bits and (iwae or stl)
        ),
        "grey pixels (--binarization=none) have no likelihood: leave out "
        "--objective=iwae and --importance_samples": grey and (iwae or samples),
        **_of_priors(model, bfloat16),
        **_of_replicas(run, loss.free_bits),
        "--digit needs a run that was trained with --conditional": (
            show.digit >= 0 and not model.conditional
        ),
        **_of_showing(run.mode, show, typed),
        "--evaluation_split=validation needs validation images, not "
        "--validation_size=0": not held_out,
    }


def _of_showing(mode: str, show, typed) -> dict:
    """{reason: whether it holds}, of what is drawn or encoded."""
    chosen = show.z, show.interpolate, typed & {"num_images", "temperature"}
    needless = show.interpolate and show.digit >= 0
    one, no_mode = sum(map(bool, chosen)), bool(show.images) != (mode == "encode")
    return {
        "--num_images and --temperature are of samples, --z and --interpolate of others"
        ": leave out some": one > 1,
        "--interpolate has its images' labels: leave out --digit": needless,
        "--images is of --mode=encode, which needs it": no_mode,
    }


def _of_priors(model, bfloat16: bool) -> dict:
    """{reason: whether it holds}, of learned priors."""
    vamp, flow = model.prior == "vamp", model.prior == "flow"
    return {
        "--prior=vamp is not made for labels: leave out --conditional": (
            vamp and model.conditional
        ),
        "--prior=vamp is not rounded: leave out --bfloat16": vamp and bfloat16,
        "--prior=flow moves half of the dimensions by the other: give it 2 or more": (
            flow and model.latents[-1] < 2
        ),
    }


def _of_replicas(run, free_bits: float) -> dict:
    """{reason: whether it holds}, of many devices and many processes."""
    several = run.processes > 1
    return {
        f"--worker={run.worker}: --workers are {run.processes}, counted from 0": (
            run.worker >= run.processes
        ),
        "--devices are of one process: leave out --workers": several and run.devices,
        "--free_bits need the mean over the whole batch: leave out --devices, "
        "--workers": free_bits and (several or run.devices),
    }


def given(asked: Settings) -> set[str]:
    """The names of settings that must have been given: what the mode uses of those that
    are not as by default. None for training, which states every setting."""
    if asked.run.mode == "train":
        return set()
    values, plain = values_of(asked), values_of(Settings())
    return {n for n in settings_of.used_by(asked.run.mode) if values[n] != plain[n]}


def going_on(past: Settings | None, asked: Settings, typed: set[str]) -> Settings:
    """The settings to use in a folder whose run has those of `past`; None: it has none.

    Training states every setting, defaults included; the other modes take the run's
    own for those that were not `typed`.

    Raises:
      UserError: a setting that shapes the run differs from the run's.
    """
    mode, values, kept, settings = asked.run.mode, values_of(asked), OF_RUN, asked
    follows = past and mode != "train"
    own = values_of(past if follows else Settings())
    form = f"--{{}} is not used by --mode={mode}: leave it out"
    form += " (the run has {}, not {})" * bool(follows)
    unused = differences(form, sorted(typed - settings_of.used_by(mode)), own, values)
    if unused:
        raise UserError(unused[0])
    if follows:
        kept = [name for name in OF_RUN if name in typed - {"seed"}]
        stated = {name: values[name] for name in typed | {"mode", "run_dir"}}
        if "dataset" in typed and past.data.dataset != asked.data.dataset:
            stated = {"data_dir": ""} | stated
        # A run that was trained with --eager is evaluated so only if asked.
        here = {name: values[name] for name in ("eager", "workers", "worker")}
        settings = settings_of.of_values(own | here | stated)
    if past:
        refuse_others(kept, values_of(past), values_of(settings), asked.run.run_dir)
    check(settings, typed)
    return settings


def refuse_others(names, past: dict, now: dict, run_dir: str) -> None:
    """Raise UserError if one of `names` has another value `now` than in `past`."""
    differing = differences("--{} (the run: {}, now: {})", names, past, now)
    if differing:
        raise UserError(
            f"{run_dir} holds a run with other flags: {', '.join(differing)}; choose "
            "another folder, or give the run's values"
        )


def changes(past: Settings | None, now: Settings) -> list[str]:
    """What has changed since `past` (None for a new run) and moves a run's numbers."""
    past = past or now
    schedules = {past.adam.learning_rate_schedule, now.adam.learning_rate_schedule}
    names = MAY_CHANGE + ["epochs"] * ("cosine" in schedules)
    names += ["workers"] * (past.run.processes != now.run.processes)
    return differences("--{} was {} and is {}", names, values_of(past), values_of(now))


def differences(form: str, names, past: dict, now: dict) -> list[str]:
    """`form` of the name, the past and the present value of each that differs."""
    return [
        form.format(name, as_text(past[name]) or "none", as_text(now[name]) or "none")
        for name in names
        if past[name] != now[name]
    ]
