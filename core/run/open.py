"""A trained run, opened from Python."""

import dataclasses

from core.data import datasets
from core.model.build import build
from core.progress import say
from core.run import checkpoint
from core.run.folder import RunFolder
from core.settings import Run


def open_run(folder):
    """(model, weights, data, settings) of the run in a folder, at its newest
    checkpoint: weights averaged where it has an average, data grey, as `datasets.load`
    gives them. It is only read, whoever trains there meanwhile.

    Raises:
      UserError: it is no trained run or damaged, or its data cannot be had.
    """
    with RunFolder(Run(mode="evaluate", run_dir=str(folder)), locks=False) as home:
        here = dict(run_dir=str(folder), workers="", worker=0)  # it may move
        here = dataclasses.replace(home.past.run, **here)
        settings = home.past._replace(run=here)
        data = datasets.load(home.data_settings(settings.data), say)
        home.expect_data(data.record)
        model = build(settings.model)
        weights = model.init(settings.run.seed)
        checkpoint.start_from(home.path, weights)
    return model, weights, data, settings
