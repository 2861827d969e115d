"""Every flag, once: default, bounds, help. Nothing else knows absl.flags."""

import dataclasses
import os
import sys

from absl import flags

POSITIVE = {"lower_bound": 1}


def _option(default, help, *, choices=None, of_run=False, of_model=False, **bounds):
    """A field of `Config` and the flag that sets it.

    `of_run` marks what shapes a run's data or randomness, `of_model` its model: a run
    keeps both.
    """
    metadata = dict(help=help, choices=choices, bounds=bounds, of_model=of_model)
    metadata["of_run"] = of_run or of_model
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags' values, by what they are about."""

    mode: str = _option(
        "train",
        "train (or go on), evaluate a trained run, or generate digits from it",
        choices=["train", "evaluate", "generate"],
    )
    run_dir: str = _option("checkpoints/default", "folder that holds all of the run")
    resume: str = _option(
        "auto",
        "go on from the run folder's checkpoint: if there is one (auto); never, "
        "and refuse a folder that has one; always, and refuse one without (required)",
        choices=["auto", "never", "required"],
    )
    start_from: str = _option(
        "",
        "folder of a run of the same model: a new run begins with its newest weights "
        "(their average, if it has one), and with nothing else of it",
        of_run=True,
    )
    epochs: int = _option(30, "epochs in total, resumed ones included", **POSITIVE)
    seed: int = _option(
        0, "of every random number", of_run=True, lower_bound=0, upper_bound=2**31 - 1
    )

    dataset: str = _option(
        "auto",
        "mnist and fashion_mnist are downloaded once; synthetic is built in; auto is "
        "mnist where it can be had, else synthetic",
        choices=["auto", "mnist", "fashion_mnist", "synthetic"],
    )
    data_dir: str = _option("", "folder with four IDX files, read instead of --dataset")
    validation_size: int = _option(
        5000, "training images held out, from the end", of_run=True, lower_bound=0
    )
    binarization: str = _option(
        "dynamic",
        "pixels are drawn anew at every visit (dynamic), drawn once (static), cut at "
        "one half (threshold), or grey (none: the loss is then no likelihood)",
        choices=["dynamic", "static", "threshold", "none"],
        of_run=True,
    )

    architecture: str = _option(
        "dense",
        "between image and latents: matrices of --hidden_sizes, or convolutions of "
        "--filters (28x28 to 14x14 to 7x7 and back)",
        choices=["dense", "conv"],
        of_model=True,
    )
    hidden_sizes: tuple[int, ...] = _option(
        (512, 256), "widths of the encoder; the decoder mirrors it", of_model=True
    )
    filters: tuple[int, ...] = _option(
        (32, 64),
        "of the two convolutions; the decoder has the second first",
        of_model=True,
    )
    latent_dim: int = _option(2, "dimensions of z", of_model=True, **POSITIVE)
    stochastic_layers: int = _option(
        1, "layers of latents: 1, or 2", of_model=True, lower_bound=1, upper_bound=2
    )
    latent_dims: tuple[int, ...] = _option(
        (100, 50), "of two layers, instead of --latent_dim, lower first", of_model=True
    )
    upper_hidden_sizes: tuple[int, ...] = _option(
        (100, 100), "widths between two layers of latents", of_model=True
    )
    conditional: bool = _option(
        False, "give the labels to encoder and decoder: p(x|y)", of_model=True
    )
    activation: str = _option(
        "relu",
        "between layers",
        choices=["relu", "tanh", "gelu", "silu"],
        of_model=True,
    )

    batch_size: int = _option(50, "images in a step", of_run=True, **POSITIVE)
    objective: str = _option(
        "elbo", "what the samples are combined to: their mean, or the IWAE bound",
        choices=["elbo", "iwae"],
    )  # fmt: skip
    num_samples: int = _option(1, "of z for each image in training", **POSITIVE)
    estimator: str = _option(
        "standard",
        "of the gradient: reparameterized; sticking the landing (stl, of the elbo); "
        "doubly reparameterized (dreg, of iwae)",
        choices=["standard", "stl", "dreg"],
    )
    beta: float = _option(1.0, "weight of the KL in the loss")
    warmup_epochs: int = _option(
        0, "in which the KL's weight rises from 0 to --beta", lower_bound=0
    )
    free_bits: float = _option(
        0.0, "nats that each latent dimension's mean KL counts for at least"
    )
    learning_rate: float = _option(1e-3, "Adam's alpha")
    learning_rate_schedule: str = _option(
        "constant", "cosine falls to 0 over --epochs", choices=["constant", "cosine"]
    )
    beta1: float = _option(0.9, "decay of Adam's first moment, in [0, 1)")
    beta2: float = _option(0.999, "decay of Adam's second moment, in [0, 1)")
    epsilon: float = _option(1e-8, "Adam's epsilon, outside the root")
    clip_norm: float = _option(0.0, "bound on the norm of all gradients; 0 for none")
    ema_decay: float = _option(
        0.0,
        "evaluate and draw with the weights' moving average; 0 for none",
        of_run=True,
    )
    jit: bool = _option(
        True,
        "compile training and -log p(x) with XLA; --nojit for plain graph mode, in "
        "which convolutions always run",
    )
    eager: bool = _option(False, "run step by step, for a debugger (slow)")

    checkpoint_every: int = _option(1, "epochs between checkpoints", **POSITIVE)
    keep_checkpoints: int = _option(3, "newest checkpoints kept", **POSITIVE)
    importance_samples: int = _option(
        0, "for -log p(x) of each evaluated image, such as 5000; 0 for none",
        lower_bound=0,
    )  # fmt: skip
    bfloat16: bool = _option(
        False,
        "multiply the matrices of -log p(x) in bfloat16, a fifth faster on a processor "
        "with AVX512_BF16; the result moved by 0.002 nats where that was measured",
    )
    evaluation_images: int = _option(
        0, "evaluate the first so many only; 0 for all", lower_bound=0
    )
    evaluation_split: str = _option(
        "test", "the images to evaluate on", choices=["test", "validation"]
    )
    figures: bool = _option(True, "draw figures at the end; --nofigures for none")
    num_images: int = _option(100, "digits that --mode=generate draws", **POSITIVE)
    digit: int = _option(
        -1, "the class that --mode=generate draws, of a --conditional run; -1 for all",
        lower_bound=-1, upper_bound=9,
    )  # fmt: skip

    @property
    def xla(self) -> bool:
        """Whether XLA compiles training and -log p(x): matrices yes, convolutions no,
        whose gradients are 16 times as fast by TensorFlow's own kernels on a CPU."""
        return self.jit and not self.eager and self.architecture == "dense"

    @property
    def latents(self) -> tuple[int, ...]:
        """The dimensions of each layer of latents."""
        return self.latent_dims if self.stochastic_layers == 2 else (self.latent_dim,)


