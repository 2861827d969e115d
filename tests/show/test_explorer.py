import base64
import functools
import html
import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from core import settings
from core.data import batches, datasets
from core.errors import UserError
from core.evaluation import bounds
from core.model import distributions, hierarchical, networks, terms
from core.model.build import build
from core.settings import Settings, values_of
from core.show import explorer
from tests.conftest import run

ONE = dict(hidden_sizes=(9, 7), latent_dim=3)
TWO = dict(stochastic_layers=2, latent_dims=(4, 3), upper_hidden_sizes=(6,))
CONV = dict(architecture="conv", filters=(3, 4), latent_dim=3)
LEARNED = dict(prior_components=5, flow_layers=3, flow_units=6)
KINDS = {name: ONE | dict(activation=name) for name in networks.ACTIVATIONS}
KINDS |= {
    "two dimensions": ONE | dict(latent_dim=2),
    "one dimension": ONE | dict(latent_dim=1),
    "a hundred dimensions": ONE | dict(latent_dim=100),
    "deep": dict(hidden_sizes=(6,) * 12, latent_dim=2, activation="tanh"),
    "conditional": ONE | dict(conditional=True),
    "conv": CONV,
    "conv conditional": CONV | dict(conditional=True),
    "two layers": ONE | TWO,
    "two layers conditional": ONE | TWO | dict(conditional=True),
    "two layers conv": CONV | TWO,
    "conditional flow": ONE | LEARNED | dict(prior="flow", conditional=True),
    "flow of two dimensions": ONE | LEARNED | dict(prior="flow", latent_dim=2),
}
for name in ("mixture", "vamp", "flow"):
    KINDS[name] = ONE | LEARNED | dict(prior=name)
    KINDS[f"two layers {name}"] = ONE | TWO | LEARNED | dict(prior=name)
every_kind = pytest.mark.parametrize("kind", KINDS)
SOME = "gelu", "conv conditional", "two layers flow", "vamp"  # of all families
some_kinds = pytest.mark.parametrize("kind", SOME)


class Folder:
    """What is asked of a `RunFolder`."""

    step = 30

    def __init__(self, path, asked):
        self.path, self.recorded = path, {"flags": values_of(asked)}


class Made:
    """A page of a model whose weights are random, biases and priors included."""

    def __init__(self, folder, digits, kind="gelu", binarization="dynamic"):
        asked = Settings(model=settings.Model(**KINDS.get(kind, {})))
        self.model, random = build(asked.model), np.random.default_rng(3)
        self.weights = self.model.init(0, 0.13)
        for name, variable in networks.named_variables(self.weights):
            if kind in KINDS and not name.endswith("inputs"):
                variable.assign_add(random.normal(0, 0.15, variable.shape))
        given = settings.Data(validation_size=30, binarization=binarization)
        self.data = datasets.split("tiny", *digits, given)
        self.path = folder / "figures" / "explorer.html"
        self.folder = Folder(folder, asked)

    @property
    def parts(self):
        return self.model, self.weights, self.data, self.folder

    def write(self, **changes):
        explorer.write(self.path, *self.parts, **changes)
        return self

    def page(self):
        return content(self.path)

    def images(self):
        """Test images cut at one half, x and y."""
        labels = self.data.test.labels if self.model.conditional else None
        return batches.to_batch(self.data.test.pixels >= 128, labels)


@pytest.fixture(scope="session")
def make(tmp_path_factory, digits):
    """make(kind, binarization="dynamic") -> a page, made once."""

    @functools.cache
    def made(*asked):
        return Made(tmp_path_factory.mktemp("page") / "run", digits, *asked).write()

    return made


def content(path):
    text = path.read_text("utf-8")
    found = re.findall('<script type="application/json" id="page">(.*?)</script>', text)
    assert len(found) == 1
    return json.loads(found[0])


def body(made):
    """The page's <body> tag."""
    return re.search("<body.*?>", made.path.read_text("utf-8"))[0]


