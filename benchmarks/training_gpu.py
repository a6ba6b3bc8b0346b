"""Training steps on one GPU: DeepCSV-like network, nominal and FGSM-adversarial, beside what the GPU can do at most.

python training_gpu.py [--jets 10000000] [--data FILE.safetensors] [--device cpu]

This one file needs torch, numpy and safetensors only. The 67 inputs are those of configs/features/deepcsv.yaml with
their integers, bounds, 20 % caps, pinned values and coupled entries; the attack gives what advtag's FGSM gives, bit by
bit on the CPU (tests/training/test_training_gpu.py), with fewer kernels for the coupled entries. A step is: gather a
slice of the epoch's permutation from jets that live on the GPU, attack or not, standardise, network with dropout,
weighted cross entropy, backward, fused Adam. Only whole batches are timed.

First comes the check: same weights, same jets, no dropout, against float64 on the CPU: attacked values, losses and
gradients, eager and captured. Where it fails, nothing is timed and the exit code is 1.

The memory bound is the measured rate of a large copy over the bytes that the eager kernels of a step read and write. It
can be beaten: a tensor of 65,536 x 100 float32 (26 MB) fits into the L2 cache of a large GPU, and compiled kernels are
fused.

`--data` holds float32 `values` [jets, 67] (0 where absent), bool `present` and int64 `target` (b, bb, c, udsg), and may
hold float32 `weight`.

Run until now, with torch 2.13 on a CPU: all but what needs a GPU, and compiled steps once, which agreed. Not run on any
GPU yet: CUDA graphs and their checks, TF32, compiled steps in a graph, the limits on memory.
"""

import argparse
import copy
import importlib.util
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

FEATURES, WIDTH, HIDDEN, CLASSES = 67, 100, 5, 4
INF = math.inf
BOUNDS = [(0, 1, -5, 5), (1, 2, 0, INF), (6, 12, 0, 5), (12, 18, 0, 0.3), (18, 22, 0, INF), (22, 28, -0.07, 0)]
BOUNDS += [(28, 29, 0, INF), (29, 35, 0, 1), (35, 41, 0, INF), (57, 59, 0, INF), (59, 60, 0, 2), (60, 67, 0, INF)]
INTEGER = (59, 63, 64, 65, 66)
CAP, ABSENT_AT, EPSILON = 0.2, -0.5, 0.01
PIN, PINNED = 60, 1.0
FOLLOWERS = (41, 49)
SOURCES = (range(42, 48), range(50, 56))
BATCHES = (65_536, 1_048_576)
CHECKED = 8192
STEP_BYTES = 20_000  # memory of an adversarial float32 step per jet, generously
SEED_STUDY = 672e6 * 200  # jets, epochs


class Jets(NamedTuple):
    values: Tensor
    present: Tensor
    target: Tensor
    weight: Tensor

    def at(self, order: Tensor) -> "Jets":
        return Jets(*(tensor.index_select(0, order) for tensor in self))


