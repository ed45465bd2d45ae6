"""Loads a model of Fitting Room into PyTorch and evaluates it on the test images.

    venv/bin/pip install torch numpy safetensors
    venv/bin/python worker/tests/golden/load_model.py best/model.safetensors /usr/share/datasets/fashion-mnist

Takes what `fittingroom best --out best` or `fittingroom-worker train --save` writes, for the models that
`models.py` knows. With `--predictions` after the two it prints the class of each image in place of the
accuracy, as `fittingroom-worker predict` does, so that the two can be compared image by image.
"""

import gzip
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open

from models import of_settings


def idx(folder: Path, name: str, header: int) -> torch.Tensor:
    path = folder / name
    data = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{name}.gz").read_bytes())
    return torch.frombuffer(bytearray(data[header:]), dtype=torch.uint8)


if __name__ == "__main__":
    file, folder, *flags = sys.argv[1:]
    with safe_open(file, "pt") as opened:
        record, weights = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}
    if record["input"] != "fixed":
        sys.exit("this script does not know inputs that are standardised by image")
    model = of_settings(json.loads(record["hyperparameters"])).eval()
    model.load_state_dict(weights)
    labels = idx(Path(folder), "t10k-labels-idx1-ubyte", 8)
    images = idx(Path(folder), "t10k-images-idx3-ubyte", 16).view(-1, 1, 28, 28)
    x = (images / 255 - float(record["input_mean"])) / float(record["input_std"])
    with torch.no_grad():
        classes = torch.cat([model(batch).argmax(1) for batch in x.split(500)])
    right = int((classes == labels).sum())
    print(*classes.tolist(), sep="\n") if "--predictions" in flags else None
    print(f"{right} of {len(labels)} test images right: {100 * right / len(labels):.2f} %", file=sys.stderr)
