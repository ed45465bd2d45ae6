"""Trains the same models with Fitting Room and with PyTorch, and compares them.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors
    cargo build --release
    venv/bin/python worker/tests/golden/compare_training.py \
        --program target/release/fittingroom-worker --data /usr/share/datasets/fashion-mnist

For each case PyTorch draws initial weights, `fittingroom-worker train` starts from them with
`--shuffle off`, and PyTorch does the same epochs: the same split (`--print-split`), the same order,
inputs standardised by the training images, the last partial batch kept. Losses and accuracies of
every epoch, the final weights and the running statistics are compared; the exit code is 1 where one
is further off than its tolerance.

Both compute in 32 bits but add in other orders, so that they part by rounding, and at once by more
where a rounding sends a ReLU or a max pooling another way. The last two columns say how far each is
from PyTorch in 64 bits, Fitting Room and PyTorch in 32 bits: what is rounding alone. The lengths
and settings are chosen so that rounding stays small and the comparison tight:

- Adam's epsilon is 1e-3. Pixels that are black in every image act as a bias, which batch normalisation
  takes away: their gradients are nothing but rounding, of which Adam with its usual epsilon of 1e-8
  makes full steps. With that, PyTorch's own fc1.weight in 32 bits was 14 % from the one in 64 bits after
  170 steps.
- A bias before batch normalisation is left out for the same reason, and the running mean is compared
  less that bias.
- LeNet has 1,000 images, which is 30 steps: with 2,000, and so 58 steps, a validation loss of PyTorch in
  32 bits was 0.9 % from the one in 64 bits, and 0.9 % from Fitting Room's.

- AlexNet has 250 images, which is 8 steps: with 500, and so 16 steps, a bias in the middle was 5e-4 from PyTorch's.

Measured on an x86-64 CPU with PyTorch 2.15: losses at most 1.1e-7 apart, tensors at most 4e-6, with AlexNet
1.3e-5, no image classified otherwise. The tolerances leave room for other CPUs: 1e-6, 2e-5 and one validation image.
A jump far beyond them in both columns on the right, or in PyTorch's alone, is a rounding that sent one
of the two another way: other lengths or seeds tell it from a mistake.
"""

import argparse
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from models import AlexNet, Fcn, LeNet

BATCH = 64
EPOCHS = 2


def alexnet():
    """AlexNet at 28x28 with a small classifier. Its weights begin as Glorot and Bengio's: with PyTorch's own,
    too small for eight layers without normalisation, its logits and gradients are little but biases."""
    model = AlexNet(256)
    for name, values in model.named_parameters():
        if name.endswith("weight"):
            nn.init.xavier_normal_(values)
    return model


CASES = {
    "fcn 256-128, batch norm, Adam": {
        "model": lambda: Fcn([256, 128], nn.BatchNorm1d),
        "settings": {
            "model": "fcn",
            "hidden_sizes": "256,128",
            "normalization": "batch",
            "optimizer": "adam",
            "learning_rate": "0.001",
            "epsilon": "0.001",
        },
        "train_images": 6000,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.001, eps=1e-3),
        "without_effect": ("fc1.bias", "fc2.bias"),
        "loss_tolerance": 1e-6,
        "accuracy_tolerance": 2e-3,
        "weight_tolerance": 2e-5,
    },
    "lenet, SGD with momentum 0.9": {
        "model": LeNet,
        "settings": {
            "model": "lenet",
            "normalization": "none",
            "optimizer": "sgd",
            "momentum": "0.9",
            "learning_rate": "0.01",
        },
        "train_images": 1000,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
        "without_effect": (),
        "loss_tolerance": 1e-6,
        "accuracy_tolerance": 1e-2,
        "weight_tolerance": 2e-5,
    },
    "alexnet at 28x28, SGD with momentum 0.9": {
        "model": alexnet,
        "settings": {
            "model": "alexnet",
            "classifier_units": "256",
            "normalization": "none",
            "optimizer": "sgd",
            "momentum": "0.9",
            "learning_rate": "0.002",
        },
        "train_images": 250,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.002, momentum=0.9),
        "without_effect": (),
        "loss_tolerance": 1e-6,
        "accuracy_tolerance": 5e-2,
        "weight_tolerance": 2e-5,
    },
}


def read_idx(folder, name):
    """One of the dataset's four files, packed or not, as bytes in an array."""
    plain = folder / name
    data = plain.read_bytes() if plain.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    dimensions = data[3]
    sizes = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    return numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * dimensions).reshape(sizes)


def write_idx(path, array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def subset(source, folder, train_images, test_images):
    """Writes the first images of a dataset as another dataset; the training images and labels."""
    for part, count in (("train", train_images), ("t10k", test_images)):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            write_idx(folder / f"{part}-{kind}", read_idx(source, f"{part}-{kind}")[:count])
    return read_idx(folder, "train-images-idx3-ubyte"), read_idx(folder, "train-labels-idx1-ubyte")


def printed_split(program, data):
    """Which images Fitting Room trains on, and on which it validates."""
    command = [program, "train", "--data", data, "--print-split"]
    split = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {part: torch.tensor(indices) for part, indices in split.items()}


def fitting_room(program, data, case, initial, folder):
    """The lines of a run, one for each epoch, and its final weights."""
    trained = folder / "trained.safetensors"
    settings = {"batch_size": BATCH, **case["settings"]}
    command = [program, "train", "--data", data, "--device", "cpu", "--json", "--shuffle", "off"]
    command += ["--epochs", str(EPOCHS), "--initial-weights", initial, "--save", trained]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in output.splitlines()], safetensors.torch.load_file(trained)


