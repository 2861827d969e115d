"""What settings contradict each other, or those of the run that they go on with."""

from core.errors import UserError
from core.settings import (
    FOLDERS,
    OF_LOSS,
    OF_RUN,
    Settings,
    as_text,
    of_values,
    refusal,
    used_by,
    values_of,
)

MAY_CHANGE = (*OF_LOSS, "learning_rate", "learning_rate_schedule", "beta1", "beta2")
MAY_CHANGE += ("epsilon", "clip_norm", "jit", "eager")  # and then is said


def check(settings: Settings, typed=frozenset()) -> None:
    """Raise UserError, with the reason, if settings contradict each other.

    `typed` are the names of the flags that a user typed: some have no meaning beside
    others, which matters only where they were asked for.
    """
    for name in FOLDERS:
        if name in typed and not values_of(settings)[name]:
            raise refusal(name, "")
    for reason, is_so in (
        _meaningless(settings, typed) | _contradictions(settings)
    ).items():
        if is_so:
            raise UserError(reason)


def _meaningless(settings: Settings, typed) -> dict:
    """{reason: whether it holds} for what is refused only where it was typed."""
    run, model, evaluation = settings.run, settings.model, settings.evaluation
    two, conv = model.stochastic_layers == 2, model.architecture == "conv"
    of_two = bool({"latent_dims", "upper_hidden_sizes"} & typed)
    jit = run.jit and "jit" in typed
    return {
        "--eager runs without XLA: leave out --jit": run.eager and jit,
        "--latent_dim is of one layer: give both sizes in --latent_dims": (
            two and "latent_dim" in typed
        ),
        "--latent_dims and --upper_hidden_sizes are of --stochastic_layers=2": (
            of_two and not two
        ),
        "--hidden_sizes are of --architecture=dense: give --filters": (
            conv and "hidden_sizes" in typed
        ),
        "--architecture=conv runs without XLA, which would slow it down: leave out "
        "--jit": conv and jit,
        "--filters are of --architecture=conv": not conv and "filters" in typed,
        "--data_dir is read instead of --dataset, which may say no more beside it than "
        "mnist: give one": (
            settings.data.dataset != "mnist" and {"dataset", "data_dir"} <= typed
        ),
        "--bfloat16 is of -log p(x): give --importance_samples": (
            evaluation.bfloat16
            and "bfloat16" in typed
            and not evaluation.importance_samples
        ),
    }


def _contradictions(settings: Settings) -> dict:
    """{reason: whether it holds} for what is refused wherever it comes from."""
    run, data, model, _, objective, _, evaluation, show = settings
    iwae, grey = objective.objective == "iwae", data.binarization == "none"
    stl, dreg = (objective.estimator == name for name in ("stl", "dreg"))
    held_out = data.validation_size or evaluation.evaluation_split != "validation"
    conv, bfloat16 = model.architecture == "conv", evaluation.bfloat16
    return {
        "--estimator=stl is biased for the IWAE bound: use dreg": iwae and stl,
        "--estimator=dreg is of --objective=iwae: for the elbo, use stl": (
            dreg and not iwae
        ),
        "--estimator=dreg is derived for the unweighted bound: leave out "
        "--warmup_epochs": objective.warmup_epochs and dreg,
        "--objective=iwae bounds log p(x) for --beta=1 alone": (
            iwae and objective.beta != 1
        ),
        "--free_bits are a floor under the KL of each dimension, of which "
        "--objective=iwae and --estimator=stl make no separate term": (
            objective.free_bits and (iwae or stl)
        ),
        "grey pixels (--binarization=none) have no likelihood: leave out "
        "--objective=iwae and --importance_samples": (
            grey and (iwae or evaluation.importance_samples)
        ),
        "--bfloat16 is of dense networks: leave it out": conv and bfloat16,
        "--bfloat16 needs XLA: leave out --nojit": bfloat16 and not run.jit,
        "--digit needs a run that was trained with --conditional": (
            show.digit >= 0 and not model.conditional
        ),
        "--evaluation_split=validation needs validation images, and "
        "--validation_size=0 holds out none": not held_out,
    }


def going_on(past: Settings | None, asked: Settings, typed: set[str]) -> Settings:
    """The settings to use in the folder of a run that was made with those of `past`;
    None, in a folder that holds none.

    Training states every setting, defaults included; the other modes take the run's
    own for those that were not `typed`.

    Raises:
      UserError: a setting that shapes the run differs from the run's.
    """
    mode, values = asked.run.mode, values_of(asked)
    unused = typed - used_by(mode)
    if mode == "train":
        refuse_unused(unused, values_of(Settings()), values, mode)
    if past is None:
        check(asked, typed)
        return asked
    kept, settings = OF_RUN, asked
    if mode != "train":
        refuse_unused(unused, values_of(past), values, mode)
        free = {"seed"} if mode == "generate" else set()
        kept = [name for name in OF_RUN if name in typed - free]
        stated = {name: values[name] for name in typed | {"mode", "run_dir"}}
        if "dataset" in typed and past.data.dataset != asked.data.dataset:
            stated = {"data_dir": ""} | stated
        # A run that was trained with --eager is evaluated so only if asked.
        settings = of_values(values_of(past) | {"eager": False} | stated)
    refuse_others(kept, values_of(past), values_of(settings), asked.run.run_dir)
    check(settings, typed)
    return settings


def refuse_unused(names, past: dict, now: dict, mode: str) -> None:
    """Raise UserError if a setting that the mode does not use is not the run's own."""
    for name, before, after in differences(sorted(names), past, now):
        its_own = f" (the run has {before or 'none'}, not {after or 'none'})"
        raise UserError(
            f"--{name} is not used by --mode={mode}: leave it out"
            + its_own * (mode != "train")
        )


def refuse_others(names, past: dict, now: dict, run_dir: str) -> None:
    """Raise UserError if a value of `now` differs from the run's of `past` in one of
    these `names`."""
    differing = [
        f"--{name} (the run: {before or 'none'}, now: {after or 'none'})"
        for name, before, after in differences(names, past, now)
    ]
    if differing:
        raise UserError(
            f"{run_dir} holds a run with other flags: {', '.join(differing)}; choose "
            "another folder, or give the run's values"
        )


def changes(past: Settings | None, now: Settings) -> list[str]:
    """What a run may change and has changed since `past` (None for a new run), where it
    moves its numbers."""
    if past is None:
        return []
    names = MAY_CHANGE
    if "cosine" in {each.adam.learning_rate_schedule for each in (past, now)}:
        names += ("epochs",)
    return [
        f"--{name} was {before} and is {after}"
        for name, before, after in differences(names, values_of(past), values_of(now))
    ]


def differences(names, past: dict, now: dict):
    """[(name, value in `past`, value `now`), as texts] of the `names` that differ."""
    return [
        (name, as_text(past[name]), as_text(now[name]))
        for name in names
        if past[name] != now[name]
    ]
