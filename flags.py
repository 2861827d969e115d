"""The command line: an absl flag for every setting, and --help.

Nothing else knows absl. Defaults, bounds and help are those of `core.settings`.
absl's global flags, of which a notebook may have its own, are left alone.
"""

import dataclasses
import json
import sys
import textwrap
from pathlib import Path

from absl import flags

from core import consistency
from core import settings as settings_of
from core.errors import UserError
from core.progress import complain, say

USAGE = """Train a variational autoencoder on MNIST, evaluate it, draw from it.

usage: python loop.py [--FLAG=VALUE ...]

  python loop.py --epochs=30
  python loop.py --mode=evaluate --run_dir=checkpoints/default --importance_samples=5000
  python loop.py --flagfile=core/recipes/first_minute.flags
"""
DEFINE = {  # by the type of the default, which each of them reads as text
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
}

FLAGS = flags.FlagValues()
for name, field in settings_of.FIELDS.items():
    define, default = DEFINE[type(field.default)], settings_of.as_text(field.default)
    define(name, default, field.metadata["help"], flag_values=FLAGS)


def parse(argv: list[str]) -> None:
    """Parse the command line; print one line and exit with 2 if it is wrong."""
    if {"--help", "-h", "-help"} & set(argv[1:]):
        say(help_text())
        sys.exit(0)
    for name in settings_of.FIELDS:  # an earlier run in this process may have set them
        FLAGS[name].unparse()
    try:
        if {"--flagfile=", "-flagfile="} & set(argv):
            raise UserError("--flagfile=: expected the name of a file with flags")
        rest = FLAGS(argv)
        if len(rest) > 1:
            raise UserError(f"unexpected {rest[1]!r}: every setting is a --flag=value")
        asked = settings()
        if asked.run.mode in ("train", "compare"):  # else the run's own count too
            consistency.going_on(None, asked, typed())
    except (flags.Error, UserError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()).removeprefix("ERROR:: ")  # absl's
        complain(f"error: {reason} (--help lists the flags)")
        sys.exit(2)


def dense() -> bool:
    """Whether the run's networks are dense: as its own config says, if it has one.

    It is looked up before TensorFlow's import, which reading a run properly needs.
    """
    run, architecture = settings().run, settings().model.architecture
    try:
        config = json.loads(Path(run.run_dir, "config.json").read_bytes())
        architecture = config["flags"]["architecture"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass  # no run, or one that will be refused
    return architecture == "dense"


def typed() -> set[str]:
    """The names of the flags that the user set."""
    return {name for name in settings_of.FIELDS if FLAGS[name].present}


def settings() -> settings_of.Settings:
    """The parsed flags.

    Raises:
      UserError: a value cannot work.
    """
    values = {name: FLAGS[name].value for name in settings_of.FIELDS}
    for name, value in values.items():
        if isinstance(value, list) and all(n.isdecimal() for n in value):
            values[name] = tuple(map(int, value))  # any other list is refused as it is
    return settings_of.of_values(values)


def help_text() -> str:
    """All flags for a user, by what they are about."""
    lines = [USAGE]
    for group, record in settings_of.GROUPS.items():
        names = {*vars(record)}
        modes = [m for m in settings_of.MODES if settings_of.used_by(m) & names]
        lines.append(f"\n{group.capitalize()} (--mode={', '.join(modes)})\n")
        lines += map(_help_line, dataclasses.fields(record))
    lines.append("\n  --flagfile=FILE\n      Read flags from a file, one a line.")
    return "\n".join(lines)


def _help_line(field) -> str:
    name, default = field.name, settings_of.as_text(field.default)
    flag = f"--{name}={default or field.metadata['form']}"
    if isinstance(field.default, bool):
        flag = f"--[no]{name} (default: {'' if field.default else 'no'}{name})"
    elif choices := field.metadata["choices"]:
        flag += f" ({'|'.join(choices)})"
    wrapped = textwrap.fill(field.metadata["help"], 80)
    return f"  {flag}\n{textwrap.indent(wrapped, 6 * ' ')}"
