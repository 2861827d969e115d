"""Every setting once: default, bounds, help, and what of it a run keeps.

A group of settings is a small frozen record, and a parameter of the functions that use
it. A record refuses values that cannot work when it is made, from Python as from the
command line; `consistency.check` refuses settings that contradict each other.
"""

import dataclasses
from typing import NamedTuple

from core.errors import UserError
from core.options import (
    as_folder,
    choice,
    decay,
    folder,
    number,
    sizes,
    switch,
    whole,
)

MAX_SEED = 2**31 - 1
MAX_EPOCHS = 2**28
FOLDERS = ("run_dir", "start_from", "data_dir")


def _record(cls):
    """A frozen dataclass that refuses values which cannot work."""
    cls.__post_init__ = _expect_working
    return dataclasses.dataclass(frozen=True)(cls)


def _expect_working(record) -> None:
    """Raise UserError if a value cannot work; write folders in their one spelling."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if not field.metadata["works"](value) or (field.name, value) == ("run_dir", ""):
            raise refusal(field.name, value)
        if field.name in FOLDERS:
            object.__setattr__(record, field.name, as_folder(field, value))


def refusal(name: str, value) -> UserError:
    """What to raise for a value that cannot work."""
    expected = FIELDS[name].metadata["expected"]
    return UserError(f"--{name}={as_text(value)}: expected {expected}")


@_record
class Run:
    """Where a run is kept, and how the program goes about it."""

    mode: str = choice(
        "train",
        "Train a model or go on with it, evaluate a trained run, or generate digits "
        "from it.",
        *("train", "evaluate", "generate"),
    )
    run_dir: str = folder("checkpoints/default", "Folder of all that a run leaves.")
    resume: str = choice(
        "auto",
        "Go on from the checkpoint in the run's folder if there is one (auto); refuse "
        "a folder that has one (never); refuse a folder that has none (required).",
        *("auto", "never", "required"),
    )
    start_from: str = folder(
        "",
        "Folder of a run of the same model. A new run begins with the newest weights "
        "of that one (their average, if it keeps one), and with nothing else of it.",
    )
    seed: int = whole(0, "Seed of all random numbers.", 0, MAX_SEED)
    jit: bool = switch(
        True,
        "Compile training and -log p(x) with XLA. --nojit runs them as plain graphs, "
        "as convolutions always do.",
    )
    eager: bool = switch(
        False, "Run every step in plain Python, for a debugger. This is slow."
    )
    checkpoint_every: int = whole(1, "Epochs between two checkpoints.")
    keep_checkpoints: int = whole(3, "How many of the newest checkpoints are kept.")
    figures: bool = switch(True, "Draw figures at the end; --nofigures draws none.")


@_record
class Data:
    """Which images are learned from, and what is made of their pixels."""

    dataset: str = choice(
        "auto",
        "mnist and fashion_mnist are downloaded once. synthetic is built in. auto is "
        "mnist where it can be had, else synthetic.",
        *("auto", "mnist", "fashion_mnist", "synthetic"),
    )
    data_dir: str = folder("", "Folder of four IDX files to read, not --dataset.", "")
    validation_size: int = whole(
        5000, "How many training images, the last ones, are held out.", 0
    )
    binarization: str = choice(
        "dynamic",
        "Pixels are drawn anew at every visit (dynamic), drawn once (static), cut at "
        "one half (threshold), or left grey (none), when the loss is no likelihood.",
        *("dynamic", "static", "threshold", "none"),
    )


@_record
class Training:
    """How long a model is trained, and on how many images at a time."""

    epochs: int = whole(
        30, "Epochs in total, those before a resume included.", 1, MAX_EPOCHS
    )
    batch_size: int = whole(50, "Images in a step.")


@_record
class Model:
    """What p(x, z) and q(z|x) are made of."""

    architecture: str = choice(
        "dense",
        "Networks between image and latents: matrices of --hidden_sizes (dense), or "
        "convolutions of --filters, 28x28 to 14x14 to 7x7 and back (conv).",
        *("dense", "conv"),
    )
    hidden_sizes: tuple[int, ...] = sizes(
        (512, 256), "Widths of the encoder's layers; the decoder mirrors them."
    )
    filters: tuple[int, ...] = sizes(
        (32, 64), "Filters of the two convolutions; the decoder mirrors them.", 2
    )
    latent_dim: int = whole(2, "Dimensions of z.")
    stochastic_layers: int = whole(1, "Layers of latents: 1 or 2.", 1, 2)
    latent_dims: tuple[int, ...] = sizes(
        (100, 50), "Dimensions of two layers of latents, the lower first.", 2
    )
    upper_hidden_sizes: tuple[int, ...] = sizes(
        (100, 100), "Widths of the layers between two layers of latents."
    )
    conditional: bool = switch(
        False, "Give the labels to encoder and decoder, which then learn p(x|y)."
    )
    activation: str = choice(
        "relu", "Activation between hidden layers.", *("relu", "tanh", "gelu", "silu")
    )

    @property
    def latents(self) -> tuple[int, ...]:
        """The dimensions of each layer of latents, from the image upwards."""
        return self.latent_dims if self.stochastic_layers == 2 else (self.latent_dim,)


@_record
class Objective:
    """What is minimized, and which estimate of its gradient is followed."""

    objective: str = choice(
        "elbo",
        "What the samples of an image are combined to: the mean of their log weights "
        "(elbo), or the log of their mean weight (iwae).",
        *("elbo", "iwae"),
    )
    num_samples: int = whole(1, "Samples of z for each image in training.", 1, 100_000)
    estimator: str = choice(
        "standard",
        "Estimator of the gradient: reparameterized (standard), sticking the landing "
        "(stl, for elbo), or doubly reparameterized (dreg, for iwae).",
        *("standard", "stl", "dreg"),
    )
    beta: float = number(1.0, "Weight of the KL in the loss.")
    warmup_epochs: int = whole(
        0,
        "Epochs over which the KL's weight rises linearly from 0 to --beta.",
        *(0, MAX_EPOCHS),
    )
    free_bits: float = number(
        0.0, "Lower limit, in nats, on each latent dimension's mean KL in the loss."
    )


@_record
class Adam:
    """How a gradient changes the weights."""

    learning_rate: float = number(1e-3, "Adam's step size alpha.", zero=False)
    learning_rate_schedule: str = choice(
        "constant",
        "Keep the learning rate (constant), or let it fall to 0 over --epochs along "
        "half a cosine (cosine).",
        *("constant", "cosine"),
    )
    beta1: float = decay(0.9, "Decay of Adam's first moment.")
    beta2: float = decay(0.999, "Decay of Adam's second moment.")
    epsilon: float = number(1e-8, "Adam's epsilon, outside the root.", zero=False)
    clip_norm: float = number(
        0.0, "Upper limit on the norm of all gradients together; 0 for none."
    )
    ema_decay: float = decay(
        0.0,
        "Decay of a moving average of the weights, which is then evaluated and drawn "
        "with; 0 for none.",
    )


@_record
class Evaluation:
    """What is measured of a trained model, and on which images."""

    importance_samples: int = whole(
        0, "Samples for -log p(x) of each image, such as 5000; 0 leaves it out.", 0
    )
    bfloat16: bool = switch(
        False,
        "Multiply the matrices of -log p(x) in bfloat16: a fifth faster on a processor "
        "with AVX512_BF16. Where it was measured, the result moved by 0.002 nats.",
    )
    evaluation_images: int = whole(
        0, "Evaluate the first so many images only; 0 for all.", 0
    )
    evaluation_split: str = choice(
        "test", "The images to evaluate on.", *("test", "validation")
    )


@_record
class Show:
    """What is drawn from a trained model."""

    num_images: int = whole(100, "How many digits to draw.", 1, 10**7)
    digit: int = whole(-1, "The class to draw, if --conditional; -1 for all.", -1, 9)


class Settings(NamedTuple):
    """All of them. Only `run` and `train` take them as a whole."""

    run: Run = Run()
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    objective: Objective = Objective()
    adam: Adam = Adam()
    evaluation: Evaluation = Evaluation()
    show: Show = Show()


GROUPS = Settings._field_defaults
MODES = {  # which groups of settings, or some of a group, a mode uses
    "train": ("run", "data", "model", "training", "objective", "adam", "evaluation"),
    "evaluate": ("mode", "run_dir", "seed", "jit", "eager", "figures", "data", "model")
    + ("evaluation",),
    "generate": ("mode", "run_dir", "seed", "jit", "eager", "model", "show"),
}
FIELDS = {
    field.name: field
    for group in GROUPS.values()
    for field in dataclasses.fields(group)
}
OF_MODEL = tuple(field.name for field in dataclasses.fields(Model))
OF_LOSS = tuple(field.name for field in dataclasses.fields(Objective))
OF_RUN = ("start_from", "seed", "validation_size", "binarization", *OF_MODEL)
OF_RUN += ("batch_size", "ema_decay")  # what a run keeps for good


def used_by(mode: str) -> set[str]:
    """The names of the settings that a mode uses."""
    return {
        field.name
        for group, record in GROUPS.items()
        for field in dataclasses.fields(record)
        if {group, field.name} & set(MODES[mode])
    }


def of_values(values: dict) -> Settings:
    """Settings from {name: value}; what is not named has its default.

    Raises:
      UserError: a name is none of a setting, or a value cannot work.
    """
    if unknown := sorted(set(values) - set(FIELDS)):
        raise UserError(f"expected names of settings, got {', '.join(unknown)}")
    groups = []
    for default in GROUPS.values():
        names = {field.name for field in dataclasses.fields(default)} & set(values)
        groups.append(type(default)(**{name: values[name] for name in names}))
    return Settings(*groups)


def values_of(settings: Settings) -> dict:
    """{name: value} of every setting; `of_values` undoes it."""
    return {
        name: value
        for group in settings
        for name, value in dataclasses.asdict(group).items()
    }


def from_record(recorded: dict, run_dir: str) -> Settings:
    """The settings that `values_of` made a record of, back from a run's config.json.

    A setting that is younger than the run has its default: what was done before.

    Raises:
      UserError: it is no such record, or one of a later version.
    """
    lists = {name: tuple(v) for name, v in recorded.items() if isinstance(v, list)}
    try:
        return of_values(recorded | lists)
    except UserError as error:
        raise UserError(
            f"{run_dir}: expected the flags of a run in its config.json, got "
            f"{error}: it is damaged, or of a later version of this program; choose "
            "another folder"
        ) from error


def as_text(value) -> str:
    """A setting's value as on the command line."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return str(value)
