"""What a user can mend is refused in one line; a mistake in the code is shown whole."""

import os
import re
import runpy
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import flags
import loop
from core.data import datasets, download, synthetic
from core.data.digits import Digits
from core.errors import UserError
from core.model.build import build
from core.run import checkpoint, config
from core.settings import Adam, Data, Model, Objective, Settings, Show, Training
from core.training import state as states
from tests.conftest import ROOT, as_arguments, program, run, write_idx_folder
from tests.runs import assert_same_numbers, weights_and_moments

# --- Beside what is in the folder -----------------------------------------------------


def test_a_run_with_other_flags_is_refused(trained):
    with pytest.raises(UserError, match=r"--latent_dim \(the run: 2, now: 3\)"):
        run(trained, latent_dim=3)


def test_a_run_on_other_data_is_refused(trained, digits, tmp_path):
    train_set, test_set = digits
    images = train_set.images.copy()
    images[0, 0, 0] ^= 1
    other = write_idx_folder(
        tmp_path / "other", Digits(images, train_set.labels), test_set
    )
    with pytest.raises(UserError, match="run on other data"):
        run(trained, data_dir=str(other))


@pytest.mark.usefixtures("unreported")
def test_resume_never_and_required(small):
    with pytest.raises(UserError, match="expected a run to go on from"):
        run(small, resume="required")
    assert not Path(small["run_dir"]).exists()
    run(small, epochs=1, resume="never")
    with pytest.raises(UserError, match="--resume=never does not overwrite it"):
        run(small, resume="never")
    run(small, resume="required")


@pytest.mark.parametrize("mode", ["evaluate", "generate"])
def test_other_modes_need_a_run(small, mode):
    with pytest.raises(UserError, match="expected a run to go on from"):
        run(small, mode=mode)
    assert not Path(small["run_dir"]).exists()
    Path(small["run_dir"]).mkdir()  # a folder of something else
    with pytest.raises(UserError, match="expected a run to go on from"):
        run(small, mode=mode)
    assert not list(Path(small["run_dir"]).iterdir())


def test_a_batch_larger_than_the_data_is_refused(small):
    with pytest.raises(UserError, match="--batch_size=301: expected at most 300, the"):
        run(small, batch_size=301)
    with pytest.raises(UserError, match="--validation_size=330"):
        run(small, validation_size=330)
    with pytest.raises(UserError, match="at most 268,435,456 steps"):
        run(small, epochs=10**8)


@pytest.mark.usefixtures("unreported")
def test_a_loss_that_is_not_finite_stops_the_run(trained, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["loop.py", "--learning_rate=1e30", "--epochs=3"])
    before = weights_and_moments(trained["run_dir"])
    message = (
        r"the loss, or what it left behind, is not finite at step 3\d, with "
        r"--learning_rate=1e\+30; the first variable whose gradient is not finite: "
        r"(en|de)coder/.*/[wb]\. The checkpoint of step 30 is kept; go on from it "
        r"with: .* loop.py --epochs=3 --learning_rate=1e\+29$"
    )
    with pytest.raises(UserError, match=message):
        run(trained, epochs=3, learning_rate=1e30)
    assert_same_numbers(before, weights_and_moments(trained["run_dir"]))
    (Path(trained["run_dir"]) / "ckpt-30.index").write_bytes(b"damaged")
    with pytest.raises(UserError, match="The checkpoint of step 15 is kept"):
        run(trained, epochs=3, learning_rate=1e30)
    run(trained, epochs=3)


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize("validation_size", [0, 30])
def test_ruined_weights_are_not_saved(small, validation_size):
    """One step an epoch: its loss and gradient are finite, what it makes is not."""
    changes = dict(batch_size=300, validation_size=validation_size)
    run(small, epochs=1, **changes)
    with pytest.raises(
        UserError, match="but the weights are ruined. The checkpoint of"
    ):
        run(small, learning_rate=1e38, **changes)
    assert checkpoint.steps_on_disk(Path(small["run_dir"])) == [1, 0]
    run(small, learning_rate=1e-4, **changes)


def test_auto_falls_back_to_synthetic_digits_and_says_so(small, monkeypatch, capsys):
    def unreachable(*arguments):
        raise UserError("cannot download x (no network)")

    drawn = synthetic.draw(1, sizes=(330, 60))
    monkeypatch.setattr(download, "fetch", unreachable)
    monkeypatch.setattr(synthetic, "draw", lambda: drawn)
    settings = {k: v for k, v in small.items() if k != "data_dir"}
    run(settings)
    output = capsys.readouterr().out
    assert "No MNIST: cannot download x (no network). Using the built-in" in output
    assert re.search(r"Data set +synthetic \(built-in digits, not MNIST\)", output)
    # Later MNIST is there: the run stays with what it was trained on.
    monkeypatch.setattr(download, "fetch", lambda *arguments: pytest.fail("asked"))
    run(settings, epochs=3)
    monkeypatch.setattr(download, "fetch", unreachable)
    with pytest.raises(UserError, match="--data_dir=DIR.*--dataset=synthetic"):
        run(settings, dataset="mnist", run_dir=small["run_dir"] + "2")