FIELDS = {field.name: field for field in dataclasses.fields(Config)}
SIZES = [name for name, field in FIELDS.items() if type(field.default) is tuple]
OF_RUN = [name for name, field in FIELDS.items() if field.metadata["of_run"]]
OF_MODEL = [name for name, field in FIELDS.items() if field.metadata["of_model"]]
OF_LOSS = ["objective", "num_samples", "estimator", "beta", "warmup_epochs"]
OF_LOSS += ["free_bits"]


def _define():
    for name, field in FIELDS.items():
        help, choices, bounds = (
            field.metadata[key] for key in ("help", "choices", "bounds")
        )
        if choices:
            flags.DEFINE_enum(name, field.default, choices, help)
        elif field.type is bool:
            flags.DEFINE_bool(name, field.default, help)
        elif field.type is int:
            flags.DEFINE_integer(name, field.default, help, **bounds)
        elif field.type is float:
            flags.DEFINE_float(name, field.default, help)
        elif field.type is str:
            flags.DEFINE_string(name, field.default, help)
        else:
            flags.DEFINE_list(name, [str(n) for n in field.default], help)
    for name in SIZES:
        pair = name in ("filters", "latent_dims")
        _require(
            name,
            lambda sizes, pair=pair: (
                (len(sizes) == 2 if pair else sizes)
                and all(n.isdecimal() and int(n) > 0 for n in sizes)
            ),
            f"{'two ' if pair else ''}positive sizes joined by commas, such as 512,256",
        )
    _require("learning_rate", lambda x: 0 < x < float("inf"), "a positive number")
    for name in ("beta1", "beta2", "ema_decay"):
        _require(name, lambda beta: 0 <= beta < 1, "a number in [0, 1)")
    for name in ("epsilon", "clip_norm", "beta", "free_bits"):
        _require(name, lambda x: 0 <= x < float("inf"), "a finite number, at least 0")
    for folder in ("run_dir", "start_from"):
        _require(
            folder,
            lambda name, folder=folder: (
                (name or folder == "start_from") and not set(name) & set("*?[]\\\0")
            ),
            r"a folder's name, without any of * ? [ ] \ (TensorFlow matches patterns)",
        )


