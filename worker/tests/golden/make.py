"""Makes the fixtures beside this file: what PyTorch computes, for the worker's engine to equal.

Run it from anywhere. On another version of PyTorch (the files name theirs in their metadata) or
another kind of CPU, last bits may differ, which the tests allow for:

    python3 -m venv venv
    venv/bin/pip install torch numpy safetensors
    venv/bin/python worker/tests/golden/make.py

Some rows have more channels, images or features than the engine takes in one go, and no multiple of
that: vectors hold up to 16 numbers, sums run over 64 rows or 1,024 features.
All inputs are numbers that f32 holds exactly, and all results are computed in f64. So the same
fixture judges an engine in either precision. Layouts are PyTorch's: it is the tests that convert.
Tensors are named `row/tensor`; the rows are those of the tables in `worker/src/train/golden/`.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import lr_scheduler as scheduling
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models import models

HERE = Path(__file__).parent
STEPS = 50


def numbers(*shape: int, scale: float = 1, mean: float = 0) -> Tensor:
    """Normal numbers that f32 holds exactly, as f64."""
    return (scale * torch.randn(shape, dtype=torch.float32) + mean).double()


def save(name: str, tensors: dict[str, Tensor]) -> None:
    tensors = {key: tensor.detach().double().contiguous() for key, tensor in tensors.items()}
    save_file(tensors, HERE / name, metadata={"pytorch": torch.__version__})


def differentiate(row: str, op, **inputs: Tensor) -> dict[str, Tensor]:
    """An op's inputs, its result `y`, a gradient `dy` of that, and the inputs' gradients."""
    inputs = {key: tensor.clone().requires_grad_() for key, tensor in inputs.items()}
    y = op(**inputs)
    dy = numbers(*y.shape)
    y.backward(dy)
    gradients = {f"d{key}": tensor.grad for key, tensor in inputs.items()}
    return {f"{row}/{key}": tensor for key, tensor in {**inputs, "y": y, "dy": dy, **gradients}.items()}


def with_relu(op):
    return lambda **inputs: F.relu(op(**inputs))


def ops() -> dict[str, Tensor]:
    tensors = {}

    def add(row: str, op, **inputs: Tensor) -> None:
        tensors.update(differentiate(row, op, **inputs))

    def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x.flatten(1), weight, bias)

    add("linear", linear, x=numbers(70, 37), weight=numbers(19, 37), bias=numbers(19))
    add("linear with ReLU", with_relu(linear), x=numbers(6, 37), weight=numbers(5, 37), bias=numbers(5))
    add("linear over images", linear, x=numbers(4, 3, 2, 5), weight=numbers(7, 30), bias=numbers(7))

    def convolution(stride: int, padding: int):
        return lambda x, weight, bias: F.conv2d(x, weight, bias, stride, padding)

    add(
        "convolution 5x5, padding 2",
        convolution(1, 2),
        x=numbers(2, 3, 7, 6),
        weight=numbers(4, 3, 5, 5),
        bias=numbers(4),
    )
    add(
        "convolution 5x5, padding 2, with ReLU",
        with_relu(convolution(1, 2)),
        x=numbers(2, 3, 7, 6),
        weight=numbers(4, 3, 5, 5),
        bias=numbers(4),
    )
    add(
        "convolution 3x3, stride 2, padding 1",
        convolution(2, 1),
        x=numbers(2, 4, 8, 7),
        weight=numbers(3, 4, 3, 3),
        bias=numbers(3),
    )
    add(
        "convolution 3x3, no padding",
        convolution(1, 0),
        x=numbers(3, 2, 5, 6),
        weight=numbers(19, 2, 3, 3),
        bias=numbers(19),
    )

    def max_pool(size: int, stride: int, padding: int):
        return lambda x: F.max_pool2d(x, size, stride, padding)

    add("max pool 2x2", max_pool(2, 2, 0), x=numbers(1, 19, 4, 5))
    add("max pool 3x3, stride 2", max_pool(3, 2, 0), x=numbers(2, 19, 5, 7))
    add("max pool 3x3, stride 2, padding 1", max_pool(3, 2, 1), x=numbers(2, 3, 6, 7))
    add("max pool 3x3, stride 2, with ties", max_pool(3, 2, 0), x=F.relu(numbers(2, 19, 5, 7)).round())

    def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, weight.shape, weight, bias)

    add("layer norm over features", layer_norm, x=numbers(2, 1030), weight=numbers(1030), bias=numbers(1030))
    add(
        "layer norm over features, with ReLU",
        with_relu(layer_norm),
        x=numbers(5, 37, scale=3, mean=2),
        weight=numbers(37),
        bias=numbers(37),
    )
    add(
        "layer norm over images",
        layer_norm,
        x=numbers(4, 3, 5, 2),
        weight=numbers(3, 5, 2),
        bias=numbers(3, 5, 2),
    )

    for row, scale, smoothing in [
        ("cross-entropy, label smoothing 0.0", 4, 0.0),
        ("cross-entropy, label smoothing 0.1", 4, 0.1),
        ("cross-entropy of large logits", 1000, 0.1),
    ]:
        labels = torch.randint(10, (8,))
        add(row, lambda x: F.cross_entropy(x, labels, label_smoothing=smoothing), x=numbers(8, 10, scale=scale))
        tensors[f"{row}/labels"] = labels
    return tensors


def mixed_losses() -> dict[str, Tensor]:
    """Cross-entropy of images that are made of two, as mixup and CutMix make them."""
    tensors = {}
    for row, share, smoothing in [
        ("a third of another", 0.3, 0.0),
        ("a third of another, label smoothing 0.1", 0.3, 0.1),
        ("half and half, label smoothing 0.1", 0.5, 0.1),
        ("nothing of another", 0.0, 0.0),
    ]:
        labels, other = torch.randint(10, (2, 8))
        first, second = F.one_hot(labels, 10).double(), F.one_hot(other, 10).double()
        targets = (1 - share) * first + share * second

        def loss(x: Tensor) -> Tensor:
            return F.cross_entropy(x, targets, label_smoothing=smoothing)

        tensors.update(differentiate(row, loss, x=numbers(8, 10, scale=4)))
        tensors |= {f"{row}/labels": labels, f"{row}/other": other}
        tensors[f"{row}/share"] = torch.tensor(share, dtype=torch.float64)
    return tensors


def batch_norms() -> dict[str, Tensor]:
    """Three batches in training, the running statistics after each, then the last in evaluation."""
    tensors = {}
    for row, shape, finish in [
        ("over features", (70, 19), nn.Identity()),
        ("over features, with ReLU", (6, 37), nn.ReLU()),
        ("over images", (3, 4, 5, 7), nn.Identity()),
        ("over images, with ReLU", (3, 19, 2, 3), nn.ReLU()),
    ]:
        channels = shape[1]
        mean, variance = torch.zeros(channels).double(), torch.ones(channels).double()
        weight, bias = numbers(channels), numbers(channels)

        def normalize(x: Tensor, weight: Tensor, bias: Tensor, training: bool) -> Tensor:
            return finish(F.batch_norm(x, mean, variance, weight, bias, training))

        def train(**inputs: Tensor) -> Tensor:
            return normalize(**inputs, training=True)

        for batch in (1, 2, 3):
            x = numbers(*shape, scale=batch, mean=2)
            key = f"{row}, batch {batch}"
            tensors.update(differentiate(key, train, x=x, weight=weight, bias=bias))
            tensors[f"{key}/running_mean"] = mean.clone()
            tensors[f"{key}/running_var"] = variance.clone()
        tensors[f"{row}, batch 3/evaluated"] = normalize(x, weight, bias, training=False)
    return tensors


class Lamb(torch.optim.Optimizer):
    """You et al. (2020), Algorithm 2, with φ(z) = z."""

    def __init__(self, params, **defaults):
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for x in group["params"]:
                state = self.state[x]
                t = state["t"] = state.get("t", 0) + 1
                m = state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * x.grad
                v = state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * x.grad**2
                r = m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + group["eps"])
                update = r + group["weight_decay"] * x
                x -= group["lr"] * x.norm() / update.norm() * update


class Lion(torch.optim.Optimizer):
    """Chen et al. (2023), Algorithm 2."""

    def __init__(self, params, **defaults):
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for x in group["params"]:
                m = self.state[x].get("m", torch.zeros_like(x))
                c = beta1 * m + (1 - beta1) * x.grad
                x -= group["lr"] * (torch.sign(c) + group["weight_decay"] * x)
                self.state[x]["m"] = beta2 * m + (1 - beta2) * x.grad


def optimizers() -> dict[str, Tensor]:
    """Where each optimizer goes in 50 steps over the same rough ground.

    The loss of step t at p is the sum of curvature * p² / 2 + pull[t] * p.
    """
    start, pull, curvature = numbers(12), numbers(STEPS, 12), numbers(12).abs()
    tensors = {"problem/start": start, "problem/pull": pull, "problem/curvature": curvature}
    optim = torch.optim
    for row, make in {
        "sgd": lambda p: optim.SGD(p, lr=0.05),
        "sgd with weight decay": lambda p: optim.SGD(p, lr=0.05, weight_decay=0.1),
        "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
        "momentum with weight decay": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
        "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        "nesterov with weight decay": lambda p: optim.SGD(
            p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.1
        ),
        "rmsprop": lambda p: optim.RMSprop(p, lr=0.02, alpha=0.99, eps=1e-8),
        "rmsprop, alpha 0.9": lambda p: optim.RMSprop(p, lr=0.02, alpha=0.9, eps=1e-3),
        "rmsprop with momentum": lambda p: optim.RMSprop(p, lr=0.02, alpha=0.95, eps=1e-8, momentum=0.9),
        "rmsprop with weight decay": lambda p: optim.RMSprop(
            p, lr=0.02, alpha=0.95, eps=1e-8, weight_decay=0.1
        ),
        "rmsprop with momentum and weight decay": lambda p: optim.RMSprop(
            p, lr=0.02, alpha=0.95, eps=1e-8, momentum=0.5, weight_decay=0.1
        ),
        "adam": lambda p: optim.Adam(p, lr=0.05),
        "adam, other betas": lambda p: optim.Adam(p, lr=0.05, betas=(0.8, 0.95), eps=1e-3),
        "adam with weight decay": lambda p: optim.Adam(p, lr=0.05, weight_decay=0.1),
        "adamw without weight decay": lambda p: optim.AdamW(p, lr=0.05, weight_decay=0.0),
        "adamw": lambda p: optim.AdamW(p, lr=0.05, weight_decay=0.1),
        "rmsprop, centered": lambda p: optim.RMSprop(p, lr=0.02, alpha=0.99, eps=1e-3, centered=True),
        "rmsprop, centered, with momentum and weight decay": lambda p: optim.RMSprop(
            p, lr=0.02, alpha=0.95, eps=1e-3, centered=True, momentum=0.5, weight_decay=0.1
        ),
        "adagrad": lambda p: optim.Adagrad(p, lr=0.1, eps=1e-10),
        "adagrad with decay of both kinds": lambda p: optim.Adagrad(
            p, lr=0.1, lr_decay=0.05, eps=1e-3, weight_decay=0.1
        ),
        "adadelta": lambda p: optim.Adadelta(p, lr=1, rho=0.9, eps=1e-6),
        "adadelta, rho 0.8, with weight decay": lambda p: optim.Adadelta(
            p, lr=0.5, rho=0.8, eps=1e-3, weight_decay=0.1
        ),
        "nadam": lambda p: optim.NAdam(p, lr=0.05),
        "nadam, other numbers, with weight decay": lambda p: optim.NAdam(
            p, lr=0.05, betas=(0.8, 0.95), eps=1e-3, momentum_decay=0.1, weight_decay=0.1
        ),
        "lamb": lambda p: Lamb(p, lr=0.02, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0),
        "lamb with weight decay": lambda p: Lamb(p, lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
        "lion": lambda p: Lion(p, lr=0.02, betas=(0.9, 0.99), weight_decay=0.0),
        "lion with weight decay": lambda p: Lion(p, lr=0.02, betas=(0.8, 0.95), weight_decay=0.1),
    }.items():
        place = start.clone().requires_grad_()
        optimizer = make([place])
        places = []
        for step in range(STEPS):
            optimizer.zero_grad()
            (curvature * place**2 / 2 + pull[step] * place).sum().backward()
            optimizer.step()
            places.append(place.detach().clone())
        tensors[f"{row}/places"] = torch.stack(places)
    return tensors


def initializations() -> dict[str, Tensor]:
    """For each initialisation and layer: PyTorch's fans, its formula, and moments of its own draws.

    `formula` is the standard deviation and the bound, infinite for normal distributions; `drawn` is
    mean, standard deviation, least and largest of one tensor that PyTorch has drawn, `bias_drawn` of
    the bias beside it. Of orthogonal ones there are the normal numbers that PyTorch drew, and the
    weight that it made of them.
    """
    fans = nn.init._calculate_fan_in_and_fan_out
    relu = nn.init.calculate_gain("relu")

    def normal(deviation: float) -> list[float]:
        return [deviation, math.inf]

    def uniform(deviation: float) -> list[float]:
        return [deviation, math.sqrt(3) * deviation]

    def xavier(weight: Tensor) -> float:
        return math.sqrt(2 / sum(fans(weight)))

    def truncated(deviation: float) -> list[float]:
        """Of a normal distribution that ends at -2 and 2."""
        end = 2 / deviation
        inside = math.erf(end / math.sqrt(2))
        density = math.exp(-(end**2) / 2) / math.sqrt(2 * math.pi)
        return [deviation * math.sqrt(1 - 2 * end * density / inside), 2.0]

    def kaiming(weight: Tensor, mode: int = 0, gain: float = relu) -> float:
        return gain / math.sqrt(fans(weight)[mode])

    def kaiming_normal(weight: Tensor) -> Tensor:
        return nn.init.kaiming_normal_(weight, nonlinearity="relu")

    def kaiming_uniform(weight: Tensor) -> Tensor:
        return nn.init.kaiming_uniform_(weight, nonlinearity="relu")

    tensors = {}
    for layer, shape in {
        "conv1": (32, 1, 5, 5),
        "conv2": (64, 32, 5, 5),
        "fc1": (256, 3136),
        "fc3": (10, 128),
    }.items():
        module = nn.Linear if len(shape) == 2 else nn.Conv2d
        default = module(shape[1], shape[0], *shape[2:3], dtype=torch.float64)
        weight = torch.empty(shape, dtype=torch.float64)
        for name, formula, draw in [
            ("normal", normal(0.02), lambda weight: nn.init.normal_(weight, std=0.02)),
            ("xavier_normal", normal(xavier(weight)), nn.init.xavier_normal_),
            ("xavier_uniform", uniform(xavier(weight)), nn.init.xavier_uniform_),
            ("kaiming_normal", normal(kaiming(weight)), kaiming_normal),
            ("kaiming_uniform", uniform(kaiming(weight)), kaiming_uniform),
            ("uniform", uniform(0.07 / math.sqrt(3)), lambda weight: nn.init.uniform_(weight, -0.07, 0.07)),
            ("truncated_normal", truncated(1.5), lambda weight: nn.init.trunc_normal_(weight, std=1.5)),
            (
                "xavier_uniform, gain of tanh",
                uniform(5 / 3 * xavier(weight)),
                lambda weight: nn.init.xavier_uniform_(weight, nn.init.calculate_gain("tanh")),
            ),
            (
                "kaiming_normal, fan_out",
                normal(kaiming(weight, mode=1)),
                lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu"),
            ),
            (
                "kaiming_uniform, gain of a linear layer",
                uniform(kaiming(weight, gain=1)),
                lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="linear"),
            ),
            (
                "pytorch_default",
                uniform(kaiming(weight, gain=nn.init.calculate_gain("leaky_relu", math.sqrt(5)))),
                lambda weight: weight.copy_(default.weight.detach()),
            ),
        ]:
            draw(weight)
            row = f"{name}, {layer}"
            tensors[f"{row}/fans"] = torch.tensor(fans(weight))
            tensors[f"{row}/formula"] = torch.tensor(formula, dtype=torch.float64)
            tensors[f"{row}/drawn"] = moments(weight)
        tensors[f"pytorch_default, {layer}/bias_drawn"] = moments(default.bias)

    for row, shape, gain in [
        ("orthogonal, wide", (19, 37), 1.0),
        ("orthogonal, tall", (37, 19), 2.0),
        ("orthogonal, square", (12, 12), 1.0),
        ("orthogonal, of a convolution", (35, 5, 3, 3), 0.5),
    ]:
        state = torch.get_rng_state()
        draw = torch.empty(shape, dtype=torch.float64).flatten(1).normal_()
        torch.set_rng_state(state)
        weight = nn.init.orthogonal_(torch.empty(shape, dtype=torch.float64), gain).flatten(1)
        tensors.update({f"{row}/draw": draw, f"{row}/weight": weight, f"{row}/gain": torch.tensor(gain)})
    return tensors


def moments(drawn: Tensor) -> Tensor:
    return torch.stack([drawn.mean(), drawn.std(), drawn.min(), drawn.max()])


def group_norms() -> dict[str, Tensor]:
    """Group normalisation, and instance normalisation, which is that with a group for each channel."""
    tensors = {}

    def add(row: str, op, shape: tuple[int, ...], **scale: float) -> None:
        channels = numbers(shape[1]), numbers(shape[1])
        tensors.update(differentiate(row, op, x=numbers(*shape, **scale), weight=channels[0], bias=channels[1]))

    def group_norm(groups: int):
        return lambda x, weight, bias: F.group_norm(x, groups, weight, bias)

    def instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.instance_norm(x, weight=weight, bias=bias)

    add("3 groups of features", group_norm(3), (5, 57))
    add("8 groups of features, with ReLU", with_relu(group_norm(8)), (6, 40), scale=3, mean=2)
    add("2 groups of channels", group_norm(2), (2, 38, 2, 3))
    add("4 groups of channels, with ReLU", with_relu(group_norm(4)), (2, 8, 3, 5), scale=3, mean=2)
    add("one group", group_norm(1), (2, 5, 3, 4))
    add("instance norm", instance_norm, (2, 19, 2, 3))
    add("instance norm, with ReLU", with_relu(instance_norm), (2, 3, 8, 9), scale=3, mean=2)
    return tensors


EPOCHS, STEPS_PER_EPOCH = 7, 5


def cosine(optimizer, warmup: int, total: int, final: float):
    """Linear warm-up that ends where the cosine begins; a step of the schedule for each of the optimizer."""
    peak = optimizer.param_groups[0]["lr"]
    annealing = scheduling.CosineAnnealingLR(optimizer, total - warmup, eta_min=final * peak)
    if warmup == 0:
        return annealing
    rise = scheduling.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return scheduling.SequentialLR(optimizer, [rise, annealing], milestones=[warmup])


def one_cycle(optimizer, total: int, **settings):
    peak = optimizer.param_groups[0]["lr"]
    return scheduling.OneCycleLR(optimizer, peak, total_steps=total, cycle_momentum=False, **settings)


def schedules() -> dict[str, Tensor]:
    """The learning rate of every step of a training, from 0.03, and the validation losses of its epochs."""
    total = EPOCHS * STEPS_PER_EPOCH
    losses = [1.0, 0.8, 0.79999, 0.85, 0.7, 0.71, 0.7]
    tensors = {"validation/losses": torch.tensor(losses, dtype=torch.float64)}
    each_step = {
        "constant": lambda it: scheduling.ConstantLR(it, factor=1),
        "cosine": lambda it: cosine(it, 0, total, 0.0),
        "cosine to a tenth": lambda it: cosine(it, 0, total, 0.1),
        "cosine with warm-up": lambda it: cosine(it, 7, total, 0.01),
        "one cycle": lambda it: one_cycle(it, total),
        "one cycle, other numbers": lambda it: one_cycle(
            it, total, pct_start=0.45, div_factor=10, final_div_factor=100
        ),
        "one cycle without a rise": lambda it: one_cycle(it, total, pct_start=0.0),
        "one cycle without a fall": lambda it: one_cycle(it, total, pct_start=1.0),
    }
    each_epoch = {
        "step": lambda it: scheduling.StepLR(it, step_size=2, gamma=0.3),
        "exponential": lambda it: scheduling.ExponentialLR(it, gamma=0.9),
        "plateau": lambda it: scheduling.ReduceLROnPlateau(it, factor=0.5, patience=1),
        "plateau without patience": lambda it: scheduling.ReduceLROnPlateau(it, factor=0.2, patience=0),
    }
    for row, make in {**each_step, **each_epoch}.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.03)
        schedule = make(optimizer)
        rates = []
        for loss in losses:
            for _ in range(STEPS_PER_EPOCH):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                if row in each_step and len(rates) < total:
                    schedule.step()
            if row.startswith("plateau"):
                schedule.step(loss)
            elif row in each_epoch:
                schedule.step()
        tensors[f"{row}/rates"] = torch.tensor(rates, dtype=torch.float64)
    return tensors


def steps() -> dict[str, Tensor]:
    """Where a weight and a bias go in 50 steps over rough ground, with all that surrounds an optimizer.

    The loss of step t at p is the sum of curvature * p² / 2 + pull[t] * p.
    """
    shapes = {"weight": (3, 4), "bias": (3,)}
    problem = {}
    for name, shape in shapes.items():
        problem[f"{name} start"] = numbers(*shape)
        problem[f"{name} pull"] = numbers(STEPS, *shape)
        problem[f"{name} curvature"] = numbers(*shape).abs()
    tensors = {f"problem/{name}": tensor for name, tensor in problem.items()}

    def momentum(p, **settings):
        return torch.optim.SGD(p.values(), lr=0.05, momentum=0.9, **settings)

    def weight_only(p, decay: float) -> list[dict]:
        return [{"params": [p["weight"]], "weight_decay": decay}, {"params": [p["bias"]], "weight_decay": 0.0}]

    def l1(p) -> Tensor:
        return 0.2 * p["weight"].abs().sum()

    def clip_norm(p) -> None:
        nn.utils.clip_grad_norm_(p.values(), 2.5)

    def clip_values(bound: float):
        return lambda p: nn.utils.clip_grad_value_(p.values(), bound)

    def clip_both(p) -> None:
        clip_values(1.0)(p)
        clip_norm(p)

    def keep(p) -> None:
        pass

    def no_penalty(p) -> float:
        return 0.0

    def no_schedule(optimizer):
        return scheduling.ConstantLR(optimizer, factor=1)

    for row, make, schedule, penalty, clip in [
        ("momentum by cosine with warm-up", momentum, lambda it: cosine(it, 7, STEPS, 0.0), no_penalty, keep),
        (
            "adamw by one cycle",
            lambda p: torch.optim.AdamW(p.values(), lr=0.05, weight_decay=0.1),
            lambda it: one_cycle(it, STEPS),
            no_penalty,
            keep,
        ),
        ("clipped by norm", momentum, no_schedule, no_penalty, clip_norm),
        ("clipped by value", momentum, no_schedule, no_penalty, clip_values(0.5)),
        ("clipped by value and norm", momentum, no_schedule, no_penalty, clip_both),
        ("l1", momentum, no_schedule, l1, keep),
        ("l1 and l2, clipped", lambda p: momentum(p, weight_decay=0.1), no_schedule, l1, clip_norm),
        (
            "weight decay of weights",
            lambda p: torch.optim.SGD(weight_only(p, 0.3), lr=0.05, momentum=0.9),
            no_schedule,
            no_penalty,
            keep,
        ),
        (
            "decoupled weight decay of weights",
            lambda p: torch.optim.AdamW(weight_only(p, 0.3), lr=0.05),
            no_schedule,
            no_penalty,
            keep,
        ),
        (
            "lamb",
            lambda p: Lamb(p.values(), lr=0.02, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.1),
            no_schedule,
            no_penalty,
            keep,
        ),
    ]:
        p = nn.ParameterDict({name: problem[f"{name} start"].clone() for name in shapes})
        optimizer = make(p)
        schedule = schedule(optimizer)
        average = AveragedModel(p, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        places = {name: [] for name in [*shapes, *(f"average {name}" for name in shapes)]}
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = penalty(p)
            for name in shapes:
                loss = loss + (problem[f"{name} curvature"] * p[name] ** 2 / 2).sum()
                loss = loss + (problem[f"{name} pull"][step] * p[name]).sum()
            loss.backward()
            clip(p)
            optimizer.step()
            average.update_parameters(p)
            if step < STEPS - 1:
                schedule.step()
            for name in shapes:
                places[name].append(p[name].detach().clone())
                places[f"average {name}"].append(average.module[name].detach().clone())
        tensors.update({f"{row}/{name}": torch.stack(all) for name, all in places.items()})
    return tensors


def model_ops() -> dict[str, Tensor]:
    """Ops that only some models have."""
    tensors = {}
    for row, op, x in [
        ("global average pool", lambda x: x.mean((2, 3)), numbers(2, 19, 9, 8)),
        # Large numbers: with small ones nothing but the offset of 2 would be seen.
        ("local response norm", lambda x: F.local_response_norm(x, 5, k=2), numbers(2, 19, 3, 2, scale=400)),
        (
            "local response norm of few channels",
            lambda x: F.local_response_norm(x, 5, k=2),
            numbers(2, 3, 2, 2, scale=400),
        ),
        ("bilinear to 9x7", lambda x: F.interpolate(x, (9, 7), mode="bilinear"), numbers(2, 3, 4, 5)),
        ("bilinear to 13x4", lambda x: F.interpolate(x, (13, 4), mode="bilinear"), numbers(2, 1, 5, 2)),
        ("bilinear to 2x3", lambda x: F.interpolate(x, (2, 3), mode="bilinear"), numbers(1, 2, 5, 7)),
    ]:
        tensors.update(differentiate(row, op, x=x))
    return tensors


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Each with a seed of its own, so that another function changes no other's numbers.
    seeds = {
        ops: 0,
        batch_norms: 1,
        optimizers: 2,
        initializations: 3,
        schedules: 4,
        steps: 5,
        group_norms: 4,
        model_ops: 4,
        models: 5,
        mixed_losses: 4,
    }
    for make, seed in seeds.items():
        torch.manual_seed(seed)
        save(f"{make.__name__}.safetensors", make())
