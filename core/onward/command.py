"""How the programs of this folder begin and end."""

import argparse
import sys
from pathlib import Path

from core import settings as settings_of
from core.errors import UserError
from core.progress import complain
from core.run import process, text


def begin(about: str, defaults: dict, names: str):
    """`Settings` of the command line: flags of these `names`, whose help and bounds are
    those of `core.settings`. TensorFlow is imported after it: a typo shows at once."""
    process.prepare()
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    parser.error = _fail
    for name in names.split():
        field = settings_of.FIELDS[name]
        default, help = defaults.get(name, field.default), field.metadata["help"]
        kind, help = type(default), f"{help} [{default}]"
        parser.add_argument(f"--{name}", type=kind, default=default, help=help)
    try:
        settings = settings_of.of_values(defaults | vars(parser.parse_args()))
    except UserError as error:
        _fail(str(error))
    module = f"{__package__}.{Path(sys.argv[0]).stem}"
    sys.argv[:1] = "-m", module  # of the command that goes on
    process.begin()
    with process.importing():
        import tensorflow  # noqa: F401
    return settings


def _fail(message: str):
    complain(f"error: {' '.join(message.split())} (--help lists the flags)")
    sys.exit(2)


def end(run, settings) -> int:
    """`run(settings, stop)` -> the exit code, as that of loop.py."""
    import tensorflow as tf

    stop = process.Stop(text.farewell("train"))
    try:
        run(settings, stop)
    except (UserError, OSError, MemoryError, tf.errors.ResourceExhaustedError) as error:
        complain(f"error: {text.explain(error, 'train')}")
        return 1
    finally:
        stop.end()
    return 128 + stop.signal if stop.signal else 0