def _require(name, is_good, expected):
    flags.register_validator(name, is_good, f"expected {expected}")


_define()


def parse(argv: list[str]) -> None:
    """Parse the command line, or print one line and exit with 2."""
    for name in FIELDS:  # so that --help of the program lists them
        flags.FLAGS.register_key_flag_for_module(argv[0], flags.FLAGS[name])
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise flags.Error(
                f"unexpected {rest[1]!r}: every setting is a --flag=value"
            )
        if {"dataset", "data_dir"} <= given():
            raise flags.Error("--data_dir is read instead of --dataset: give one")
        if flags.FLAGS.mode == "train":  # else the run's flags count: see `settle`
            check(config(), given())
    except (flags.Error, ValueError, OSError, RecursionError) as error:
        message = " ".join(str(error).split()).encode("ascii", "backslashreplace")
        print(f"error: {message.decode()} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)


def check(config: Config, given: set[str]) -> None:
    """Raise ValueError, with the reason, if flags contradict each other."""
    two, conv = config.stochastic_layers == 2, config.architecture == "conv"
    iwae, estimator = config.objective == "iwae", config.estimator
    grey = config.binarization == "none"
    without_meaning = {
        "--eager runs without XLA: leave out --jit": (
            config.eager and "jit" in given and config.jit
        ),
        "--latent_dim is of one layer: give both sizes in --latent_dims": (
            two and "latent_dim" in given
        ),
        "--latent_dims and --upper_hidden_sizes are of --stochastic_layers=2": (
            not two and {"latent_dims", "upper_hidden_sizes"} & given
        ),
        "--hidden_sizes are of --architecture=dense: give --filters": (
            conv and "hidden_sizes" in given
        ),
        "--architecture=conv runs without XLA, which would slow it down: leave out "
        "--jit": conv and "jit" in given and config.jit,
        "--filters are of --architecture=conv": not conv and "filters" in given,
        "--estimator=stl is biased for the IWAE bound: use dreg": (
            iwae and estimator == "stl"
        ),
        "--estimator=dreg is of --objective=iwae: for the elbo, use stl": (
            not iwae and estimator == "dreg"
        ),
        "--estimator=dreg is derived for the unweighted bound: leave out "
        "--warmup_epochs": config.warmup_epochs and estimator == "dreg",
        "--objective=iwae bounds log p(x) for --beta=1 alone": (
            iwae and config.beta != 1
        ),
        "--free_bits are a floor under the KL of each dimension, of which "
        "--objective=iwae and --estimator=stl make no separate term": (
            config.free_bits and (iwae or estimator == "stl")
        ),
        "grey pixels (--binarization=none) have no likelihood: leave out "
        "--objective=iwae and --importance_samples": (
            grey and (iwae or config.importance_samples)
        ),
        "--bfloat16 is of dense networks: leave it out": conv and config.bfloat16,
        "--bfloat16 is of -log p(x): give --importance_samples": (
            "bfloat16" in given and config.bfloat16 and not config.importance_samples
        ),
        "--digit is of --mode=generate": config.digit >= 0
        and config.mode != "generate",
        "--digit needs a run that was trained with --conditional": (
            config.digit >= 0 and not config.conditional
        ),
        "--evaluation_split=validation needs validation images, and "
        "--validation_size=0 holds out none": (
            config.evaluation_split == "validation" and not config.validation_size
        ),
    }
    for reason, is_so in without_meaning.items():
        if is_so:
            raise ValueError(reason)


def given() -> set[str]:
    """The names of the flags that the user set."""
    return {name for name in FIELDS if flags.FLAGS[name].present}


def config() -> Config:
    """The parsed flags."""
    values = {name: flags.FLAGS[name].value for name in FIELDS}
    sizes = {name: tuple(int(n) for n in values[name]) for name in SIZES}
    if values["data_dir"]:  # a run can go on from any working directory
        values["data_dir"] = os.path.abspath(values["data_dir"])
    return Config(**values | sizes)


def from_record(recorded: dict, run_dir: str) -> Config:
    """The `Config` that `dataclasses.asdict` made a record of, back from JSON.

    A flag that is younger than the run has its default there: what was done before.

    Raises:
      ValueError: it is no such record, or of a later version.
    """
    try:
        if unknown := sorted(set(recorded) - set(FIELDS)):
            raise KeyError(*unknown)
        values = {name: recorded.get(name, FIELDS[name].default) for name in FIELDS}
        past = Config(**values | {name: tuple(values[name]) for name in SIZES})
        for name, field in FIELDS.items():
            if type(getattr(past, name)) is not type(field.default):
                raise TypeError(name)
        for name in SIZES:
            if {type(n) for n in values[name]} != {int}:
                raise TypeError(name)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{run_dir}: expected the flags of a run in its config.json, got "
            f"{error!r}: it is damaged, or of a later version of this program; choose "
            "another folder"
        ) from error
    return past


