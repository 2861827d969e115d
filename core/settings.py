"""Every setting once: default, bounds, help, and what of it a run keeps.

A group of settings is a small frozen record, and a parameter of the functions that use
it. A record refuses values that cannot work when it is made, from Python as from the
command line; `consistency.check` refuses settings that contradict each other.
"""

import dataclasses
from typing import NamedTuple

from core import options
from core.errors import UserError
from core.options import choice, decay, folder, number, sizes, switch, text, whole

MAX_SEED = 2**31 - 1
MAX_EPOCHS = 2**28
NUMBER = r"-?\d{0,9}\.?\d{1,9}"  # of a z
FOLDERS = ("run_dir", "start_from", "data_dir", "images")
Sizes = tuple[int, ...]


def _record(cls):
    """A frozen dataclass that refuses values which cannot work."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = options.plain(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if not field.metadata["works"](value):
                raise refusal(field.name, value)
            if field.name in FOLDERS:
                object.__setattr__(self, field.name, options.as_folder(field, value))

    cls.__post_init__ = __post_init__
    return dataclasses.dataclass(frozen=True)(cls)


def refusal(name: str, value) -> UserError:
    """What to raise for a value that cannot work."""
    expected = FIELDS[name].metadata["expected"]
    return UserError(f"--{name}={as_text(value)}: expected {expected}")


@_record
class Run:
    """Where a run is kept, and how the program goes about it."""

    mode: str = choice(
        "train evaluate generate report explore compare encode export",
        "Train a model, evaluate it, draw digits from it, make a page of its run or "
        "one to explore it, compare several, encode images with it, or write it for "
        "other programs.",
    )
    run_dir: str = folder("checkpoints/default", "Folder of all that a run leaves.")
    resume: str = choice(
        "auto never required",
        "Go on from the checkpoint in the run's folder if there is one (auto); refuse "
        "a folder that has one (never); refuse a folder that has none (required).",
    )
    start_from: str = folder(
        "",
        "Run of this model whose newest weights (or average) a new run begins with.",
    )
    seed: int = whole(0, "Seed of all random numbers.", 0, MAX_SEED)
    jit: bool = switch(
        True, "Compile training and -log p(x) with XLA; convolutions only on a GPU."
    )
    eager: bool = switch(False, "Run steps in plain Python, slowly, for a debugger.")
    checkpoint_every: int = whole(1, "Epochs between two checkpoints.")
    keep_checkpoints: int = whole(3, "How many of the newest checkpoints are kept.")
    figures: bool = switch(True, "Draw figures at the end; --nofigures draws none.")
    film: bool = switch(False, "Make a film of epochs 1, 2, 3, 5, 8, ... at the end.")
    devices: str = text("N", "Train on N devices, or all.", r"all|[1-9]\d{0,3}")
    logical_cpus: int = whole(1, "Devices to make of the CPU, for tests.", 1, 64)
    workers: str = text(
        "HOST:PORT,HOST:PORT,...",
        "Processes that train together, the chief first; all have the same flags but "
        "--worker. By default as TF_CONFIG or SLURM name them.",
        r"([^\s,:]+:\d+,)+[^\s,:]+:\d+",
    )
    worker: int = whole(0, "Which of --workers this process is, from 0.", 0)

    @property
    def processes(self) -> int:
        """How many train together."""
        return self.workers.count(",") + 1


@_record
class Data:
    """Which images are learned from, and what is made of their pixels."""

    dataset: str = choice(
        "auto mnist fashion_mnist synthetic",
        "Downloaded, or synthetic; auto is mnist where it can be had, else synthetic.",
    )
    data_dir: str = folder("", "Folder of four IDX files to read, not --dataset.", "")
    validation_size: int = whole(5000, "Training images held out: the last ones.", 0)
    binarization: str = choice(
        "dynamic static threshold none",
        "Pixels are drawn anew at every visit (dynamic), drawn once (static), cut at "
        "one half (threshold), or left grey (none), when the loss is no likelihood.",
    )


@_record
class Training:
    """How long a model is trained, and on how many images at a time."""

    epochs: int = whole(
        30, "Epochs in total, those before a resume included.", 1, MAX_EPOCHS
    )
    batch_size: int = whole(200, "Images in a step.")


@_record
class Model:
    """What p(x, z) and q(z|x) are made of."""

    architecture: str = choice(
        "dense conv", "Matrices of --hidden_sizes, or convolutions of --filters."
    )
    hidden_sizes: Sizes = sizes((300,) * 4, "Widths from the image to z, and back.")
    filters: Sizes = sizes((32, 64), "Filters from 28x28 to 14x14 to 7x7, and back.", 2)
    latent_dim: int = whole(2, "Dimensions of z.")
    stochastic_layers: int = whole(1, "Layers of latents: z, or z_1 and z_2.", 1, 2)
    latent_dims: Sizes = sizes((100, 50), "Dimensions of z_1 and z_2.", 2)
    upper_hidden_sizes: Sizes = sizes((100, 100), "Widths from z_1 to z_2, and back.")
    prior: str = choice(
        "standard mixture vamp flow",
        "p(z) of the uppermost layer: N(0, 1), or learned.",
    )
    prior_components: int = whole(100, "Gaussians of mixture, pseudo-inputs of vamp.")
    flow_layers: int = whole(8, "Couplings of the flow.", 1, 1000)
    flow_units: int = whole(128, "Width of a coupling's two hidden layers.")
    conditional: bool = switch(False, "Give both networks the labels: learn p(x|y).")
    activation: str = choice("gelu relu tanh silu", "Activation between hidden layers.")

    @property
    def latents(self) -> Sizes:
        """The dimensions of each layer of latents, from the image upwards."""
        return self.latent_dims if self.stochastic_layers == 2 else (self.latent_dim,)


@_record
class Objective:
    """What is minimized, and which estimate of its gradient is followed."""

    objective: str = choice(
        "elbo iwae", "The samples' mean log weight (elbo), or log mean weight (iwae)."
    )
    num_samples: int = whole(1, "Samples of z for each image in training.", 1, 100_000)
    estimator: str = choice(
        "standard stl dreg",
        "Estimator of the gradient: reparameterized (standard), sticking the landing "
        "(stl, for elbo), or doubly reparameterized (dreg, for iwae).",
    )
    beta: float = number(1.0, "Weight of the KL in the loss.")
    warmup_epochs: int = whole(
        0, "Epochs of the KL weight's linear rise from 0 to --beta.", 0, MAX_EPOCHS
    )
    free_bits: float = number(
        0.0, "Lower limit, in nats, on each latent dimension's mean KL in the loss."
    )


@_record
class Adam:
    """How a gradient changes the weights."""

    learning_rate: float = number(2e-3, "Adam's step size alpha.", zero=False)
    learning_rate_schedule: str = choice(
        "inverse_sqrt constant cosine",
        "Let it fall as 1 / sqrt(1 + step / 1000), keep it, or let it fall to 0 by "
        "--epochs as half a cosine.",
    )
    beta1: float = decay(0.9, "Decay of Adam's first moment.")
    beta2: float = decay(0.999, "Decay of Adam's second moment.")
    epsilon: float = number(1e-8, "Adam's epsilon, outside the root.", zero=False)
    clip_norm: float = number(0.0, "Limit on the norm of all gradients; 0 for none.")
    weight_decay: float = number(0.0, "Decay of all but vectors, as in AdamW.")
    ema_decay: float = decay(
        0.999, "Decay of an average of weights to evaluate and draw with; 0 for none."
    )


@_record
class Evaluation:
    """What is measured of a trained model, and on which images."""

    importance_samples: int = whole(0, "Samples an image for -log p(x); 0 for none.", 0)
    bfloat16: bool = switch(
        False,
        "Multiply the matrices of -log p(x) in bfloat16: a fifth faster on a processor "
        "with AVX512_BF16. Where it was measured, the result moved by 0.002 nats.",
    )
    evaluation_images: int = whole(0, "Evaluate the first so many; 0 for all.", 0)
    evaluation_split: str = choice("test validation", "The images to evaluate on.")


@_record
class Show:
    """What is drawn from a trained model, told of several, or made of a user's own
    images."""

    num_images: int = whole(100, "How many digits to draw.", 1, 10**7)
    digit: int = whole(-1, "The class to draw, if --conditional; -1 for all.", -1, 9)
    temperature: float = number(1.0, "Factor of the prior's standard deviations.")
    z: str = text("X,Y,...", "Draw this point alone.", rf"{NUMBER}(,{NUMBER})*")
    interpolate: str = text("I,J", "Go from test image I to J.", r"\d{1,9},\d{1,9}")
    images: str = folder("", "PNG files, or [N, 28, 28] in FILE.npy, to encode.", "")
    runs: str = folder("", "Folders of the runs to compare, joined by commas.")


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
    "train": "run data model training objective adam evaluation".split(),
    "evaluate": (
        "mode run_dir seed jit eager figures workers worker data model evaluation"
    ).split(),
    "generate": (
        "mode run_dir seed jit eager data model num_images digit temperature z "
        "interpolate"
    ).split(),
    "report": "mode run_dir seed jit eager data model evaluation".split(),
    "explore": "mode run_dir seed jit eager data model".split(),
    "compare": "mode seed evaluation runs".split(),
    "encode": "mode run_dir seed eager model digit images".split(),
    "export": "mode run_dir model".split(),
}
FIELDS = {f.name: f for group in Settings() for f in dataclasses.fields(group)}
OF_MODEL, OF_LOSS = tuple(vars(Model())), tuple(vars(Objective()))
OF_RUN = ("start_from", "seed", "validation_size", "binarization", *OF_MODEL)
OF_RUN += ("batch_size", "ema_decay")  # what a run keeps for good


def used_by(mode: str) -> set[str]:
    """The names of the settings that a mode uses."""
    parts = (vars(GROUPS[n]) if n in GROUPS else {n} for n in MODES[mode])
    return set().union(*parts)


def of_values(values: dict) -> Settings:
    """Settings from {name: value}; what is not named has its default.

    Raises:
      UserError: a name is none of a setting, or a value cannot work.
    """
    if unknown := sorted(set(values) - set(FIELDS)):
        raise UserError(f"expected names of settings, got {', '.join(unknown)}")
    groups = []
    for default in Settings():
        named = {name: values[name] for name in vars(default) if name in values}
        groups.append(dataclasses.replace(default, **named))
    return Settings(*groups)


def values_of(settings: Settings) -> dict:
    """{name: value} of every setting; `of_values` undoes it."""
    return {name: value for group in settings for name, value in vars(group).items()}


def from_record(recorded: dict, run_dir: str) -> Settings:
    """The settings that `values_of` made a record of, back from config.json. Those that
    are younger than the run have their defaults: what was done before.

    Raises:
      UserError: it is no such record, or one of a later version.
    """
    lists = {name: tuple(v) for name, v in recorded.items() if isinstance(v, list)}
    try:
        return of_values(recorded | lists)
    except UserError as error:
        raise UserError(
            f"{run_dir}: expected the flags of a run of this version in its "
            f"config.json ({error}); choose another folder"
        ) from error


def as_text(value) -> str:
    """A setting's value as on the command line."""
    return ",".join(map(str, value)) if type(value) in (tuple, list) else str(value)