def unpacked(array):
    """What `explorer.packed` packed."""
    scale = np.frombuffer(base64.b64decode(array["scale"]), "<f4")
    whole = np.frombuffer(base64.b64decode(array["int16"]), "<i2")
    return whole.reshape(array["shape"]) * scale


# --- What stands in the page ----------------------------------------------------------


def test_numbers_are_kept_within_half_a_step_of_their_column():
    array = np.random.default_rng(0).normal(size=(50, 3)) * [1e-4, 1, 300]
    array[:, 1] = 0
    error = np.abs(unpacked(explorer.packed(array)) - array)
    assert np.all(error <= np.abs(array).max(axis=0) / 65_000)
    bias = np.float32(array[0])
    np.testing.assert_allclose(unpacked(explorer.packed(bias)), bias, rtol=1e-6)


@some_kinds
def test_a_page_has_the_weights_of_its_model(make, kind):
    made = make(kind)
    found = made.page()
    kept = {
        name: unpacked(array)
        for name, array in leaves(found["weights"])
        if name != "prior"
    }
    there = dict(networks.named_variables(made.weights))
    if made.model.prior.parts:
        there = {name: w for name, w in there.items() if not name.startswith("prior")}
    assert {*kept} == {*there}
    for name, array in there.items():
        limit = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0) / 65_000
        assert np.all(np.abs(kept[name] - array) <= limit + 1e-12), name
    assert ("prior" in found["weights"]) == (made.model.prior.parts is None)


def leaves(weights, before=""):
    for name, value in weights.items():
        if "int16" in value:
            yield before + name, value
        else:
            yield from leaves(value, f"{before}{name}/")


@some_kinds
def test_a_page_has_the_posteriors_of_test_images(make, kind):
    made = make(kind)
    found, (x, y) = made.page(), made.images()
    mean, log_var = made.model.encode(made.weights, x, y)
    assert [layer["mean"]["shape"][1] for layer in found["layers"]] == [
        *made.model.latent_dims
    ]
    lowest = found["layers"][0]
    np.testing.assert_allclose(unpacked(lowest["mean"]), mean, atol=1e-3)
    np.testing.assert_allclose(unpacked(lowest["log_var"]), log_var, atol=3e-3)
    assert found["labels"] == made.data.test.labels.numpy().tolist()
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
    assert np.array_equal(np.unpackbits(pixels.reshape(60, -1), axis=1), x)


@some_kinds
def test_dimensions_stand_in_the_order_of_what_is_known_of_them(make, kind):
    made = make(kind)
    split = datasets.fix(made.data._replace(binarization="threshold"), "test", 0)
    found = bounds.evaluate(made.model, made.weights, split, "test", 0)
    for layer, kl in zip(made.page()["layers"], found.kl_per_dim, strict=True):
        mean = unpacked(layer["mean"])
        known = len(kl) == mean.shape[1]
        expected = kl if known else mean.var(axis=0)
        assert layer["measure"] == ("KL" if known else "variance")
        np.testing.assert_allclose(layer["values"], expected, atol=2e-3)
        assert layer["order"] == np.argsort(-expected).tolist()
        assert layer["active"] == (mean.var(axis=0) > 0.01).tolist()


@pytest.mark.parametrize("binarization", ["dynamic", "none"])
def test_the_means_are_of_images_cut_at_one_half(make, binarization):
    """Whatever the run was trained on: a grey pixel has no likelihood."""
    made = make("gelu", binarization)
    cut = datasets.Split(made.data.test.pixels >= 128, made.data.test.labels)
    expected = bounds.evaluate(made.model, made.weights, cut, "test", 0)
    found = made.page()
    assert found["distortion"] == pytest.approx(expected.distortion)
    assert found["rate"] == pytest.approx(expected.rate)
    assert found["images"] == 60
    assert ("grey" in body(made)) == (binarization == "none")


def test_a_map_has_some_of_many_images(make, monkeypatch):
    monkeypatch.setattr(explorer, "IMAGES", 7)
    found = make("relu").page()
    assert len(found["labels"]) == found["layers"][0]["mean"]["shape"][0] == 7
    assert found["images"] == 60


