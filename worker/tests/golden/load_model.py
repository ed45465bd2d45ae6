"""Loads a model of Fitting Room into PyTorch and evaluates it on the test images.

    venv/bin/pip install torch numpy safetensors
    venv/bin/python worker/tests/golden/load_model.py best/model.safetensors /usr/share/datasets/fashion-mnist

For `fcn` and `lenet`, as `fittingroom best --out best` or `fittingroom-worker train --save` writes them.
With `--predictions` after the two it prints the class of each image in place of the accuracy, as
`fittingroom-worker predict` does, so that the two can be compared image by image.
"""

import gzip
import itertools
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor


def forward(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    numbers = itertools.count(1)

    def norm(x: Tensor) -> Tensor:
        weight, bias, mean, variance = (
            w.get(f"norm{number}.{name}")
            for number in [next(numbers)]
            for name in ["weight", "bias", "running_mean", "running_var"]
        )
        if mean is not None:
            return F.batch_norm(x, mean, variance, weight, bias)
        return x if weight is None else F.layer_norm(x, weight.shape, weight, bias)

    for conv in sorted(name[:-7] for name in w if name.startswith("conv") and name.endswith(".weight")):
        x = F.conv2d(x, w[f"{conv}.weight"], w[f"{conv}.bias"], padding=2)
        x = F.max_pool2d(F.relu(norm(x)), 2)
    x = x.flatten(1)
    last = sum(name.startswith("fc") and name.endswith(".weight") for name in w)
    for number in range(1, last + 1):
        x = F.linear(x, w[f"fc{number}.weight"], w[f"fc{number}.bias"])
        x = x if number == last else F.relu(norm(x))
    return x


def idx(folder: Path, name: str, header: int) -> Tensor:
    path = folder / name
    data = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{name}.gz").read_bytes())
    return torch.frombuffer(bytearray(data[header:]), dtype=torch.uint8)


if __name__ == "__main__":
    model, folder, *flags = sys.argv[1:]
    with safe_open(model, "pt") as file:
        record, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    settings = json.loads(record["hyperparameters"])
    for name, known in [("model", ["fcn", "lenet"]), ("normalization", ["none", "batch", "layer"])]:
        if settings[name] not in known:
            sys.exit(f"this script does not know {name} = {settings[name]}")
    if record["input"] != "fixed":
        sys.exit("this script does not know inputs that are standardised by image")
    shape = json.loads(record["shape"])
    labels = idx(Path(folder), "t10k-labels-idx1-ubyte", 8)
    images = idx(Path(folder), "t10k-images-idx3-ubyte", 16).view(-1, 1, shape["height"], shape["width"])
    x = (images / 255 - float(record["input_mean"])) / float(record["input_std"])
    classes = torch.cat([forward(batch, weights).argmax(1) for batch in x.split(500)])
    right = int((classes == labels).sum())
    print(*classes.tolist(), sep="\n") if "--predictions" in flags else None
    print(f"{right} of {len(labels)} test images right: {100 * right / len(labels):.2f} %", file=sys.stderr)
