"""Seeded bugs, each of which a test must see: `python -m tests.mutations [WORD ...]`.

Each is seeded in a copy of the tree, where the tests of one file are then run: the
first that fails is named. With WORDs, only the bugs whose lines have one of them are.
It exits with 1 if a bug survived, or has no place any more where it could be seeded.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Where rows go together; at the last step and in the second epoch; in what only
# pictures see, and only the second layer has; in what a weight multiplies; in the order
# of writes. After "# FILE TESTS" come the bugs of that file, old text ~> new.
SEEDED = r"""
# core/data/batches.py tests/test_block.py
tf.gather(epoch.labels, rows) ~> tf.gather(epoch.labels, rows[:, ::-1])
tf.range(noise.shape[0]), last) ~> tf.range(noise.shape[0]), last - 1)
# loop.py tests/test_block.py
horizon(loss_settings, epochs, ~> horizon(loss_settings, epochs + 1,
state.totals.assign(tf.zeros_like(state.totals)) ~> pass
schedules.at(done - 1, ~> schedules.at(done,
seconds = 0.0 ~> pass
noise(seed, done, noise_shape)\n                block ~>
noise(seed, done - first, noise_shape)\n                block
batches.epoch(data, model, batch_size, seed, number) ~>
batches.epoch(data, model, batch_size, seed, 0)
# core/show/gallery.py tests/show/test_gallery.py
tf.sigmoid(logits) ~> tf.math.softplus(logits)
key, labels, numbers, scale) ~> key, labels, numbers - first, scale)
styles = rows if ~> styles = columns if
# core/training/estimators.py tests/training/test_estimators.py
zip(model.encoders, samples, by_samples, strict=True) ~>
zip(model.encoders[:1], samples, by_samples, strict=False)
# core/model/terms.py tests/training/test_objective.py
+ kl_weight * log_ratio ~> + log_ratio
# core/training/objective.py tests/training/test_objective.py
distortion + kl_weight * counted ~>
distortion + (counted if floor else kl_weight * rate)
# core/run/checkpoint.py tests/test_resume.py
os.fsync(file.fileno()) ~> pass
        _write(saver, folder, step, seconds)\n ~>
        _keep_newest(folder, step, keep), _write(saver, folder, step, seconds)\n
# core/run/files.py tests/test_resume.py
os.fsync(file.fileno()) ~> pass
# loop.py tests/test_resume.py
folder.add_epoch(record) ~> folder.save(done, seconds), folder.add_epoch(record)
if due or done == total or stopping ~> if due or stopping
# core/data/datasets.py tests/evaluation/test_record.py
return Split(pixels, labels) ~> return Split(pixels, labels[::-1])
# core/evaluation/likelihood.py tests/evaluation/test_likelihood.py
Split(*(tf.gather(part, rows) for part in split)) ~>
Split(tf.gather(split.pixels, rows), tf.gather(split.labels, rows[::-1]))
# core/evaluation/probes.py tests/evaluation/test_probes.py
z[:KNOWN], labels[:KNOWN] ~> z[:KNOWN], labels[-KNOWN:]
# core/show/figures.py tests/show/test_figures.py
np.full(10, labels[a]) ~> np.full(10, labels[b])
axes.set_yticks([28 * side - each for each in at], ~> axes.set_yticks(at,
# core/show/report.py tests/show/test_report.py
failed.append(name) ~> raise
# core/model/hierarchical.py tests/model/test_hierarchical.py
distributions.gaussian_sample(*mean_and_log_var, noise_1) ~> mean_and_log_var[0]
# core/model/hierarchical.py tests/evaluation/test_bounds.py
variance / max(z.shape[0] - 1, 1) ~> variance / z.shape[0]
"""


def bugs():
    """(file, tests, old text, new text) of each."""
    where = []
    for line in SEEDED.strip().replace("~>\n", "~> ").split("\n"):
        if line.startswith("# "):
            where = line.split()[1:]
        else:
            yield *where, *line.replace(r"\n", "\n").split(" ~> ")


def outcome(bug) -> str:
    """The first test that sees a bug."""
    file, tests, old, new = bug
    with tempfile.TemporaryDirectory() as copy:
        for name in ("core", "tests", "loop.py", "flags.py", ".pytest.ini"):
            whole = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            whole(ROOT / name, Path(copy, name))
        if (ROOT / file).read_text().count(old) != 1:
            return "NO PLACE"
        Path(copy, file).write_text((ROOT / file).read_text().replace(old, new))
        command = [sys.executable, "-B", "-m", "pytest", "-qx", tests]
        found = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    failed = [line for line in found.stdout.split("\n") if line.startswith("FAILED")]
    return failed[0].split(" - ")[0] if failed else "SURVIVED"


def main():
    words = sys.argv[1:] or [""]
    chosen = [bug for bug in bugs() if any(word in " ".join(bug) for word in words)]
    survived = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for bug, became in zip(chosen, pool.map(outcome, chosen), strict=True):
            print(f"{bug[0]}: {bug[2].strip()!r}: {became}", flush=True)
            survived += not became.startswith("FAILED")
    print(f"{len(chosen) - survived} of {len(chosen)} bugs were seen")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