def pytorch(case, initial, split, images, labels, dtype):
    """The same of PyTorch, in numbers of this type."""
    model = case["model"]()
    model.load_state_dict(safetensors.torch.load_file(initial))
    model.to(dtype)
    grey = torch.tensor(images, dtype=torch.float64) / 255
    of_training = grey[split["training"]]
    x = ((grey - of_training.mean()) / of_training.std(correction=0)).to(dtype).unsqueeze(1)
    y = torch.tensor(labels, dtype=torch.int64)
    training, validation = split["training"], split["validation"]

    optimizer = case["optimizer"](model.parameters())
    epochs = []
    for _ in range(EPOCHS):
        model.train()
        loss_sum, correct = 0.0, 0
        for batch in training.split(BATCH):
            logits = model(x[batch])
            loss = functional.cross_entropy(logits, y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(batch)
            correct += (logits.argmax(1) == y[batch]).sum().item()
        model.eval()
        with torch.no_grad():
            logits = model(x[validation])
        epochs.append(
            {
                "train_loss": loss_sum / len(training),
                "train_accuracy": correct / len(training),
                "validation_loss": functional.cross_entropy(logits, y[validation]).item(),
                "validation_accuracy": (logits.argmax(1) == y[validation]).double().mean().item(),
            }
        )
    return epochs, model.state_dict()


def comparable(weights, without_effect):
    """What of the weights can be compared, as 64-bit numbers."""
    result = {}
    for name, values in weights.items():
        if name in without_effect:
            continue
        values = values.double()
        if name.endswith(".running_mean"):
            bias = f"fc{name.removeprefix('norm').split('.')[0]}.bias"
            values = values - weights[bias].double()
        result[name] = values
    return result


def distance(one, other):
    """The norm of the difference of two tensors, relative to the other's norm."""
    return ((one - other).norm() / other.norm()).item()


def compare(name, case, program, source, folder):
    """Prints a case's table; whether all of it is within the tolerances."""
    images, labels = subset(source, folder, case["train_images"], 1000)
    split = printed_split(program, folder)
    torch.manual_seed(1)
    initial = folder / "initial.safetensors"
    safetensors.torch.save_file(case["model"]().state_dict(), initial)
    ours, our_weights = fitting_room(program, folder, case, initial, folder)
    theirs, their_weights = pytorch(case, initial, split, images, labels, torch.float32)
    exact, exact_weights = pytorch(case, initial, split, images, labels, torch.float64)

    steps = -(-len(split["training"]) // BATCH) * EPOCHS
    print(f"\n{name}: {len(split['training'])} images, {EPOCHS} epochs, {steps} steps")
    heads = ("Fitting Room", "PyTorch", "apart by", "tolerance", "from 64 bits", "PyTorch's")
    print(f"{'':28}" + "".join(f"{head:>14}" for head in heads))
    good = True

    def row(what, our, their, apart, tolerance, our_rounding, their_rounding):
        nonlocal good
        # NaN is within no tolerance.
        near = apart <= tolerance
        good = good and near
        numbers = f"{our:14.6f}{their:14.6f}{apart:14.1e}{tolerance:14.0e}{our_rounding:14.1e}{their_rounding:14.1e}"
        print(f"{what:28}{numbers}{'' if near else '  TOO FAR'}")

    if len(ours) != EPOCHS:
        sys.exit(f"{name}: {len(ours)} epochs were reported, not {EPOCHS}")
    for epoch, metrics in enumerate(zip(ours, theirs, exact), start=1):
        for metric in theirs[0]:
            our, their, true = (run[metric] for run in metrics)
            # Losses relative to their size; of accuracies the share of images that fell to the other side.
            accuracy = metric.endswith("accuracy")
            scale = 1 if accuracy else true
            tolerance = case["accuracy_tolerance" if accuracy else "loss_tolerance"]
            apart, our_rounding, their_rounding = (
                abs(one - other) / scale for one, other in ((our, their), (our, true), (their, true))
            )
            row(f"epoch {epoch} {metric}", our, their, apart, tolerance, our_rounding, their_rounding)

    if our_weights.keys() != their_weights.keys():
        sys.exit(f"{name}: the tensors are {sorted(our_weights)}, but PyTorch's {sorted(their_weights)}")
    our_weights, their_weights, exact_weights = (
        comparable(weights, case["without_effect"]) for weights in (our_weights, their_weights, exact_weights)
    )
    for tensor, their in their_weights.items():
        our, true = our_weights[tensor], exact_weights[tensor]
        if our.shape != their.shape:
            sys.exit(f"{name}: {tensor} is {tuple(our.shape)}, not {tuple(their.shape)}")
        distances = distance(our, their), case["weight_tolerance"], distance(our, true), distance(their, true)
        row(tensor, our.norm(), their.norm(), *distances)
    return good


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", required=True, type=pathlib.Path, help="fittingroom-worker")
    arguments.add_argument("--data", required=True, type=pathlib.Path, help="folder with Fashion-MNIST's four files")
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    program = arguments.program.resolve()

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        good = [compare(name, case, program, arguments.data, folder) for name, case in CASES.items()]
    print("\nall within the tolerances" if all(good) else "\nsome are too far apart")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
