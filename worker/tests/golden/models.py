"""The worker's models in PyTorch, with the worker's names; `make.py` makes fixtures of them.

Weights and images of whole models are too many for a fixture: they are filled with a pattern that
the worker's tests compute for themselves, and of each gradient the fixture has its length and its
products with four patterns.
"""

import math

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def no_norm(_channels: int) -> nn.Module:
    return nn.Identity()


class Fcn(nn.Module):
    def __init__(self, hidden: list[int], norm):
        super().__init__()
        self.depth, sizes = len(hidden), [784, *hidden]
        for layer in range(1, self.depth + 1):
            setattr(self, f"fc{layer}", nn.Linear(sizes[layer - 1], sizes[layer]))
            setattr(self, f"norm{layer}", norm(sizes[layer]))
        setattr(self, f"fc{self.depth + 1}", nn.Linear(sizes[-1], 10))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in range(1, self.depth + 1):
            x = F.relu(getattr(self, f"norm{layer}")(getattr(self, f"fc{layer}")(x)))
        return getattr(self, f"fc{self.depth + 1}")(x)


class Cnn(nn.Module):
    def __init__(self, channels: list[int], size: int, hidden: list[int], norm=no_norm, linear_norm=no_norm):
        super().__init__()
        self.convolutions, channels = len(channels), [1, *channels]
        for number in range(1, len(channels)):
            inputs, outputs = channels[number - 1 : number + 1]
            setattr(self, f"conv{number}", nn.Conv2d(inputs, outputs, size, padding=(size - 1) // 2))
            setattr(self, f"norm{number}", norm(outputs))
        features = self.images(torch.zeros(2, 1, 28, 28)).flatten(1).shape[1]
        self.linears, sizes = len(hidden), [features, *hidden, 10]
        for number in range(1, len(sizes)):
            setattr(self, f"fc{number}", nn.Linear(sizes[number - 1], sizes[number]))
        for number, outputs in enumerate(hidden, self.convolutions + 1):
            setattr(self, f"norm{number}", linear_norm(outputs))

    def images(self, x: Tensor) -> Tensor:
        for number in range(1, self.convolutions + 1):
            x = F.max_pool2d(F.relu(getattr(self, f"norm{number}")(getattr(self, f"conv{number}")(x))), 2)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.images(x).flatten(1)
        for number in range(1, self.linears + 1):
            norm = getattr(self, f"norm{self.convolutions + number}")
            x = F.relu(norm(getattr(self, f"fc{number}")(x)))
        return getattr(self, f"fc{self.linears + 1}")(x)


class LeNet(nn.Module):
    def __init__(self, norm=no_norm, linear_norm=no_norm):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 32, 5, padding=2), norm(32)
        self.conv2, self.norm2 = nn.Conv2d(32, 64, 5, padding=2), norm(64)
        self.fc1, self.norm3 = nn.Linear(3136, 256), linear_norm(256)
        self.fc2, self.norm4 = nn.Linear(256, 128), linear_norm(128)
        self.fc3 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        x = F.relu(self.norm3(self.fc1(x.flatten(1))))
        return self.fc3(F.relu(self.norm4(self.fc2(x))))


class Dnn(nn.Module):
    def __init__(self, depth: int, width: int, residual: bool, norm):
        super().__init__()
        self.depth, self.residual = depth, residual
        for layer in range(1, depth + 1):
            setattr(self, f"fc{layer}", nn.Linear(784 if layer == 1 else width, width))
            setattr(self, f"norm{layer}", norm(width))
        setattr(self, f"fc{depth + 1}", nn.Linear(width, 10))

    def layer(self, kind: str, number: int) -> nn.Module:
        return getattr(self, f"{kind}{number}")

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if not self.residual:
            for number in range(1, self.depth + 1):
                x = F.relu(self.layer("norm", number)(self.layer("fc", number)(x)))
            return self.layer("fc", self.depth + 1)(x)
        x = self.fc1(x)
        for number in range(1, self.depth):
            x = x + self.layer("fc", number + 1)(F.relu(self.layer("norm", number)(x)))
        return self.layer("fc", self.depth + 1)(F.relu(self.layer("norm", self.depth)(x)))


class AlexNet(nn.Module):
    def __init__(self, units: int, norm=no_norm, linear_norm=no_norm):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 64, 3, padding=1), norm(64)
        self.conv2, self.norm2 = nn.Conv2d(64, 192, 3, padding=1), norm(192)
        self.conv3, self.norm3 = nn.Conv2d(192, 384, 3, padding=1), norm(384)
        self.conv4, self.norm4 = nn.Conv2d(384, 256, 3, padding=1), norm(256)
        self.conv5, self.norm5 = nn.Conv2d(256, 256, 3, padding=1), norm(256)
        self.fc1, self.norm6 = nn.Linear(1024, units), linear_norm(units)
        self.fc2, self.norm7 = nn.Linear(units, units), linear_norm(units)
        self.fc3 = nn.Linear(units, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 3, 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 3, 2)
        x = F.relu(self.norm4(self.conv4(F.relu(self.norm3(self.conv3(x))))))
        x = F.max_pool2d(F.relu(self.norm5(self.conv5(x))), 3, 2)
        x = F.relu(self.norm6(self.fc1(x.flatten(1))))
        return self.fc3(F.relu(self.norm7(self.fc2(x))))