def settle(config: Config, given: set[str], past: Config) -> Config:
    """The config to use in the folder of a run that was made with other flags.

    Training states every flag, defaults included; the other modes take the run's own
    for those that are not `given`. `past` is the run's.

    Raises:
      ValueError: a flag that shapes the run differs from the run's.
    """
    fixed = OF_RUN
    if config.mode != "train":
        free = {"seed"} if config.mode == "generate" else set()
        fixed = [name for name in OF_RUN if name in given - free]
        stated = {name: getattr(config, name) for name in given | {"mode", "run_dir"}}
        if "dataset" in given:
            stated["data_dir"] = ""
        # A run that was trained with --eager is evaluated so only if asked.
        config = dataclasses.replace(past, **{"eager": False} | stated)
    refuse_others(fixed, config, past, config.run_dir)
    check(config, given)
    return config


def refuse_others(names, config: Config, past: Config, run_dir: str) -> None:
    """Raise ValueError if one of the flags `names` is not as in the run of `past`."""
    differing = [
        f"--{name} (the run: {text(past, name)}, now: {text(config, name)})"
        for name in names
        if getattr(past, name) != getattr(config, name)
    ]
    if differing:
        raise ValueError(
            f"{run_dir} holds a run with other flags: {', '.join(differing)}; choose "
            "another folder, or give the run's values"
        )


def text(config: Config, name: str) -> str:
    """A flag's value as on the command line."""
    value = getattr(config, name)
    return ",".join(map(str, value)) if name in SIZES else str(value) or "none"


def changes(config: Config, past: Config) -> list[str]:
    """The flags, of those that a run may change, whose change changes its numbers."""
    names = [*OF_LOSS, "learning_rate", "learning_rate_schedule", "beta1", "beta2"]
    names += ["epsilon", "clip_norm", "jit", "eager"]
    if "cosine" in (config.learning_rate_schedule, past.learning_rate_schedule):
        names.append("epochs")
    return [
        f"--{name} was {text(past, name)} and is {text(config, name)}"
        for name in names
        if getattr(past, name) != getattr(config, name)
    ]