def test_the_program_says_what_is_wrong_in_one_line(small, tmp_path):
    """Exit code 1, nothing written, no traceback, no TensorFlow chatter."""
    process = program("--help")
    assert "total, those before a resume included" in process.communicate(timeout=60)[0]
    (tmp_path / "file").write_text("mine")
    in_the_way = as_arguments(small | {"run_dir": str(tmp_path / "file")})
    too_large = as_arguments(small | {"hidden_sizes": (10**9,)})
    for arguments, code, message in (
        (in_the_way, 1, "choose another --run_dir"),
        (too_large, 1, "out of memory: choose smaller sizes"),
        (["--epochs=0"], 2, "--epochs=0"),
    ):
        process = program(*arguments)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == code
        said = ["Importing TensorFlow"] * (code == 1)
        assert output.splitlines()[:2] == said or "Data:" in output
        assert errors.startswith("error: ") and errors.count("\n") == 1
        assert message in errors
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("mode", ["train", "evaluate", "generate"])
@pytest.mark.parametrize(
    "names",
    [["checkpoint", "samples.png"], ["model.pt"], ["figures/mine.png"], ["config.yml"]],
    ids=str,
)
def test_a_folder_of_something_else_is_left_alone(small, mode, names):
    folder = Path(small["run_dir"])
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    with pytest.raises(UserError, match="holds files of something else .*another"):
        run(small if mode == "train" else {"run_dir": str(folder)}, mode=mode)
    found = {path for path in folder.rglob("*") if path.is_file()}
    assert found == {folder / name for name in names}
    assert {path.read_text() for path in found} == {"mine"}


# --- From Python ----------------------------------------------------------------------


IMPORT = """if True:
    import os, signal, sys
    import tensorflow
    from absl import flags

    def process():
        streams = sys.stdout, sys.stderr
        return dict(
            environment=dict(os.environ),
            handlers={n: signal.getsignal(n) for n in signal.valid_signals()},
            flags=(flags.FLAGS.is_parsed(), [*flags.FLAGS], list(sys.argv)),
            streams=[(id(s), s.fileno(), s.errors, s.encoding) for s in streams],
            descriptors=[os.fstat(n)[:3] for n in (0, 1, 2)],
            folder=os.getcwd(),
            eager=tensorflow.config.functions_run_eagerly(),
        )

    before = process()
    import loop
    after = process()
    for name in before:
        assert before[name] == after[name], name
    print("imported", loop.__name__)
    from core import settings
    typed = dict(data_dir=sys.argv[2], run_dir=sys.argv[3], hidden_sizes=(8,), epochs=1)
    typed |= dict(batch_size=60, validation_size=30, figures=False)
    typed |= dict(importance_samples=100)
    loop.run(settings.of_values(typed), set(typed))
    after = process()
    for name in before:
        assert before[name] == after[name], name
    names = [getattr(module, "__file__", "") or "" for module in sys.modules.values()]
    made = [name for name in names if "__autograph_generated" in name]
    assert made and not any(map(os.path.exists, made)), made
    print("ran")
"""


@pytest.mark.slow
def test_an_import_and_a_run_change_nothing_of_their_process(small):
    """A notebook keeps its environment, signals, flags and streams; and what a killed
    process would leave of its traces in the temporary folder is not there."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    by = ("env", "-u", "TF_CPP_MIN_LOG_LEVEL")
    arguments = "--nosuchflag", small["data_dir"], small["run_dir"]
    process = program(*arguments, script=("-c", IMPORT), by=by, env=environment)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.startswith("imported loop\n") and output.endswith("ran\n")


def of_this_process():
    """What is everybody's in it."""
    return {
        "environment": dict(os.environ),
        "handlers": {n: signal.getsignal(n) for n in signal.valid_signals()},
        "streams": (sys.stdout, sys.stderr),
        "descriptors": [os.fstat(n)[:3] for n in (0, 1, 2)],
        "folder": os.getcwd(),
        "eager": tf.config.functions_run_eagerly(),
    }


@pytest.fixture
def as_main(monkeypatch):
    """as_main(arguments) runs the program in this process -> its exit code."""
    for name, value in (("TF_CPP_MIN_LOG_LEVEL", "3"), ("MPLBACKEND", "agg")):
        monkeypatch.setenv(name, value)
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a notebook

    def as_main(*arguments):
        monkeypatch.setattr(sys, "argv", ["loop.py", *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "loop.py"), run_name="__main__")
        return end.value.code

    yield as_main
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_second_run_in_one_process_is_as_the_first(small, as_main):
    """It inherits no flag, and signals are handled as before."""
    before, second = of_this_process(), small | {"run_dir": small["run_dir"] + "2"}
    first = small | {"latent_dim": 3, "seed": 7, "epochs": 1, "eager": True}
    assert as_main(*as_arguments(first)) == 0
    assert of_this_process() == before
    assert as_main(*as_arguments(second)) == 0
    assert of_this_process() == before
    kept = config.read(Path(second["run_dir"]))["flags"]
    assert (kept["latent_dim"], kept["seed"], kept["epochs"]) == (2, 0, 2)
    assert not kept["eager"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--nosuchflag"], 2),
        (["--epochs=0"], 2),
        (["--help"], 0),
        (["--mode=evaluate", "--run_dir=nowhere"], 1),
    ],
    ids=["typo", "bound", "help", "no run"],
)
def test_a_run_that_is_refused_leaves_its_process_as_it_was(as_main, arguments, code):
    """Ctrl-C would else end a notebook's kernel from then on."""
    before = of_this_process()
    assert as_main(*arguments) == code
    assert of_this_process() == before