class Card(nn.Module):
    """Standardisation, and where FGSM moves the inputs to."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        low, high = torch.full((FEATURES,), -INF), torch.full((FEATURES,), INF)
        for first, last, lowest, highest in BOUNDS:
            low[first:last], high[first:last] = lowest, highest
        step = EPSILON * std
        step[list(INTEGER)] = 0
        named = {"mean": mean, "std": std, "step": step, "full": EPSILON * std, "low": low, "high": high}
        # as tensors: a number that travels to the GPU in the middle of a step cannot be captured
        named |= {"absent_at": torch.full((FEATURES,), ABSENT_AT)}
        named |= {"columns": torch.tensor(FOLLOWERS), "sources": torch.tensor([list(places) for places in SOURCES])}
        for name, tensor in named.items():
            self.register_buffer(name, tensor.clone())

    def standardise(self, values: Tensor, present: Tensor) -> Tensor:
        return torch.where(present, (values - self.mean) / self.std, self.absent_at)

    def move(self, values: Tensor, present: Tensor, gradient: Tensor) -> Tensor:
        """FGSM inside the interval, from the gradient in standardised inputs."""
        source = self.followed(values, present)
        low, high = self.interval(values, present, source)
        gradient = (gradient / self.std).mul_(present)
        own = gradient.index_select(1, self.columns) * (source != self.columns)
        gradient.index_add_(1, self.columns, own, alpha=-1).scatter_add_(1, source, own)
        moved = torch.clamp(gradient.sign_().mul_(self.full).add_(values), low, high)
        return moved.index_copy_(1, self.columns, moved.gather(1, source))

    def followed(self, values: Tensor, present: Tensor) -> Tensor:
        """The input that each coupled entry follows, int64 [jets, coupled]; its own where it follows none."""
        same = values[:, self.sources] == values.index_select(1, self.columns)[..., None]
        same &= present[:, self.sources] & present.index_select(1, self.columns)[..., None]
        first = same.to(torch.uint8).argmax(2, keepdim=True)
        found = self.sources.expand(len(values), -1, -1).gather(2, first).squeeze(2)
        return torch.where(same.any(2), found, self.columns)

    def interval(self, values: Tensor, present: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        reach = torch.fmin(CAP * values.abs(), self.step)
        reach[:, PIN].masked_fill_(values[:, PIN] == PINNED, 0)
        reach.masked_fill_(~present, 0)
        low = torch.minimum(torch.maximum(values - reach, self.low), values)
        high = torch.maximum(torch.minimum(values + reach, self.high), values)
        lowest, highest = low.index_select(1, self.columns), high.index_select(1, self.columns)
        return low.scatter_reduce_(1, source, lowest, "amax"), high.scatter_reduce_(1, source, highest, "amin")


def new_network(dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer in range(HIDDEN):
        layers += [nn.Linear(FEATURES if layer == 0 else WIDTH, WIDTH), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if layer < HIDDEN - 1 else []
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


class Training:
    """A network in training; `step` is one step on a batch."""

    def __init__(self, network: nn.Module, card: Card, *, adversarial: bool, bf16: bool = False, fused: bool = False):
        self.network, self.card, self.adversarial = copy.deepcopy(network).train(), card, adversarial
        self.device, self.dtype = card.mean.device, card.mean.dtype
        # the same weights without dropout and without gradients of their own, for the attack
        self.rested = copy.deepcopy(self.network).eval().requires_grad_(False)
        for shared, parameter in zip(self.rested.parameters(), self.network.parameters(), strict=True):
            shared.data = parameter.data
        cuda = self.device.type == "cuda"
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-4, fused=True, capturable=cuda)
        self.bf16, self.loss, self.total = bf16, None, torch.zeros((), device=self.device, dtype=self.dtype)
        compiled = (lambda part: torch.compile(part, dynamic=False)) if fused else (lambda part: part)
        self.forward, self.rested_forward = compiled(self.network), compiled(self.rested)
        self.standardise, self.move = compiled(card.standardise), compiled(card.move)

    def logits(self, forward: Callable[[Tensor], Tensor], seen: Tensor) -> Tensor:
        # without the cache: a cast that was made before a capture would not be in it
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            return forward(seen).to(self.dtype)

    def attacked(self, jets: Jets) -> Tensor:
        seen = self.standardise(jets.values, jets.present).requires_grad_()
        logits = self.logits(self.rested_forward, seen)
        with torch.no_grad():  # slope of the cross entropy: p of the others, and minus their sum, not p - 1
            others = logits.softmax(1).scatter(1, jets.target[:, None], 0.0)
            slope = others.scatter(1, jets.target[:, None], -others.sum(1, keepdim=True))
        (gradient,) = torch.autograd.grad(logits, seen, slope)
        return self.move(jets.values, jets.present, gradient)

    def step(self, jets: Jets) -> None:
        self.values = self.attacked(jets) if self.adversarial else jets.values
        logits = self.logits(self.forward, self.standardise(self.values, jets.present))
        losses = cross_entropy(logits, jets.target, reduction="none")
        loss = (losses * jets.weight).sum() / jets.weight.abs().sum().clamp(min=1e-6)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.loss = loss.detach()
        self.total.add_(self.loss, alpha=len(jets.target))

    def gradient(self) -> Tensor:
        return torch.cat([parameter.grad.flatten() for parameter in self.network.parameters()])


def eager(training: Training, data: Jets, _batch: int) -> Callable[[Tensor], None]:
    return lambda order: training.step(data.at(order))


def captured(training: Training, data: Jets, batch: int) -> Callable[[Tensor], None]:
    """The whole step, gather to Adam, as one CUDA graph that is replayed on other jets."""
    order = torch.arange(batch, device=training.device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            training.step(data.at(order))
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        training.step(data.at(order))

    def replay(jets: Tensor) -> None:
        order.copy_(jets)
        graph.replay()

    return replay


def ways(device: torch.device) -> tuple[Callable[[Training, Jets, int], Callable[[Tensor], None]], ...]:
    return (eager, captured) if device.type == "cuda" else (eager,)


def precisions(device: torch.device) -> tuple[str, ...]:
    return ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16")


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    yield
    torch.set_float32_matmul_precision(before)


def random_jets(number: int, device: torch.device, seed: int = 1) -> Jets:
    """Random numbers inside the bounds; a fifth absent, some coupled, some pinned, some weights negative."""
    generator = torch.Generator(device).manual_seed(seed)
    card = Card(torch.zeros(FEATURES), torch.ones(FEATURES)).to(device)
    unit = torch.where(torch.isfinite(card.high - card.low), (card.high - card.low) / 4, 2.0)
    values = torch.randn(number, FEATURES, device=device, generator=generator).mul_(unit)
    values.add_(torch.where(torch.isfinite(card.low), card.low + unit, 0.0)).clamp_(card.low, card.high)
    columns = torch.tensor(INTEGER, device=device)
    values[:, columns] = values[:, columns].round()

    def chance() -> Tensor:
        return torch.rand(number, device=device, generator=generator)

    values[:, PIN].masked_fill_(chance() < 0.3, PINNED)
    for follower, places in zip(FOLLOWERS, card.sources, strict=True):
        followed = places[(chance() * len(places)).long()][:, None]
        values[:, follower] = torch.where(chance() < 0.7, values.gather(1, followed)[:, 0], values[:, follower])
    present = torch.empty_like(values, dtype=torch.bool).bernoulli_(0.8, generator=generator)
    target, weight = (chance() * CLASSES).long(), (chance() + 0.5) * torch.where(chance() < 0.05, -1.0, 1.0)
    return Jets(values.mul_(present), present, target, weight)


def read_jets(path: str, device: torch.device, number: int) -> Jets:
    found = {name: tensor[:number].to(device) for name, tensor in load_file(path).items()}
    values, present, target = (found[name] for name in ("values", "present", "target"))
    if values.shape != (len(target), FEATURES) or present.shape != values.shape:
        raise SystemExit(f"{path}: expected values and present [jets, {FEATURES}] and target [jets]")
    weight = found.get("weight", torch.ones_like(values[:, 0]))
    return Jets(values.float(), present.bool(), target.long(), weight.float())


def fitted_card(jets: Jets) -> Card:
    """Standardised with the first million jets."""
    present = jets.present[:1_000_000]
    values, number = jets.values[:1_000_000].double() * present, present.sum(0).clamp(min=1)
    mean = values.sum(0) / number
    variance = ((values - mean) ** 2 * present).sum(0) / number
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return Card(mean.float().cpu(), std.float().cpu()).to(jets.values.device)


def check(data: Jets, card: Card) -> dict[str, float]:
    """Compare gradients, losses and attacked values with float64 on the CPU; relative difference of the gradients.

    Raises:
        SystemExit: they disagree
    """
    torch.manual_seed(1)
    device, network, apart = card.mean.device, new_network(0.0), {}
    jets = Jets(*(tensor[:CHECKED] for tensor in data))
    exact = Jets(jets.values.double().cpu(), jets.present.cpu(), jets.target.cpu(), jets.weight.double().cpu())
    for adversarial, precision, how in product((False, True), precisions(device), ways(device)):
        double = copy.deepcopy(network).double(), copy.deepcopy(card).cpu().double()
        reference = Training(*double, adversarial=adversarial)
        reference.step(exact)
        training = Training(copy.deepcopy(network).to(device), card, adversarial=adversarial, bf16=precision == "bf16")
        start = [parameter.detach().clone() for parameter in training.network.parameters()]
        with matmul_precision(precision):
            run = how(training, jets, len(jets.target))
            restore(training, start)
            run(torch.arange(len(jets.target), device=device))
        label = f"{how.__name__} {precision} {'adversarial' if adversarial else 'nominal'}"
        apart[label] = disagreement(training, reference, label, strict=precision == "fp32")
        if torch.equal(start[0], next(training.network.parameters())):
            raise SystemExit(f"check: {label}: the step did not change the weights")
    if device.type == "cuda":
        check_replays(data, card)
    return apart


def restore(training: Training, start: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, before in zip(training.network.parameters(), start, strict=True):
            parameter.copy_(before)


def disagreement(training: Training, reference: Training, label: str, *, strict: bool) -> float:
    tolerance = 1e-3 if strict else 0.1
    expected, found = reference.gradient(), training.gradient().double().cpu()
    gradient = float((found - expected).norm() / expected.norm())
    loss = abs(float(training.loss) / float(reference.loss) - 1)
    # the sign of a gradient that is 0 but for rounding may differ
    moved = torch.isclose(training.values.double().cpu(), reference.values, rtol=1e-6, atol=0)
    elsewhere = 1 - float(moved.double().mean())
    if not (gradient < tolerance and loss < tolerance / 10 and elsewhere < tolerance / 10):
        raise SystemExit(
            f"check: {label}: away from float64 on the CPU by {gradient:.2g} (gradient), {loss:.2g} (loss), "
            f"{elsewhere:.2g} (share of attacked values)"
        )
    return gradient


def check_replays(data: Jets, card: Card) -> None:
    """A replay draws dropout anew, and works on the jets that it is given."""
    batch = CHECKED // 2
    training = Training(new_network(0.1).to(card.mean.device), card, adversarial=True)
    start = [parameter.detach().clone() for parameter in training.network.parameters()]
    run, losses = captured(training, data, batch), []
    for first in (0, 0, batch):
        restore(training, start)
        run(torch.arange(first, first + batch, device=card.mean.device))
        losses.append(float(training.loss))
    if len(set(losses)) < 3:
        raise SystemExit(f"check: replays of the graph: losses {losses} should differ, by dropout and by jets")


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ceilings(device: torch.device) -> dict[str, float]:
    """Rates of a large copy, TB/s read and written, and of large matrix products, TFLOP/s."""

    def seconds(call: Callable[[], Tensor]) -> float:
        times = []
        for _ in range(6):
            synchronise(device)
            start = time.perf_counter()
            for _ in range(10):
                call()
            synchronise(device)
            times.append((time.perf_counter() - start) / 10)
        return min(times[1:])

    cuda = device.type == "cuda"
    number = min(2**30, torch.cuda.mem_get_info()[0] // 32) if cuda else 2**24
    source, target = torch.ones(number, device=device), torch.empty(number, device=device)
    found = {"copy_tb_per_s": 8 * number / seconds(lambda: target.copy_(source)) / 1e12}
    side = 8192 if cuda else 512
    a, b = torch.randn(2, side, side, device=device)
    for precision in precisions(device):
        left, right = (a.bfloat16(), b.bfloat16()) if precision == "bf16" else (a, b)
        with matmul_precision(precision):
            found[f"matmul_{precision}_tflop_per_s"] = 2e-12 * side**3 / seconds(partial(torch.mm, left, right))
    return found


def step_bytes(precision: str, adversarial: bool) -> int:
    """Bytes per jet that the eager kernels of a step read and write.

    Of the activations: 20 wide passes forward (matrix products and ReLU), 39 back (they, weights and biases), 16 of
    dropout beside its masks; the attack has 20 forward and 25 back, and 49 float32 passes over the inputs.
    """
    size = 2 if precision == "bf16" else 4
    gather, standardise = 2 * (FEATURES * 5 + 12) + 8, FEATURES * 25
    total = gather + standardise + size * (75 * WIDTH + 2 * FEATURES) + 8 * WIDTH
    attack = standardise + size * (45 * WIDTH + 2 * FEATURES) + FEATURES * (49 * 4 + 4)
    return total + attack * adversarial


def rate(run: Callable[[Tensor], None], jets: int, batch: int, device: torch.device) -> float:
    """Jets per second in whole batches, an epoch's permutation included: the median of three epochs after one more."""
    seconds = []
    for epoch in range(4):
        generator = torch.Generator(device).manual_seed(100_003 + epoch)
        synchronise(device)
        start = time.perf_counter()
        order = torch.randperm(jets, device=device, generator=generator)
        for first in range(0, jets - batch + 1, batch):
            run(order[first : first + batch])
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return jets // batch * batch / statistics.median(seconds[1:])