def test_a_page_may_be_of_validation_images(make):
    made = make("tanh").write(kind="validation")
    found = made.page()
    assert (found["kind"], found["images"]) == ("validation", 30)


HOSTILE = "</script><!--<b>&\"'$style\u2028 $$ \udcff"


def test_names_cannot_leave_their_place(tmp_path, digits):
    made = Made(tmp_path / HOSTILE.replace("/", ""), digits)
    made.data.record["name"] = HOSTILE
    made.path = tmp_path / "page.html"
    text = made.write().path.read_text("utf-8")
    assert "<b>" not in text and "<!--" not in text and text.count("</script>") == 2
    title = html.unescape(re.search("<title>(.*?)</title>", text, re.DOTALL)[1])
    footer = html.unescape(re.search("<footer>.*</footer>", text, re.DOTALL)[0])
    name = HOSTILE.replace("\udcff", "?")  # what is no character cannot be written
    assert title == f"{name.replace('/', '')}: a model of {name}"
    assert f"Data: {name}" in footer and str(tmp_path) in footer


def test_no_text_can_end_the_script_that_it_stands_in():
    found = explorer.embedded({"a": HOSTILE})
    assert not set(found) & {"<", "\u2028"} and found.isascii()
    assert json.loads(found) == {"a": HOSTILE}


def test_a_page_asks_for_nothing(make):
    text = make("gelu").path.read_text("utf-8")
    assert "default-src 'none'" in text
    outside = r"""https?:|//\w+\.|src=|@import|url\(|<link|fetch\(|import\b"""
    assert not re.findall(outside, re.sub(r"id=\"page\">.*", "", text))


def test_the_default_model_takes_less_than_four_megabytes(tmp_path, digits):
    """With as many images as a page has: 2,000 here stand for more."""
    many = digits[0], type(digits[1])(*(np.repeat(a, 34, axis=0) for a in digits[1]))
    made = Made(tmp_path, many, "default").write()
    assert made.model.latent_dims == (2,)
    assert made.page()["layers"][0]["mean"]["shape"][0] == explorer.IMAGES
    assert made.path.stat().st_size < 4e6


# --- The mode -------------------------------------------------------------------------


def test_the_mode_writes_the_page_of_a_run(trained, capsys):
    short = {"run_dir": trained["run_dir"], "mode": "explore"}
    run(short)
    path = f"{trained['run_dir']}/figures/explorer.html"
    assert f"Open it in a browser: {path}" in capsys.readouterr().out
    found = content(explorer.Path(path))
    assert found["activation"] == "relu" and found["images"] == 60
    assert "after 30 steps" in explorer.Path(path).read_text("utf-8")
    with pytest.raises(UserError, match="--num_images is not used by --mode=explore"):
        run(short, num_images=3)


def test_a_page_that_cannot_be_written_leaves_nothing(make, tmp_path):
    made = make("gelu")
    (tmp_path / "figures").write_text("a file in the way")
    with pytest.raises(OSError):
        explorer.write(tmp_path / "figures" / "explorer.html", *made.parts)
    assert [*tmp_path.iterdir()] == [tmp_path / "figures"]


# --- In a browser ---------------------------------------------------------------------


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; skips where there is none, or nothing to drive it with."""
    selenium = pytest.importorskip("selenium.webdriver", reason="no selenium here")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip(f"no browser here: expected {' or '.join(BROWSERS)}, chromedriver")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    found = selenium.Chrome(options, selenium.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture
def visit(browser, make):
    """visit(kind) -> (`Made`, the browser on its page); at the end the page has said
    nothing on the console and asked for nothing but itself."""
    paths = []

    def open_page(*asked):
        made = make(*asked)
        paths.append(made.path.as_uri())
        browser.get(made.path.as_uri())
        browser.execute_script("render()")
        return made, browser

    yield open_page
    said = [entry["message"] for entry in browser.get_log("browser")]
    assert [message for message in said if "getImageData" not in message] == []  # tests
    events = [
        json.loads(e["message"])["message"] for e in browser.get_log("performance")
    ]
    sent = [e for e in events if e["method"] == "Network.requestWillBeSent"]
    urls = {e["params"]["request"]["url"] for e in sent}
    assert {url for url in urls if not url.startswith("data:")} <= {*paths}


READ = """
const read = (canvas) => [...canvas.getContext("2d").getImageData(0, 0, 28, 28).data]
  .filter((_, i) => i % 4 === 3);
