"""Times a whole search with Fitting Room against the same search with Optuna and PyTorch.

    python3 -m venv venv && venv/bin/pip install optuna torch numpy
    cargo build --release
    venv/bin/python worker/benches/versus_optuna.py \
        --programs target/release --data /usr/share/datasets/fashion-mnist

Both sides train the same trials: Fitting Room draws them (`launch --dry-run --json`), and Optuna's are taken
from that list by their numbers. Optuna is as strong as we know to make it: its storage is one SQLite file, there is one process
for each core with PyTorch on one thread, the whole dataset lies in memory as tensors, there is no
DataLoader, and Adam is the fused one. Fitting Room has one coordinator and one worker with a slot for
each core. Both measure loss and accuracy on the validation images after every epoch and store them.

The clock starts when all is ready: Optuna's processes have imported PyTorch and read the data, and
Fitting Room's worker has joined. It stops when every trial has its result. What Fitting Room does after
that, which is to evaluate the best model on the test images, is not in its time, and Optuna keeps no model.

The sides take turns, and the ratio is that of their times in the same round. Quality is the best
validation accuracy of each side, and how far the trials' accuracies are apart in the mean: each side
draws its own weights and splits.
"""

import argparse
import dataclasses
import gzip
import json
import multiprocessing
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import optuna
import torch
from torch import nn
from torch.nn import functional

FCN = """
name: fcn
dataset: fashion-mnist
method: random
seed: 1
run_cap: 32
epochs: 3
parameters:
  model: {value: fcn}
  hidden_sizes: {values: [[256, 128], [300, 200], [512, 256]]}
  normalization: {values: [none, batch]}
  dropout: {distribution: uniform, min: 0.0, max: 0.3}
  optimizer: {value: adam}
  learning_rate: {distribution: log_uniform_values, min: 3e-4, max: 1e-2}
  batch_size: {values: [64, 128, 256]}
"""
LENET = """
name: lenet
dataset: fashion-mnist
method: random
seed: 1
run_cap: 12
epochs: 1
parameters:
  model: {value: lenet}
  normalization: {values: [none, batch]}
  dropout: {distribution: uniform, min: 0.0, max: 0.3}
  optimizer: {value: adam}
  learning_rate: {distribution: log_uniform_values, min: 3e-4, max: 5e-3}
  batch_size: {values: [64, 128]}
"""
SEARCHES = {"fcn": FCN, "lenet": LENET}
VALIDATION = 6_000


@dataclasses.dataclass(frozen=True)
class Run:
    """One side's search."""

    seconds: float
    accuracies: dict
    """The validation accuracy after the last epoch, by trial."""


def read_idx(path):
    """The bytes of an IDX file, gzipped or not."""
    path = path if path.exists() else path.with_name(path.name + ".gz")
    content = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
    dimensions = content[3]
    sizes = [int.from_bytes(content[4 + 4 * at : 8 + 4 * at], "big") for at in range(dimensions)]
    return numpy.frombuffer(content, numpy.uint8, offset=4 + 4 * dimensions).reshape(sizes)


def model(settings):
    """The network of a trial; linear and convolution layers as Fitting Room has them."""
    batch_norm, dropout = settings["normalization"] == "batch", settings["dropout"]

    def hidden(inputs, outputs):
        norm = [nn.BatchNorm1d(outputs)] if batch_norm else []
        return [nn.Linear(inputs, outputs), *norm, nn.ReLU(), nn.Dropout(dropout)]

    def convolution(inputs, outputs):
        norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
        return [nn.Conv2d(inputs, outputs, 5, padding=2), *norm, nn.ReLU(), nn.MaxPool2d(2)]

    if settings["model"] == "fcn":
        sizes = [784, *settings["hidden_sizes"]]
        layers = [nn.Flatten()]
        for inputs, outputs in zip(sizes, sizes[1:]):
            layers += hidden(inputs, outputs)
        return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))
    images = [*convolution(1, 32), *convolution(32, 64), nn.Flatten()]
    return nn.Sequential(*images, *hidden(3136, 256), *hidden(256, 128), nn.Linear(128, 10))


def objective(trial, planned, x, y, split):
    """Trains one trial; the validation accuracy after its last epoch."""
    if trial.number >= len(planned):
        trial.study.stop()
        raise optuna.TrialPruned
    settings = planned[trial.number]
    trial.set_user_attr("settings", settings)
    torch.manual_seed(trial.number)
    network = model(settings)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings["learning_rate"], fused=True)
    training, validation = split[VALIDATION:], split[:VALIDATION]
    accuracy = 0.0
    for epoch in range(settings["epochs"]):
        network.train()
        order = training[torch.randperm(len(training))]
        for batch in order.split(settings["batch_size"]):
            loss = functional.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            logits = torch.cat([network(x[batch]) for batch in validation.split(500)])
            loss = functional.cross_entropy(logits, y[validation]).item()
            accuracy = (logits.argmax(1) == y[validation]).float().mean().item()
        trial.set_user_attr(f"validation_loss_{epoch}", loss)
        trial.report(accuracy, epoch)
    return accuracy