class OriginalAlexNet(nn.Module):
    def __init__(self, units: int):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1)
        self.fc1, self.fc2, self.fc3 = nn.Linear(9216, units), nn.Linear(units, units), nn.Linear(units, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, (227, 227), mode="bilinear", align_corners=False)
        x = F.max_pool2d(F.local_response_norm(F.relu(self.conv1(x)), 5, k=2), 3, 2)
        x = F.max_pool2d(F.local_response_norm(F.relu(self.conv2(x)), 5, k=2), 3, 2)
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = F.max_pool2d(F.relu(self.conv5(x)), 3, 2)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


class Vgg(nn.Module):
    def __init__(self):
        super().__init__()
        channels = [1, 64, 64, 128, 128, 256, 256]
        for number in range(1, 7):
            setattr(self, f"conv{number}", nn.Conv2d(channels[number - 1], channels[number], 3, padding=1))
            setattr(self, f"norm{number}", nn.BatchNorm2d(channels[number]))
        self.fc1, self.norm7, self.fc2 = nn.Linear(2304, 512), nn.BatchNorm1d(512), nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        for number in range(1, 7):
            x = F.relu(getattr(self, f"norm{number}")(getattr(self, f"conv{number}")(x)))
            if number % 2 == 0:
                x = F.max_pool2d(x, 2)
        return self.fc2(F.relu(self.norm7(self.fc1(x.flatten(1)))))


class ResNet(nn.Module):
    """Pre-activation blocks; where a block changes the shape, both of its paths begin after ReLU."""

    def __init__(self, first: int, channels: list[int], blocks: int, norm):
        super().__init__()
        self.blocks = []
        self.numbers = {"conv": 0, "norm": 0, "shortcut": 0}
        self.add("conv", nn.Conv2d(1, first, 3, padding=1))
        inputs = first
        for stage, outputs in enumerate(channels):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                norm1 = self.add("norm", norm(inputs))
                conv1 = self.add("conv", nn.Conv2d(inputs, outputs, 3, stride, padding=1))
                norm2 = self.add("norm", norm(outputs))
                conv2 = self.add("conv", nn.Conv2d(outputs, outputs, 3, padding=1))
                same = stride == 1 and inputs == outputs
                shortcut = None if same else self.add("shortcut", nn.Conv2d(inputs, outputs, 1, stride))
                self.blocks.append((norm1, conv1, norm2, conv2, shortcut))
                inputs = outputs
        self.last = self.add("norm", norm(inputs))
        self.fc1 = nn.Linear(inputs, 10)

    def add(self, kind: str, layer: nn.Module) -> str:
        self.numbers[kind] += 1
        name = f"{kind}{self.numbers[kind]}"
        setattr(self, name, layer)
        return name

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for names in self.blocks:
            norm1, conv1, norm2, conv2, shortcut = (name and getattr(self, name) for name in names)
            active = F.relu(norm1(x))
            around = x if shortcut is None else shortcut(active)
            x = conv2(F.relu(norm2(conv1(active)))) + around
        x = F.relu(getattr(self, self.last)(x))
        return self.fc1(x.mean((2, 3)))


