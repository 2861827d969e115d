import numpy as np
import pytest
import tensorflow as tf

from core import numerics
from core.data import datasets
from core.errors import UserError
from core.onward import scores
from core.run.folder import RunFolder
from core.settings import Data, Run, Training


def normal(mean, deviations, count=200_000):
    random = np.random.default_rng(0)
    return mean + random.standard_normal([count, len(deviations)]) * deviations


def test_the_frechet_distance_of_normal_distributions_is_the_formula():
    """Along axes: (m_a - m_b)^2 + (s_a - s_b)^2 in each dimension."""
    a, b = normal([0, 0], [1, 2]), normal([3, 0], [2, 0.5])
    assert scores.frechet_distance(a, b) == pytest.approx(9 + 1 + 2.25, rel=0.01)
    assert scores.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_does_not_depend_on_the_axes():
    a, b = normal([0, 0, 1], [1, 2, 3]), normal([1, 0, 0], [2, 1, 1])
    turned = np.linalg.qr(np.random.default_rng(1).standard_normal([3, 3]))[0]
    found = scores.frechet_distance(a @ turned, b @ turned)
    assert found == pytest.approx(scores.frechet_distance(a, b), rel=1e-6)
    shifted = a + [0, 0, 5]
    assert scores.frechet_distance(a, shifted) == pytest.approx(25, rel=1e-6)


def test_the_frechet_distance_bears_a_feature_that_is_always_zero():
    a = np.pad(normal([0], [1], 1000), ((0, 0), (0, 1)))
    assert scores.frechet_distance(a, a + [1, 0]) == pytest.approx(1, abs=1e-6)


def test_shares_agree_with_those_that_are_counted_one_by_one(monkeypatch):
    monkeypatch.setattr(scores, "CHUNK", 7)
    random = np.random.default_rng(2)
    a, b = random.standard_normal([30, 4]), random.standard_normal([40, 4]) + 0.5
    within = 0
    for x in a:
        radii = [np.sort(np.linalg.norm(b - y, axis=1))[3] for y in b]
        within += np.any(np.linalg.norm(b - x, axis=1) <= radii)
    assert 0 < within < 30
    assert scores.share_within(a, b) == pytest.approx(within / 30)


def test_a_mode_that_is_dropped_costs_recall_and_not_precision():
    two = np.concatenate([normal([0, 0], [1, 1], 300), normal([50, 0], [1, 1], 300)])
    one = normal([0.0, 0.0], [1, 1], 600) + 1e-3
    assert scores.share_within(one, two) > 0.9
    assert scores.share_within(two, one) < 0.55


# --- The classifier and the table -----------------------------------------------------


@pytest.fixture(scope="module")
def data(digits):
    return datasets.split("tiny", *digits, Data(validation_size=30))


@pytest.fixture
def few(monkeypatch):
    """A shorter training, and without compilation."""
    shorter = scores.CLASSIFIER._replace(training=Training(2, 20))
    monkeypatch.setattr(scores, "CLASSIFIER", shorter)
    monkeypatch.setattr(scores, "SAMPLES", 120)
    monkeypatch.setattr(scores, "CHUNK", 25)
    with numerics.execution(eager=True):
        yield


def test_the_classifier_is_a_function_of_the_seed(data, few):
    first, again, other = (scores.train(data, seed) for seed in (0, 0, 1))
    x = data.test.pixels
    looked = [scores.look_at(params, x) for params in (first, again, other)]
    np.testing.assert_array_equal(looked[0], looked[1])
    assert looked[0].shape == (60, 128) and np.any(looked[0] != looked[2])
    guesses = np.argmax(looked[0] @ first["head"]["w"] + first["head"]["b"], axis=1)
    assert np.mean(guesses == data.test.labels) > 0.5


def test_the_table_has_a_row_for_each_set_and_ranks_them(
    tmp_path, data, few, two_epochs, capsys
):
    """Images of the training set, as a model that knows them by heart would draw."""
    vaes = scores.open_vaes(str(two_epochs))
    drawn = tf.cast(data.train.pixels[:120], tf.float32) / 255
    with RunFolder(Run(run_dir=str(tmp_path))) as folder:
        scores.report(folder, data, vaes, "parrot", drawn, 0)
    text = (tmp_path / "scores.txt").read_text()
    assert text in capsys.readouterr().out
    rows = {line[:22].strip(): line[22:].split() for line in text.split("\n")}
    assert text.startswith("60 of each") and "this project alone" in text
    training, vae = rows["training images"], rows[str(two_epochs)[-22:]]
    assert rows["parrot"] == training  # wherever a set stands, its draw is the same
    assert float(vae[0]) > float(training[0]) and float(vae[3]) > float(training[3])
    assert (tmp_path / "figures" / "samples.png").exists()


def test_a_vae_of_other_data_is_not_scored(data, two_epochs, digits):
    vaes = scores.open_vaes(str(two_epochs))
    scores.expect_comparable(data, vaes)
    other = datasets.split("other", *reversed(digits), Data(validation_size=30))
    other = other._replace(train=data.train, test=data.test)
    with pytest.raises(
        UserError,
        match="other data .tiny, not this other.: name others, or none by --runs=",
    ):
        scores.expect_comparable(other, vaes)


def test_as_many_are_scored_of_each_as_there_are_of_all(tmp_path, data, few):
    test = datasets.Split(*(tf.concat([part] * 6, axis=0) for part in data.test))
    with RunFolder(Run(run_dir=str(tmp_path))) as folder:
        drawn = tf.cast(data.train.pixels[:120], tf.float32) / 255
        fewer = datasets.Split(*(part[:70] for part in data.train))
        data = data._replace(train=fewer, test=test)
        scores.report(folder, data, {}, "parrot", drawn, 0)
    assert (tmp_path / "scores.txt").read_text().startswith("70 of each")


def test_only_vaes_that_are_there_and_need_no_labels_are_opened(
    two_epochs, monkeypatch
):
    assert scores.open_vaes("") == scores.open_vaes("/nowhere") == {}
    found = scores.open_vaes(f"/nowhere,{two_epochs}")
    assert [*found] == [str(two_epochs)]
    (model, *rest) = found[str(two_epochs)]
    opened = model._replace(conditional=True), *rest
    monkeypatch.setattr(scores, "open_run", lambda folder: opened)
    with pytest.raises(UserError, match="without --conditional"):
        scores.open_vaes(str(two_epochs))
