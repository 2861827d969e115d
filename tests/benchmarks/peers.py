"""The same training in this project and in others: one function for each system.

Each is a worker (see `workers`): it takes its `Turns` and the settings of the work,
and trains an epoch at every turn: all training images in a new order, in whole batches,
grey pixels, one sample of z, the analytic KL, the Bernoulli log-likelihood from logits,
Adam at 1e-3, all in float32. The model is 784-hidden_sizes-latent_dim and back; its
last bias starts at the ink density of the training images, so that the losses agree.
"""

import itertools
import math
import os

import numpy as np

from core.data import idx

RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


def training_images(data_dir: str) -> np.ndarray:
    """uint8 [N, 784]."""
    images = idx.load(data_dir)[0].images
    return images.reshape(len(images), -1)


def ink_logit(images: np.ndarray) -> float:
    """Where the bias of the logits starts."""
    mean = images.mean() / 255
    return math.log(mean / (1 - mean))


def network_sizes(hidden_sizes, latent_dim: int):
    """The widths of the encoder, whose last are mean and log variance side by side, and
    of the decoder."""
    encoder = (784, *hidden_sizes, 2 * latent_dim)
    return encoder, (latent_dim, *reversed(hidden_sizes), 784)


# --- This project ---------------------------------------------------------------------


def prepare(images: int = 0, **values):
    """(model, state, data, settings) as the program makes them for these flags; with
    `images`, of so many training images (rows repeat where there are fewer)."""
    import tensorflow as tf

    from core import settings as settings_of
    from core.data import batches, datasets
    from core.model.build import build
    from core.training import state as states

    adam = {"learning_rate": RATE, "beta1": BETA1, "beta2": BETA2, "epsilon": EPSILON}
    adam["learning_rate_schedule"] = "constant"
    others_do = {"epochs": 1000, "validation_size": 0, "ema_decay": 0.0} | adam
    values = others_do | values
    values["hidden_sizes"] = tuple(values["hidden_sizes"])
    settings = settings_of.of_values(values)
    data = datasets.load(settings.data, print)
    if images:
        rows = np.arange(images) % len(data.train.pixels)
        repeated = (tf.constant(part.numpy()[rows]) for part in data.train)
        data = data._replace(train=datasets.Split(*repeated))
    model = build(settings.model)
    ink = batches.mean_pixel(data.train.pixels)
    params = model.init(settings.run.seed, ink)
    return model, states.init(params, settings.adam), data, settings


def epochs(model, state, data, settings):
    """Train as `loop.train` does, by its own `train_block`, but without what comes
    between blocks and between epochs: the mean loss of each epoch."""
    import tensorflow as tf

    import loop
    from core import numerics
    from core.data import batches
    from core.training import schedules

    loss_settings, adam_settings = settings.objective, settings.adam
    seed, batch_size = settings.run.seed, settings.training.batch_size
    epoch_steps = len(data.train.pixels) // batch_size
    horizon = schedules.horizon(loss_settings, settings.training.epochs, epoch_steps)
    noise_shape = batches.noise_shape(model, loss_settings, batch_size, epoch_steps)
    jit = numerics.compiles(model, settings.run)
    train_block = tf.function(loop.train_block, jit_compile=jit)
    for number in range(settings.training.epochs):
        state.totals.assign(tf.zeros_like(state.totals))
        epoch, done = batches.epoch(data, model, batch_size, seed, number), 0
        while done < epoch_steps:
            first = tf.constant(number * epoch_steps + done)
            noise = batches.noise(seed, first, noise_shape)
            count = min(len(noise), epoch_steps - done)
            block = batches.block(epoch, done, noise, count)
            taken, *_ = train_block(
                model, state, block, loss_settings, adam_settings, horizon
            )
            done += int(taken)
        yield float(state.totals[0]) / epoch_steps


def this_project(turns, **values):
    """The program's training, without what comes between epochs."""
    losses = epochs(*prepare(**values))
    turns.serve(lambda: {"loss": next(losses)})


# --- Others ---------------------------------------------------------------------------