def refusal_of(arguments, capsys):
    """What the command line says of these arguments."""
    with pytest.raises(SystemExit) as stop:
        flags.parse(["loop.py", *arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "values"),
    [
        (Objective, {"objective": "iwea"}),
        (Objective, {"num_samples": 0}),
        (Training, {"epochs": -1}),
        (Adam, {"learning_rate": float("nan")}),
        (Model, {"hidden_sizes": (8, 0)}),
        (Data, {"binarization": "sometimes"}),
        (Show, {"digit": 10}),
    ],
    ids=str,
)
def test_a_value_is_refused_from_python_as_from_the_command_line(
    record, values, capsys
):
    with pytest.raises(UserError) as error:
        record(**values)
    assert str(error.value) in refusal_of(as_arguments(values), capsys)


@pytest.fixture
def few_digits(digits):
    """Data of 300 training images, a model and its state."""
    data = datasets.split("mine", *digits, Data(validation_size=30))
    model = build(Model(hidden_sizes=(8,)))
    return data, model, states.init(model.init(0), Adam())


@pytest.mark.parametrize(
    "values",
    [
        {"estimator": "dreg"},
        {"objective": "iwae", "estimator": "stl"},
        {"objective": "iwae", "beta": 2.0},
        {"objective": "iwae", "estimator": "dreg", "warmup_epochs": 1},
        {"estimator": "stl", "free_bits": 0.5},
    ],
    ids=str,
)
def test_a_contradiction_is_refused_from_python_as_from_the_command_line(
    few_digits, values, capsys
):
    data, model, state = few_digits
    settings = Settings(objective=Objective(**values))
    with pytest.raises(UserError) as error:
        loop.train(model, state, data, settings)
    assert int(state.step) == 0 and capsys.readouterr().out == ""
    assert str(error.value) in refusal_of(as_arguments(values), capsys)


def test_more_steps_than_there_are_images_are_refused_from_python(few_digits, small):
    data, model, state = few_digits
    for training in ({"batch_size": 301}, {"batch_size": 1, "epochs": 10**6}):
        with pytest.raises(UserError) as error:
            loop.train(model, state, data, Settings(training=Training(**training)))
        with pytest.raises(UserError, match=re.escape(str(error.value))):
            run(small, **training)
    assert int(state.step) == 0 and not Path(small["run_dir"]).exists()


def test_pixels_that_are_no_bytes_are_refused_from_python_as_from_a_file(
    digits, small, tmp_path
):
    """Floats in [0, 1], as other libraries give them, would nearly all be black."""
    train_set, test_set = digits
    floats = train_set.images / np.float32(255)
    message = "expected .*uint8"
    for sets in (
        (Digits(floats, train_set.labels), test_set),
        (train_set, Digits(test_set.images / 255, test_set.labels)),
    ):
        with pytest.raises(UserError, match=message):
            datasets.split("mine", *sets, Data(validation_size=30))
    folder = write_idx_folder(tmp_path / "floats", *digits)
    header = np.array([0xD03, *floats.shape], ">u4").tobytes()
    content = header + floats.astype(">f4").tobytes()
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match="train-images-idx3-ubyte.* expected"):
        run(small, data_dir=str(folder))
    assert not Path(small["run_dir"]).exists()


# --- Mistakes in the code -------------------------------------------------------------


MISTAKE = """import runpy
import tensorflow as tf
from core.model import vae
right = vae.infer
def infer(params, x, noise, y=None, **settings):
    noise = tf.concat([noise, noise], axis=-1)
    return right(params, x, noise, y, **settings)  # line 7
vae.infer = infer
runpy.run_path("loop.py", run_name="__main__")
"""


@pytest.mark.parametrize("way", ["--jit", "--nojit", "--eager"])
def test_a_mistake_in_the_model_shows_its_file_and_line(small, tmp_path, way):
    """A wrong shape is no user's mistake: its traceback is kept, compiled or not."""
    (tmp_path / "changed.py").write_text(MISTAKE)
    settings = {name: value for name, value in small.items() if name != "jit"}
    process = program(
        *as_arguments(settings), way, script=(f"{tmp_path}/changed.py",), cwd=ROOT
    )
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "Traceback (most recent call last)" in errors
    assert re.search(r'changed\.py", line 7, in infer', errors)
    assert re.search(r'core/model/distributions\.py", line \d+, in gauss', errors)
    assert not any(line.startswith("error: ") for line in errors.split("\n"))