def measure(data: Jets, card: Card, limits: dict[str, float]) -> dict[str, float | None]:
    """Million jets per second of every mode; None where it does not fit, or does not compile."""
    device, jets, found = card.mean.device, len(data.target), {}
    batches = sorted({min(batch, jets // 2) for batch in BATCHES})
    modes = [(how, precision, False) for precision in precisions(device) for how in ways(device)]
    if device.type == "cuda" and importlib.util.find_spec("triton"):
        modes.append((captured, "bf16", True))
    for (how, precision, fused), batch, adversarial in product(modes, batches, (False, True)):
        kind = "adversarial" if adversarial else "nominal"
        name = f"{'compiled' if fused else how.__name__}_{precision}_{batch}_{kind}"
        try:
            if device.type == "cuda" and STEP_BYTES * batch > 0.7 * torch.cuda.mem_get_info()[0]:
                raise torch.OutOfMemoryError(f"{name} may not fit")
            network = new_network(0.1).to(device)
            training = Training(network, card, adversarial=adversarial, bf16=precision == "bf16", fused=fused)
            with matmul_precision(precision):
                found[name] = rate(how(training, data, batch), jets, batch, device) / 1e6
            bound = limits["copy_tb_per_s"] * 1e6 / step_bytes(precision, adversarial)
            print(f"{name:40s}{found[name]:10.3f}{found[name] / bound:10.3f}", file=sys.stderr, flush=True)
        except Exception as error:
            if not (fused or isinstance(error, torch.OutOfMemoryError)):
                raise
            found[name] = None
            print(f"{name:40s} not measured: {str(error).splitlines()[0][:200]}", file=sys.stderr)
        training = None
        if fused:
            torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def headline(found: dict[str, float | None], limits: dict[str, float]) -> dict[str, float | str]:
    """The fastest nominal and adversarial mode, and what they mean for an epoch and for the seed study."""
    figures: dict[str, float | str] = {}
    for kind, epoch in (("nominal", "epoch_10m_s"), ("adversarial", "epoch_10m_adversarial_s")):
        speed, name = max((speed, name) for name, speed in found.items() if speed and name.endswith(kind))
        bound = limits["copy_tb_per_s"] * 1e6 / step_bytes(name.split("_")[1], kind == "adversarial")
        figures |= {f"{kind}_mjets_per_s": speed, f"{kind}_mode": name, epoch: 10 / speed}
        figures["of_memory_bound" if kind == "nominal" else "adversarial_of_memory_bound"] = speed / bound
        figures[f"seed_study_{kind}_minutes"] = SEED_STUDY / (speed * 1e6) / 60
        print(
            f"{kind}: {name}, {speed:.2f} Mjet/s; 10M jets in 10 / {speed:.2f} = {10 / speed:.3f} s; 672M jets x 200 "
            f"epochs in {SEED_STUDY / 1e6:,.0f} / {speed:.2f} s = {SEED_STUDY / (speed * 1e6) / 60:.1f} min",
            file=sys.stderr,
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jets", type=int, default=10_000_000)
    parser.add_argument("--data", help="safetensors file with values, present, target")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing measured (--device cpu --jets 50000 tries the steps on the CPU)", file=sys.stderr)
        print(json.dumps({"name": "training_gpu", "figures": None}))
        return
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    jets = min(options.jets, torch.cuda.mem_get_info()[0] // 2000) if device.type == "cuda" else options.jets
    data = read_jets(options.data, device, jets) if options.data else random_jets(jets, device)
    card = fitted_card(data)
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, one thread"
    print(f"{gpu}, torch {torch.__version__}, {len(data.target):,} jets", file=sys.stderr)
    for name, apart in check(data, card).items():
        print(f"check: {name}: gradients within {apart:.1g} of float64 on the CPU", file=sys.stderr)
    limits = ceilings(device)
    for name, speed in limits.items():
        print(f"{name:40s}{speed:10.3f}", file=sys.stderr)
    print(f"{'mode':40s}{'Mjet/s':>10s}{'of bound':>10s}", file=sys.stderr)
    found = measure(data, card, limits)
    figures = {**headline(found, limits), **limits, **{f"{name}_mjets_per_s": speed for name, speed in found.items()}}
    figures["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
    print(json.dumps({"name": "training_gpu", "figures": {"device": gpu, "torch": torch.__version__, **rounded}}))


if __name__ == "__main__":
    main()