def optuna_process(storage, planned, data, ready):
    """One of Optuna's processes: trains trials until there are enough."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    x = torch.tensor(read_idx(data / "train-images-idx3-ubyte").copy()).float().div_(255).unsqueeze_(1)
    y = torch.tensor(read_idx(data / "train-labels-idx1-ubyte").astype(numpy.int64))
    split = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    of_training = x[split[VALIDATION:]]
    x = (x - of_training.mean()) / of_training.std()
    study = optuna.load_study(study_name="search", storage=storage)
    ready.wait()
    study.optimize(lambda trial: objective(trial, planned, x, y, split))


def with_optuna(folder, planned, data, processes):
    """Optuna's side."""
    storage = f"sqlite:///{folder}/optuna.sqlite"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="search", storage=storage, direction="maximize")
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes + 1)
    arguments = (storage, planned, data, ready)
    running = [context.Process(target=optuna_process, args=arguments) for _ in range(processes)]
    for process in running:
        process.start()
    ready.wait()
    started = time.perf_counter()
    for process in running:
        process.join()
    seconds = time.perf_counter() - started
    done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if len(done) < len(planned) or any(process.exitcode != 0 for process in running):
        sys.exit(f"Optuna finished {len(done)} of {len(planned)} trials")
    return Run(seconds, {trial.number: trial.value for trial in done})


class FittingRoom:
    """A coordinator and a worker of Fitting Room on this machine."""

    def __init__(self, programs, folder, data, slots):
        self.program, self.processes = programs / "fittingroom", []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        self.start([self.program, "serve", "--data", folder / "coordinator", "--listen", address])
        self.wait_for(lambda: self.call("list", "--json", check=False).returncode == 0)
        self.call("dataset", "fetch", "fashion-mnist", "--from", data)
        worker = [programs / "fittingroom-worker", "run", "--coordinator", self.url]
        self.start([*worker, "--slots", str(slots), "--device", "cpu", "--cache", folder / "cache"])
        self.wait_for(lambda: f'"slots": {slots}' in self.call("workers", "--json").stdout)

    def start(self, command):
        """Starts a program, which `stop` ends."""
        self.processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def call(self, *arguments, check=True):
        """Runs a command of the coordinator's."""
        command = [self.program, *arguments, "--coordinator", self.url]
        return subprocess.run(command, capture_output=True, text=True, check=check)

    @staticmethod
    def wait_for(condition):
        """Waits until it is so, at most ten seconds."""
        for _ in range(200):
            if condition():
                return
            time.sleep(0.05)
        sys.exit("Fitting Room did not start within ten seconds")

    def search(self, file, name, trials):
        """Runs a search to its end."""
        started = time.perf_counter()
        self.call("launch", file, "--name", name)
        followed = ["leaderboard", name, "--follow", "--top", str(trials), "--json", "--coordinator", self.url]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen([self.program, *followed], **pipes) as boards:
            for line in boards.stdout:
                board = json.loads(line)
                if sum(trial["state"] == "COMPLETE" for trial in board["trials"]) == trials:
                    break
            else:
                sys.exit("the search of Fitting Room ended before all its trials")
            seconds = time.perf_counter() - started
            boards.terminate()
        return Run(seconds, {trial["trial"]: trial["validation_accuracy"] for trial in board["trials"]})

    def stop(self):
        """Ends what was started, the worker first."""
        for process in reversed(self.processes):
            process.terminate()
            process.wait()


def compare(name, arguments, folder):
    """Prints a row."""
    file = folder / f"{name}.yaml"
    file.write_text(SEARCHES[name])
    command = [arguments.programs / "fittingroom", "launch", file, "--dry-run", "--show", "100", "--json"]
    planned = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["first"]
    planned = [trial["hyperparameters"] for trial in planned]
    ours, theirs = [], []
    cluster = FittingRoom(arguments.programs, folder, arguments.data, arguments.processes)
    try:
        for number in range(arguments.rounds):
            ours.append(cluster.search(file, f"{name}-{number}", len(planned)))
            of_round = folder / f"{name}-{number}"
            of_round.mkdir()
            theirs.append(with_optuna(of_round, planned, arguments.data, arguments.processes))
    finally:
        cluster.stop()
    ratios = sorted(their.seconds / our.seconds for our, their in zip(ours, theirs))
    pairs = [(our.accuracies[at], their.accuracies[at]) for our, their in zip(ours, theirs) for at in our.accuracies]
    print(
        f"{name:8}{len(planned):8}{statistics.median(it.seconds for it in ours):12.1f}"
        f"{statistics.median(it.seconds for it in theirs):10.1f}"
        f"{statistics.median(ratios):8.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        f"{max(our for our, _ in pairs):10.4f}{max(their for _, their in pairs):10.4f}"
        f"{statistics.mean(our - their for our, their in pairs):+12.4f}",
        flush=True,
    )


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--programs", required=True, type=pathlib.Path, help="folder with both programs")
    arguments.add_argument("--data", required=True, type=pathlib.Path, help="folder with Fashion-MNIST's four files")
    arguments.add_argument("--rounds", type=int, default=3, help="searches of each side (default: 3)")
    arguments.add_argument(
        "--processes",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="Optuna's processes, and Fitting Room's slots (default: one for each core)",
    )
    arguments.add_argument("--only", default="", help="searches whose name contains this")
    arguments = arguments.parse_args()
    arguments.programs = arguments.programs.resolve()

    print(f"Optuna {optuna.__version__}, PyTorch {torch.__version__}, {arguments.processes} processes or slots")
    print(f"{'search':8}{'trials':>8}{'ours, s':>12}{'Optuna':>10}{'ratio':>8}{'':15}{'best':>10}{'Optuna':>10}{'apart':>12}")
    for name in (name for name in SEARCHES if arguments.only in name):
        with tempfile.TemporaryDirectory() as folder:
            compare(name, arguments, pathlib.Path(folder))


if __name__ == "__main__":
    main()
