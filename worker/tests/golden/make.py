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
    mean, standard deviation, least and largest of one tensor that PyTorch has drawn.
    """
    fans = nn.init._calculate_fan_in_and_fan_out
    relu = nn.init.calculate_gain("relu")

    def normal(deviation: float) -> list[float]:
        return [deviation, math.inf]

    def uniform(deviation: float) -> list[float]:
        return [deviation, math.sqrt(3) * deviation]

    def xavier(weight: Tensor) -> float:
        return math.sqrt(2 / sum(fans(weight)))

    def kaiming(weight: Tensor) -> float:
        return relu / math.sqrt(fans(weight)[0])

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
        weight = torch.empty(shape, dtype=torch.float64)
        for name, formula, draw in [
            ("normal", normal(0.02), lambda weight: nn.init.normal_(weight, std=0.02)),
            ("xavier_normal", normal(xavier(weight)), nn.init.xavier_normal_),
            ("xavier_uniform", uniform(xavier(weight)), nn.init.xavier_uniform_),
            ("kaiming_normal", normal(kaiming(weight)), kaiming_normal),
            ("kaiming_uniform", uniform(kaiming(weight)), kaiming_uniform),
        ]:
            draw(weight)
            row = f"{name}, {layer}"
            tensors[f"{row}/fans"] = torch.tensor(fans(weight))
            tensors[f"{row}/formula"] = torch.tensor(formula, dtype=torch.float64)
            tensors[f"{row}/drawn"] = torch.stack([weight.mean(), weight.std(), weight.min(), weight.max()])
    return tensors


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed, make in enumerate([ops, batch_norms, optimizers, initializations, mixed_losses]):
        torch.manual_seed(seed)
        save(f"{make.__name__}.safetensors", make())