const list = (value) => Array.from(value);
"""


def ask(browser, script, *given):
    return browser.execute_script(READ + script, *given)


def points(made, count=100):
    """count z for each layer, [count, D], and labels."""
    random = np.random.default_rng(5)
    z = [random.normal(0, 1.5, [count, d]).astype("f4") for d in made.model.latent_dims]
    return z, random.integers(0, 10, count)


def one_hot(made, labels):
    return batches.one_hot(labels) if made.model.conditional else None


@pytest.mark.slow
@every_kind
def test_the_page_paints_what_the_decoder_does(visit, kind):
    made, browser = visit(kind)
    z, labels = points(made)
    y = one_hot(made, labels)
    expected = 255 * tf.sigmoid(made.model.decode(made.weights, z[0], y)).numpy()
    found = ask(
        browser,
        """return arguments[0].map((z, i) => {
          Object.assign(state, { z: z.map((each) => Float32Array.of(...each)) });
          state.y = arguments[1][i];
          render();
          return read(document.querySelector(".decoded"));
        });""",
        [[layer[i].tolist() for layer in z] for i in range(len(labels))],
        labels.tolist(),
    )
    assert np.ptp(expected) > 30
    assert np.abs(np.array(found) - expected).max() <= 2


@pytest.mark.slow
@every_kind
def test_the_page_says_what_log_p_of_z_is(visit, kind):
    made, browser = visit(kind)
    z, labels = points(made)
    upper = made.model.prior.log_prob(made.weights, z[-1][None])[0].numpy()
    if len(z) == 2:
        activation = networks.ACTIVATIONS[KINDS[kind].get("activation", "gelu")]
        y = one_hot(made, labels)
        p = hierarchical.lower_prior(made.weights, z[1], y, activation=activation)
        by_dim = distributions.gaussian_log_prob(z[0], *p)
        upper = upper + tf.reduce_sum(by_dim, axis=-1).numpy()
    found = ask(
        browser,
        """return arguments[0].map((z, i) =>
          logPrior(z.map((each) => Float32Array.of(...each)), arguments[1][i]));""",
        [[layer[i].tolist() for layer in z] for i in range(len(labels))],
        labels.tolist(),
    )
    np.testing.assert_allclose(found, upper, rtol=1e-3, atol=2e-2)


@pytest.mark.slow
@every_kind
def test_the_page_encodes_and_measures_as_the_model_does(visit, kind):
    made, browser = visit(kind)
    x, y = made.images()
    noise = unpacked(made.page()["noise"]).astype("f4")[:, None]
    for i in range(3):
        one = x[i : i + 1], None if y is None else y[i : i + 1]
        label = int(made.data.test.labels[i])
        asked = x[i].numpy().tolist(), label
        found = ask(
            browser,
            """const x = Float32Array.of(...arguments[0]), y = arguments[1];
            const q = infer(encode(x, y), still, y).map((layer) =>
              [list(layer.mean), list(layer.log_var)]);
            return { ...measure(x, y), q };""",
            *asked,
        )
        q = made.model.encode(made.weights, *one)
        np.testing.assert_allclose(found["q"][0], [part[0] for part in q], atol=1e-2)
        inference = made.model.infer(made.weights, one[0], noise, one[1])
        distortion = -np.mean(terms.log_likelihood(inference, one[0]))
        assert found["distortion"] == pytest.approx(distortion, abs=0.05)
        assert found["rate"] == pytest.approx(terms.kl(inference)[0].numpy(), abs=0.05)
        still = made.model.infer(made.weights, one[0], 0 * noise[:1], one[1])
        for layer, (mean, _) in zip(still.latents, found["q"], strict=True):
            np.testing.assert_allclose(mean, layer.z[0, 0], atol=1e-2)


@pytest.mark.slow
def test_the_page_bounds_log_variances_as_the_model_does(visit):
    _, browser = visit("gelu")
    outputs = [1.0, 2.0, 0.5, 30.0]
    expected = distributions.gaussian_parameters(tf.constant(outputs))
    script = """const q = gaussian(Float32Array.of(...arguments[0]));
      return [list(q.mean), list(q.log_var)];"""
    assert ask(browser, script, outputs) == [part.numpy().tolist() for part in expected]


@pytest.mark.slow
@every_kind
def test_everything_can_be_done_without_a_mouse(visit, kind):
    """Tab comes to everything, and arrows, Space and Enter do what a pointer does."""
    from selenium.webdriver.common.keys import Keys

    made, browser = visit(kind)

    def press(*keys):
        for key in keys:
            browser.switch_to.active_element.send_keys(key)
        browser.execute_script("render()")

    def focus(name):
        browser.execute_script("document.getElementById(arguments[0]).focus()", name)

    seen = """const all = "button, input, select, summary, [tabindex]";
      return [...document.querySelectorAll(all)].filter((e) => e.checkVisibility())"""
    wanted = ask(
        browser, f"window.wanted = (() => {{ {seen} }})(); return wanted.length"
    )
    browser.execute_script("document.activeElement.blur(); window.reached = new Set()")
    body = browser.find_element("tag name", "body")
    body.send_keys(Keys.TAB)
    for _ in range(wanted + 2):
        ask(browser, "reached.add(document.activeElement)")
        press(Keys.TAB)
    missing = "return wanted.filter((e) => !reached.has(e)).map((e) => e.outerHTML)"
    assert ask(browser, missing) == []
    named = """return wanted.filter((e) => !(e.ariaLabel || e.closest("label")
      || e.textContent.trim())).map((e) => e.outerHTML)"""
    assert ask(browser, named) == []

    z = "return list(state.z[state.layer])"
    before = ask(browser, z)
    focus("map")
    press(Keys.ARROW_RIGHT, Keys.ARROW_UP)
    after = ask(browser, z)
    moved = np.flatnonzero(np.array(before) != after).tolist()
    assert moved == ask(browser, "return state.dims")
    press(Keys.ENTER)
    assert ask(browser, "return list(state.ends[1][state.layer])") == after
    focus("pad")
    press(" ", *[Keys.ARROW_RIGHT] * 12, *[Keys.ARROW_DOWN] * 9, " ", Keys.ARROW_UP)
    x = np.array(ask(browser, "return list(state.x)")).reshape(28, 28)
    assert set(np.unique(x)) == {0, 1} and np.ptp(np.flatnonzero(x.any(axis=0))) >= 18
    q = ask(browser, "return list(state.q.at(-1).mean)")
    assert ask(browser, z) == q
    focus("sample")
    press(" ")
    assert ask(browser, z) != q
    focus("clear")
    press(" ")
    assert ask(browser, "return state.x") is None
    focus("density")
    press(" ")
    shade = 'return list($("shade").getContext("2d").getImageData(0, 0, 300, 300).data)'
    assert len(set(ask(browser, shade)[3::4])) > 2
    assert ask(browser, "return document.querySelectorAll('.pixels').length") >= 12


@pytest.mark.slow
def test_the_lines_hold_the_shares_of_the_prior_that_they_say(visit):
    """However little of it the map shows; and no line joins its two sides."""
    _, browser = visit("gelu")
    found = """
      const draws = range(page.draws.shape[0]).map((i) => row(page.draws, i));
      return levels(parts, draws)"""
    heights = ask(browser, found)
    expected = [(1 - share) / (2 * np.pi) for share in (0.5, 0.9, 0.99)]
    np.testing.assert_allclose(heights, expected, rtol=0.5)
    ask(browser, "spans = [[0.5, 0.6], [0.5, 0.6]]")
    assert ask(browser, found) == heights
    shade = """
      spans = [[-9, 0], [-9, 9]]; // where the prior is cut at the right
      paintDensities([{ mean: Array(9).fill(-5), log_var: Array(9).fill(-30) }]);
      const shown = $("shade").getContext("2d").getImageData(0, 0, 300, 300).data;
      return list(shown).filter((_, i) => i % 4 === 3)"""
    alpha = np.array(ask(browser, shade)).reshape(300, 300)
    assert np.count_nonzero(alpha[:, -1] == 255) < 10
    assert np.count_nonzero((alpha > 100) & (alpha < 255)) >= 1  # narrower than a cell


@pytest.mark.slow
def test_a_drawing_is_prepared_as_the_digits_were(visit):
    """Its box is scaled into 20x20, its center of mass is in the middle of 28x28."""
    from selenium.webdriver.common.action_chains import ActionChains

    _, browser = visit("gelu")
    pad = browser.find_element("id", "pad")
    chain = ActionChains(browser).move_to_element_with_offset(pad, 60, -100)
    chain.click_and_hold().move_by_offset(30, 50).move_by_offset(-40, 60).release()
    chain.perform()
    x = np.array(ask(browser, "return list(state.x)")).reshape(28, 28)
    rows, columns = np.nonzero(x)
    assert set(np.unique(x)) == {0, 1}
    assert np.ptp(rows) + 1 == pytest.approx(20, abs=1) and np.ptp(columns) < 15
    assert rows.mean() + 0.5 == pytest.approx(14, abs=0.7)
    assert columns.mean() + 0.5 == pytest.approx(14, abs=0.7)
    browser.execute_script("tell()")
    table = browser.find_element("id", "numbers").text
    assert table.startswith("your drawing ") and "mean of 60 test images" in table


@pytest.mark.slow
def test_a_pointer_moves_the_point_and_a_click_keeps_it(visit):
    from selenium.webdriver.common.action_chains import ActionChains

    _, browser = visit("two dimensions")
    shape = browser.find_element("id", "map")
    ActionChains(browser).move_to_element_with_offset(shape, 40, 30).perform()
    hovered, ends = ask(
        browser, "return [list(state.z[0]), state.ends.map(e => list(e[0]))]"
    )
    ActionChains(browser).click().perform()
    z, kept = ask(browser, "return [list(state.z[0]), state.ends.map(e => list(e[0]))]")
    assert z == hovered == kept[1] and kept[0] == ends[1]
    middle = np.mean(ask(browser, "return spans"), axis=1)
    assert np.all(np.array(z) > middle)  # to the right, and above
    browser.find_element("id", "play").click()
    browser.implicitly_wait(1)
    assert browser.find_element("id", "play").text == "Stop"
    browser.find_element("id", "play").click()


@pytest.mark.slow
@pytest.mark.parametrize("binarization", ["dynamic", "none"])
def test_a_model_of_grey_pixels_has_a_loss(visit, binarization):
    _, browser = visit("gelu", binarization)
    grey = binarization == "none"
    assert browser.find_element("id", "total").text == ("= loss" if grey else "= −ELBO")
    said = "its loss is no" in browser.find_element("tag name", "main").text
    assert said == grey


@pytest.mark.slow
def test_a_class_is_chosen_for_the_same_z(visit):
    _, browser = visit("conditional")
    z = ask(browser, "return list(state.z[0])")
    browser.find_element("css selector", "#classes button:nth-child(8)").click()
    browser.execute_script("render()")
    assert ask(browser, "return [list(state.z[0]), state.y]") == [z, 7]
    pressed = browser.find_elements("css selector", "#classes [aria-pressed=true]")
    assert [button.text for button in pressed] == ["7"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.parametrize("kind", ["gelu", "a hundred dimensions", "two layers"])
def test_nothing_is_wider_than_the_screen(visit, browser, width, kind):
    size = dict(width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        visit(kind)
        assert ask(browser, "return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
