import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from core import numerics
from core import settings as settings_of
from core.data import datasets, synthetic
from core.errors import UserError
from core.model import networks
from core.run import config, files
from core.run.open import open_run
from tests.conftest import ROOT, run
from tests.runs import newest_checkpoint


def contents(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files}


def test_a_run_is_opened_while_another_process_trains_there(trained, data_dir):
    """And is only read."""
    folder = trained["run_dir"]
    with files.lock(Path(folder)):
        before = contents(folder)
        model, weights, data, settings = open_run(folder)
        assert contents(folder) == before
    kept = newest_checkpoint(folder)
    for name, variable in networks.named_variables(weights, "average"):
        there = kept[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"]
        np.testing.assert_array_equal(variable, there, err_msg=name)
    assert settings == settings_of.of_values(trained)
    assert data.record["name"] == "tiny" and len(data.test.pixels) == 60
    mean, log_var = model.encode(weights, np.zeros([3, 784], np.float32))
    assert mean.shape == log_var.shape == (3, 2)


def test_a_run_of_several_processes_is_opened_as_of_one(trained):
    """Which then evaluates all images, and not those of one of them."""
    recorded = config.read(Path(trained["run_dir"]))
    recorded["flags"] |= {"workers": "a:1,b:2"}
    config.write(Path(trained["run_dir"]), recorded)
    here = open_run(trained["run_dir"])[3].run
    assert (here.processes, here.worker) == (1, 0)


def test_without_an_average_the_weights_are_the_last(small, unreported):
    run(small, epochs=1, ema_decay=0.0)
    _, weights, *_ = open_run(small["run_dir"])
    kept = newest_checkpoint(small["run_dir"])
    for name, variable in networks.named_variables(weights, "params"):
        there = kept[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"]
        np.testing.assert_array_equal(variable, there, err_msg=name)


def test_what_cannot_be_opened_is_said_in_a_line(trained, tmp_path, data_dir):
    for folder in ("nowhere", str(data_dir)):
        with pytest.raises(UserError, match=r"choose another --run_dir$"):
            open_run(folder)
    assert not Path("nowhere").exists()
    config = Path(trained["run_dir"], "config.json")
    shutil.copy(config, tmp_path / "config.json")
    config.write_text("{}")
    with pytest.raises(UserError, match="config.json: expected the config of the run"):
        open_run(trained["run_dir"])
    shutil.copy(tmp_path / "config.json", config)
    for path in Path(trained["run_dir"]).glob("ckpt-*.json"):
        path.unlink()
    with pytest.raises(UserError, match=re.escape("no checkpoint can be used")):
        open_run(trained["run_dir"])


@pytest.mark.slow
def test_the_lines_of_the_readme_run_as_they_stand(
    digits, tmp_path, monkeypatch, unreported, capsys
):
    sets = synthetic.draw(1, sizes=(5200, 100))
    monkeypatch.setattr(datasets, "find", lambda *asked: ("mnist", *sets))
    monkeypatch.setattr(numerics, "compiles", lambda *asked: False)  # it takes seconds
    monkeypatch.chdir(tmp_path)
    blocks = re.findall("```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    opened, own = (block for block in blocks if "import loop" in block)
    lines = {}
    exec(opened, lines)
    printed = capsys.readouterr().out.strip().split("\n")[-1]
    norm = np.linalg.norm(lines["grads"]["encoder"]["dense_0"]["w"])
    assert float(re.search(r"Tensor\((\S+),", printed)[1]) == pytest.approx(norm)
    assert norm > 0 and lines["pixel_means"].shape == (100, 784)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    (images, labels), (test_images, test_labels) = digits
    lines = dict(images=images, labels=labels)
    exec(own, lines | dict(test_images=test_images, test_labels=test_labels))
