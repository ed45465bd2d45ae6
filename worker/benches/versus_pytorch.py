"""Times training with Fitting Room against PyTorch: the same models, weights, batches and arithmetic.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors
    cargo build --release
    venv/bin/python worker/benches/versus_pytorch.py \
        --program target/release/fittingroom-worker --data /usr/share/datasets/fashion-mnist \
        --peak "$(cargo bench -q -p fittingroom-worker --bench ops -- peak)"

On a GPU (--device cuda:0 --images 30000) both sides run there, one trial at a time, without TF32.

Both sides run on one thread of the same core, in alternation, a few seconds each: whatever else the
machine does hits both, and only the ratio means something on a busy one. A round is two epochs over the
first training images of the dataset, of which the second is timed: without the start of a process,
without evaluation. PyTorch has its data in memory as tensors, no DataLoader, and its fused Adam.

With --whole-machine both sides train on every core at once: Fitting Room as its slots do, one process on each;
PyTorch in one process with as many threads, and in one process for each core. The ratio is to the faster of these.

Before any timing counts, both must have come to the same training losses in both epochs; the exit code
is 1 where they have not.

The table has images per second (medians of the rounds), Fitting Room's over PyTorch's (median, lowest and
highest of the rounds), multiplications and additions of the layers per second, their share of the fastest
matrix product on the same core (--peak), and the largest resident memory of each process. Operations are
counted as a direct convolution needs them, so that a method which needs fewer can come to more than 100 %.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import typing

import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"))
from compare_training import printed_split, subset
from models import AlexNet, Cnn, Fcn, LeNet, ResNet, no_norm

EPOCHS = 2
LOSS_TOLERANCE = 5e-3
# Far from its usual 1e-8: that lets gradients that are nothing but rounding make full steps, and the two
# sides part (see compare_training.py). It costs no time and saves none.
EPSILON = 1e-3


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of both sides."""

    module: typing.Callable[[], nn.Module]
    settings: dict
    batches: tuple
    images: int
    """How many images of the dataset to take; nine tenths of them are trained on."""


MODELS = {
    "fcn 256-128, batch norm": Model(
        lambda: Fcn([256, 128], nn.BatchNorm1d),
        {"model": "fcn", "hidden_sizes": "256,128", "normalization": "batch"},
        (64, 128, 512),
        20_000,
    ),
    "fcn 300-200": Model(
        lambda: Fcn([300, 200], no_norm),
        {"model": "fcn", "hidden_sizes": "300,200", "normalization": "none"},
        (64, 128, 512),
        20_000,
    ),
    # So few that the sides do not part by rounding alone, which PyTorch in 32 and 64 bits do after some
    # 60 steps (see compare_training.py).
    "lenet": Model(LeNet, {"model": "lenet", "normalization": "none"}, (64,), 1_200),
    "cnn 32-64, batch norm": Model(
        lambda: Cnn([32, 64], 3, [128], nn.BatchNorm2d, nn.BatchNorm1d),
        {"model": "cnn", "channels": "32,64", "hidden_sizes": "128", "normalization": "batch"},
        (128,),
        4_000,
    ),
    "resnet 32-64-128, batch norm": Model(
        lambda: ResNet(32, [32, 64, 128], 2, nn.BatchNorm2d),
        {"model": "resnet", "channels": "32,64,128", "blocks": 2, "normalization": "batch"},
        (128,),
        1_600,
    ),
    "alexnet at 28x28": Model(lambda: AlexNet(4096), {"model": "alexnet", "normalization": "none"}, (128,), 1_000),
}


@dataclasses.dataclass(frozen=True)
class Round:
    """One side's timing."""

    losses: list
    images_per_second: float
    peak_bytes: int


def operations(module):
    """Multiplications and additions of one image's training step, convolutions and linear layers only."""
    counts = []

    def count(layer, inputs, output):
        counts.append(2 * layer.weight.numel() * (output[0, 0].numel() if output.dim() == 4 else 1))

    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    module.eval()(torch.zeros(1, 1, 28, 28))
    # Forward, gradient of the weights, gradient of the input, which nobody needs for the images.
    return 3 * sum(counts) - counts[0]