def tensorflow_steps(turns, data_dir, hidden_sizes, latent_dim, activation, batch_size):
    """Plain TensorFlow: images in memory, one call of a compiled function a step."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    activate = getattr(tf.nn, activation)

    def layers(sizes):
        for inputs, outputs in itertools.pairwise(sizes):
            limit = (6 / (inputs + outputs)) ** 0.5
            w = tf.random.uniform([inputs, outputs], -limit, limit)
            yield tf.Variable(w), tf.Variable(tf.zeros([outputs]))

    def apply(network, x):
        for w, b in network[:-1]:
            x = activate(x @ w + b)
        w, b = network[-1]
        return x @ w + b

    sizes = network_sizes(hidden_sizes, latent_dim)
    encoder, decoder = networks = [list(layers(widths)) for widths in sizes]
    variables = tf.nest.flatten(networks)
    slots = [[tf.Variable(tf.zeros_like(p)) for _ in "mv"] for p in variables]
    powers = tf.Variable(BETA1), tf.Variable(BETA2)
    total = tf.Variable(0.0)
    images = training_images(data_dir)
    decoder[-1][1].assign_add(tf.fill([784], ink_logit(images)))
    images, steps = tf.constant(images), len(images) // batch_size

    def negative_elbo(x):
        mean, log_var = tf.split(apply(encoder, x), 2, axis=1)
        z = mean + tf.exp(log_var / 2) * tf.random.normal(tf.shape(mean))
        logits = apply(decoder, z)
        pixels = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
        rate = tf.reduce_sum(mean**2 + tf.exp(log_var) - 1 - log_var, 1) / 2
        return tf.reduce_mean(tf.reduce_sum(pixels, 1) + rate)

    @tf.function(jit_compile=True)
    def train_step(rows):
        x = tf.cast(tf.gather(images, rows), tf.float32) / 255
        with tf.GradientTape() as tape:
            loss = negative_elbo(x)
        grads = tape.gradient(loss, variables)
        for p, (m, v), grad in zip(variables, slots, grads, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=p.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=powers[0],
                beta2_power=powers[1],
                lr=RATE,
                beta1=BETA1,
                beta2=BETA2,
                epsilon=EPSILON,
                grad=grad,
            )
        powers[0].assign(powers[0] * BETA1)
        powers[1].assign(powers[1] * BETA2)
        total.assign_add(loss)

    def epoch():
        total.assign(0.0)
        order = tf.random.shuffle(tf.range(len(images)))[: steps * batch_size]
        for rows in tf.unstack(tf.reshape(order, [steps, batch_size])):
            train_step(rows)
        return {"loss": float(total) / steps}

    turns.serve(epoch)


def keras_fit(turns, data_dir, hidden_sizes, latent_dim, activation, batch_size):
    """Keras 3 on TensorFlow: layers, a train_step of one's own, `fit` with XLA."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf
    from keras import ops

    def stack(sizes, bias=0.0):
        inner = [keras.layers.Dense(n, activation=activation) for n in sizes[1:-1]]
        start = keras.initializers.Constant(bias)
        last = keras.layers.Dense(sizes[-1], bias_initializer=start)
        return keras.Sequential([*inner, last])

    class Autoencoder(keras.Model):
        def __init__(self):
            super().__init__()
            encoder, decoder = network_sizes(hidden_sizes, latent_dim)
            self.encoder, self.decoder = stack(encoder), stack(decoder, bias)
            self.seeds = keras.random.SeedGenerator(0)
            self.mean_loss = keras.metrics.Mean(name="loss")

        @property
        def metrics(self):
            return [self.mean_loss]

        def train_step(self, x):
            with tf.GradientTape() as tape:
                mean, log_var = ops.split(self.encoder(x), 2, axis=1)
                noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
                logits = self.decoder(mean + ops.exp(log_var / 2) * noise)
                pixels = ops.binary_crossentropy(x, logits, from_logits=True)
                rate = ops.square(mean) + ops.exp(log_var) - 1 - log_var
                rate = ops.sum(rate, 1) / 2
                loss = ops.mean(ops.sum(pixels, 1) + rate)
            grads = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(grads, self.trainable_variables)
            self.mean_loss.update_state(loss)
            return {"loss": self.mean_loss.result()}

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            turns.begin()

        def on_epoch_end(self, epoch, logs=None):
            turns.end(loss=float(logs["loss"]))

    images = training_images(data_dir)
    bias = ink_logit(images)
    x = images[: len(images) // batch_size * batch_size].astype(np.float32) / 255
    model = Autoencoder()
    optimizer = keras.optimizers.Adam(RATE, BETA1, BETA2, EPSILON)
    model.compile(optimizer=optimizer, jit_compile=True)
    x = ops.convert_to_tensor(x)  # on the card, where there is one
    more = dict(verbose=0, callbacks=[Clock()])
    model.fit(x, batch_size=batch_size, epochs=1000, **more)


def pytorch(turns, data_dir, hidden_sizes, latent_dim, activation, batch_size):
    """PyTorch: modules and its Adam, in a plain loop over tensors in memory."""
    import torch
    from torch.nn import functional

    class Network(torch.nn.Module):
        def __init__(self, sizes):
            super().__init__()
            pairs = itertools.pairwise(sizes)
            self.layers = torch.nn.ModuleList(torch.nn.Linear(*pair) for pair in pairs)
            for layer in self.layers:
                torch.nn.init.xavier_uniform_(layer.weight)
                torch.nn.init.zeros_(layer.bias)

        def forward(self, x):
            for layer in self.layers[:-1]:
                x = getattr(functional, activation)(layer(x))
            return self.layers[-1](x)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = network_sizes(hidden_sizes, latent_dim)
    encoder, decoder = (Network(widths).to(device) for widths in sizes)
    adam = torch.optim.Adam(
        [*encoder.parameters(), *decoder.parameters()], RATE, (BETA1, BETA2), EPSILON
    )
    images = training_images(data_dir)
    torch.nn.init.constant_(decoder.layers[-1].bias, ink_logit(images))
    images = torch.tensor(images.astype(np.float32) / 255, device=device)
    steps = len(images) // batch_size

    def epoch():
        total = 0.0
        order = torch.randperm(len(images), device=device)[: steps * batch_size]
        for rows in order.split(batch_size):
            x = images[rows]
            mean, log_var = encoder(x).chunk(2, dim=1)
            z = mean + torch.exp(log_var / 2) * torch.randn_like(mean)
            distortion = functional.binary_cross_entropy_with_logits(
                decoder(z), x, reduction="sum"
            )
            rate = torch.sum(mean.square() + log_var.exp() - 1 - log_var) / 2
            loss = (distortion + rate) / batch_size
            adam.zero_grad()
            loss.backward()
            adam.step()
            total += loss.detach()
        return {"loss": float(total) / steps}

    turns.serve(epoch)


def jax_scan(turns, data_dir, hidden_sizes, latent_dim, activation, batch_size):
    """JAX: the whole epoch as one compiled `lax.scan`."""
    from functools import partial

    import jax
    from jax import numpy as jnp

    activate = getattr(jax.nn, activation)
    if activation == "gelu":
        activate = partial(activate, approximate=False)

    def init(key, sizes):
        pairs = list(itertools.pairwise(sizes))
        glorot = jax.nn.initializers.glorot_uniform()
        keys = jax.random.split(key, len(pairs))
        weights = map(glorot, keys, pairs)
        return [(w, jnp.zeros(w.shape[1])) for w in weights]

    def apply(network, x):
        for w, b in network[:-1]:
            x = activate(x @ w + b)
        w, b = network[-1]
        return x @ w + b

    def negative_elbo(params, x, key):
        encoder, decoder = params
        mean, log_var = jnp.split(apply(encoder, x), 2, axis=1)
        z = mean + jnp.exp(log_var / 2) * jax.random.normal(key, mean.shape)
        logits = apply(decoder, z)
        distortion = jnp.sum(jax.nn.softplus(logits) - x * logits, 1)
        rate = jnp.sum(mean**2 + jnp.exp(log_var) - 1 - log_var, 1) / 2
        return jnp.mean(distortion + rate)

    def adam(p, m, v, t):
        m_hat, v_hat = m / (1 - BETA1**t), v / (1 - BETA2**t)
        return p - RATE * m_hat / (jnp.sqrt(v_hat) + EPSILON)

    @jax.jit
    def train_epoch(state, images, key):
        steps = len(images) // batch_size
        order = jax.random.permutation(key, len(images))[: steps * batch_size]

        def train_step(state, rows):
            params, m, v, t = state
            x, t = images[rows].astype(jnp.float32) / 255, t + 1
            noise_key = jax.random.fold_in(key, t)
            loss, grads = jax.value_and_grad(negative_elbo)(params, x, noise_key)
            m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
            v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
            params = jax.tree.map(partial(adam, t=t), params, m, v)
            return (params, m, v, t), loss

        state, losses = jax.lax.scan(
            train_step, state, order.reshape(steps, batch_size)
        )
        return state, losses.mean()

    images = training_images(data_dir)
    keys = map(partial(jax.random.fold_in, jax.random.key(0)), itertools.count())
    sizes = network_sizes(hidden_sizes, latent_dim)
    params = [init(next(keys), widths) for widths in sizes]
    w, b = params[1][-1]
    params[1][-1] = w, b + ink_logit(images)
    images = jnp.asarray(images)
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = params, zeros, zeros, jnp.int32(0)

    def epoch():
        nonlocal state
        state, loss = train_epoch(state, images, next(keys))
        return {"loss": float(loss)}

    turns.serve(epoch)