def of_settings(settings: dict) -> nn.Module:
    """The model of a trial's hyperparameters; `KeyError` for one that is not known here."""
    norm, linear_norm = {"none": (no_norm, no_norm), "batch": (nn.BatchNorm2d, nn.BatchNorm1d)}[
        settings["normalization"]
    ]
    if settings["model"] == "alexnet" and settings["alexnet_geometry"] == "original":
        return {"none": OriginalAlexNet(settings["classifier_units"])}[settings["normalization"]]
    return {
        "fcn": lambda: Fcn(settings["hidden_sizes"], linear_norm),
        "dnn": lambda: Dnn(settings["depth"], settings["width"], settings["residual"], linear_norm),
        "cnn": lambda: Cnn(
            settings["channels"], settings["kernel_size"], settings["hidden_sizes"], norm, linear_norm
        ),
        "lenet": lambda: LeNet(norm, linear_norm),
        "alexnet": lambda: AlexNet(settings["classifier_units"], norm, linear_norm),
        "vgg": lambda: {"batch": Vgg()}[settings["normalization"]],
        "resnet": lambda: ResNet(settings["channels"][0], settings["channels"], settings["blocks"], norm),
    }[settings["model"]]()


MODELS = {
    "dnn": (6, lambda: Dnn(3, 20, residual=False, norm=nn.LayerNorm)),
    "dnn with shortcuts": (6, lambda: Dnn(3, 20, residual=True, norm=nn.BatchNorm1d)),
    "cnn": (5, lambda: Cnn([16, 20], 3, [24], nn.BatchNorm2d, nn.BatchNorm1d)),
    "cnn of even windows": (5, lambda: Cnn([5, 6, 7], 4, [24, 12])),
    "alexnet": (3, lambda: AlexNet(24)),
    "the original alexnet": (2, lambda: OriginalAlexNet(24)),
    "vgg": (12, Vgg),
    "resnet": (4, lambda: ResNet(6, [6, 6, 9], 2, nn.BatchNorm2d)),
    "resnet without norms": (4, lambda: ResNet(6, [6, 6, 9], 2, no_norm)),
    "wide_resnet": (4, lambda: ResNet(16, [32, 64, 128], 1, nn.BatchNorm2d)),
}


def pattern(name: str, count: int) -> Tensor:
    """Numbers from -0.5 to 0.5: 16 bits of a hash of name and place (FNV-1a, MurmurHash3's last step)."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = (seed ^ byte) * 0x01000193 % 2**32
    place = numpy.arange(count, dtype=numpy.uint32)
    value = numpy.uint32(seed) + place * numpy.uint32(0x9E3779B9)
    value = (value ^ (value >> 16)) * numpy.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * numpy.uint32(0xC2B2AE35)
    value = value ^ (value >> 16)
    return torch.from_numpy((value >> 16).astype(numpy.float64) / 65536 - 0.5)


def weight_width(inputs: int) -> float:
    """A power of two, so that products with it are exact, near the width of He's uniform initialisation."""
    return 2.0 ** round(math.log2(2 * math.sqrt(6 / inputs)))


def fill(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        layer, kind = name.rsplit(".", 1)
        values = pattern(name, parameter.numel())
        if kind == "bias":
            values = 0.25 * values
        elif layer.startswith("norm"):
            values = 1 + 0.5 * values
        else:
            values = weight_width(parameter[0].numel()) * values
        parameter.data = values.reshape(parameter.shape)


def probes(name: str, gradient: Tensor) -> Tensor:
    """A gradient's length, and its products with four patterns."""
    gradient = gradient.flatten()
    products = [gradient @ pattern(f"{name}, probe {which}", gradient.numel()) for which in range(1, 5)]
    return torch.stack([gradient.norm(), *products])


def models() -> dict[str, Tensor]:
    """For whole models in training: logits, and what `probes` says of each gradient of the mean loss."""
    tensors = {}
    for row, (batch, make) in MODELS.items():
        model = make().double()
        fill(model)
        images = 4 * pattern("images", batch * 784).reshape(batch, 1, 28, 28)
        labels = torch.arange(batch) * 3 % 10
        logits = model(images)
        F.cross_entropy(logits, labels).backward()
        tensors[f"{row}/logits"] = logits
        for name, parameter in model.named_parameters():
            tensors[f"{row}/d{name}"] = probes(name, parameter.grad)
    return tensors