def peak_bytes(process):
    """The largest resident memory of a process so far; 0 if it has ended."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return 1024 * max((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), default=0)


def pytorch(connection, name, initial, parts, batch_size, device, cores):
    """PyTorch's side, in a process of its own: a round for every message, which names the part of the dataset."""
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    # The same arithmetic: no products of numbers cut to 10 bits.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    data = []
    for images, labels, split in parts:
        grey = torch.tensor(images, dtype=torch.float64) / 255
        training = split["training"]
        of_training = grey[training]
        x = ((grey - of_training.mean()) / of_training.std(correction=0)).float().unsqueeze(1)
        data.append((x.to(device), torch.tensor(labels, dtype=torch.int64).to(device), training.to(device)))
    del parts, images, labels, grey, of_training
    connection.send("ready")
    while (part := connection.recv()) is not None:
        x, y, training = data[part]
        model = MODELS[name].module().to(device)
        model.load_state_dict(safetensors.torch.load_file(initial))
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001, eps=EPSILON, fused=True)
        losses = []
        for _ in range(EPOCHS):
            started = time.perf_counter()
            loss_sum = torch.zeros((), device=device)
            for batch in training.split(batch_size):
                loss = functional.cross_entropy(model(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss_sum += loss.detach() * len(batch)
            losses.append(loss_sum.item() / len(training))
            seconds = time.perf_counter() - started
        connection.send(Round(losses, len(training) / seconds, peak_bytes("self")))


def fitting_room(program, data, settings, initial, device, core):
    """Fitting Room's side."""
    command = [program, "train", "--data", data, "--device", device, "--json", "--shuffle", "off"]
    command += ["--epochs", str(EPOCHS), "--initial-weights", initial]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "CANDLE_NUM_THREADS": "1"}
    # A thread that starts a process hands its core on.
    os.sched_setaffinity(0, {core})
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        lines, peak = [], 0
        for line in process.stdout:
            lines.append(json.loads(line))
            peak = max(peak, peak_bytes(process.pid))
    if process.returncode != 0:
        sys.exit(f"{program} ended with code {process.returncode}")
    losses = [line["train_loss"] for line in lines]
    return Round(losses, lines[-1]["images_per_second"], peak)


class Pytorch:
    """Processes of PyTorch, each on some cores, which train at the same time."""

    def __init__(self, cores, start):
        # Not forked: the memory of this process would count as their own.
        context = multiprocessing.get_context("spawn")
        self.processes, self.connections = [], []
        for each in cores:
            here, there = context.Pipe()
            process = context.Process(target=pytorch, args=(there, *start, each), daemon=True)
            process.start()
            self.processes.append(process)
            self.connections.append(here)
        for connection in self.connections:
            connection.recv()

    def round(self, part):
        """A round of each."""
        for connection in self.connections:
            connection.send(part)
        return [connection.recv() for connection in self.connections]

    def end(self):
        """Ends them."""
        for connection, process in zip(self.connections, self.processes):
            connection.send(None)
            process.join()


def compare(name, model, batch_size, arguments):
    """Prints a row; whether both sides came to the same losses."""
    with tempfile.TemporaryDirectory() as temporary:
        folders, parts = [], []
        for count in [model.images] + ([arguments.images] if arguments.images else []):
            folders.append(pathlib.Path(temporary) / str(count))
            folders[-1].mkdir(exist_ok=True)
            images, labels = subset(arguments.data, folders[-1], count, 100)
            parts.append((images, labels, printed_split(arguments.program, folders[-1])))
        torch.manual_seed(1)
        module, initial = model.module(), pathlib.Path(temporary) / "initial.safetensors"
        safetensors.torch.save_file(module.state_dict(), initial)
        settings = {"optimizer": "adam", "learning_rate": 0.001, "epsilon": EPSILON, "batch_size": batch_size}
        start = (name, initial, parts, batch_size, arguments.device)
        if arguments.whole_machine:
            theirs = [Pytorch([set(arguments.cores)], start), Pytorch([{core} for core in arguments.cores], start)]
            cores = arguments.cores
        else:
            theirs, cores = [Pytorch([{arguments.core}], start)], [arguments.core]

        def ours(part):
            def on(core):
                all_settings = {**settings, **model.settings}
                return fitting_room(arguments.program, folders[part], all_settings, initial, arguments.device, core)

            with concurrent.futures.ThreadPoolExecutor(len(cores)) as pool:
                return list(pool.map(on, cores))

        def round_of(part):
            return [ours(part)] + [side.round(part) for side in theirs]

        # All warm up on the way.
        checked = [rounds[0] for rounds in round_of(0)]
        rounds = [round_of(len(parts) - 1) for _ in range(arguments.rounds)]
        for side in theirs:
            side.end()

    apart = max(abs(our / their - 1) for side in checked[1:] for our, their in zip(checked[0].losses, side.losses))
    speeds = [[sum(it.images_per_second for it in side) for side in each] for each in rounds]
    speed, *their_speeds = [statistics.median(side) for side in zip(*speeds)]
    # Beside whichever is the fastest of PyTorch's arrangements.
    best = 1 + their_speeds.index(max(their_speeds))
    ratios = sorted(each[0] / each[best] for each in speeds)
    rate = operations(module) * speed / 1e9
    share = f"{100 * rate / arguments.peak:6.0f} %" if arguments.peak else f"{'–':>8}"
    peak = [max(sum(it.peak_bytes for it in each[side]) for each in rounds) / 1e6 for side in (0, best)]
    print(
        f"{name:30}{batch_size:6}{speed:12,.0f}{''.join(f'{it:12,.0f}' for it in their_speeds)}"
        f"{statistics.median(ratios):8.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}){rate:9.0f}{share}"
        f"{peak[0]:8.0f} MB{peak[1]:6.0f} MB{apart:10.1e}{'' if apart <= LOSS_TOLERANCE else '  LOSSES DIFFER'}",
        flush=True,
    )
    return apart <= LOSS_TOLERANCE


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", required=True, type=pathlib.Path, help="fittingroom-worker")
    arguments.add_argument("--data", required=True, type=pathlib.Path, help="folder with Fashion-MNIST's four files")
    arguments.add_argument("--rounds", type=int, default=7, help="timings of each side (default: 7)")
    arguments.add_argument("--peak", type=float, help="GFLOP/s of the fastest matrix product on this core")
    arguments.add_argument("--core", type=int, help="the core to run on (default: the last one allowed)")
    arguments.add_argument("--whole-machine", action="store_true", help="train on every core at once")
    arguments.add_argument("--device", default="cpu", help="where both train: cpu or cuda:N (default: cpu)")
    arguments.add_argument(
        "--images",
        type=int,
        help="images of the dataset to time, after the losses were compared with fewer (default: as many as those)",
    )
    arguments.add_argument("--only", default="", help="models whose name contains this")
    arguments = arguments.parse_args()
    arguments.program = arguments.program.resolve()
    arguments.cores = sorted(os.sched_getaffinity(0))
    if arguments.core is None:
        arguments.core = arguments.cores[-1]
    torch.set_num_threads(1)

    device = "" if arguments.device == "cpu" else f", {torch.cuda.get_device_name(arguments.device)}"
    one_core = f"one thread each on core {arguments.core}"
    where = f"all {len(arguments.cores)} cores" if arguments.whole_machine else one_core
    print(f"PyTorch {torch.__version__}, {where}, {arguments.rounds} rounds{device}")
    sides = f"{'1 process':>12}{'1 a core':>12}" if arguments.whole_machine else f"{'PyTorch':>12}"
    print(
        f"{'model':30}{'batch':>6}{'ours, 1/s':>12}{sides}{'ratio':>8}{'':15}{'GFLOP/s':>9}{'of peak':>8}"
        f"{'memory':>11}{'PyTorch':>9}{'apart':>10}"
    )
    models = {name: model for name, model in MODELS.items() if arguments.only in name}
    good = [compare(name, model, batch, arguments) for name, model in models.items() for batch in model.batches]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
