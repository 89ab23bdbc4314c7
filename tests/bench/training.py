#!/usr/bin/env python3
"""Steps of training beside PyTorch's: images/s of a ResNet-20 (32 x 32 pixels, batch 64) in float and quantization-aware, with SGD and momentum.

    training.py QCOMPILE [--torch PYTHON] [--threads 1,2] [--kinds float,qat] [--batch 64] [--rounds 5] [--seconds 2] [--json OUT]

The step is one graph: forward, gradients and update (passes prepare-qat, train-step), compiled as `bench` compiles any graph; BatchNorm is
folded on both sides.  PyTorch runs the same network eagerly, channels last and not, and the better of the two counts; quantization-aware it
is that of prepare_qat_fx with the fused observers of its default for x86.  Both take turns, so that what else runs on the machine meets both;
figures are medians over the rounds, peak memory is that of the whole process, and the load average is printed with them.  PYTHON has torch;
default $QC_TORCH_PYTHON, and without it PyTorch is left out.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

TORCH = r"""
import sys, time, warnings, torch
warnings.filterwarnings("ignore")
batch, threads, seconds, kind = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
torch.set_num_threads(threads)
torch.manual_seed(1)
nn, F = torch.nn, torch.nn.functional

class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.a, self.b = nn.Conv2d(i, o, 3, stride, 1), nn.Conv2d(o, o, 3, 1, 1)
        self.stride, self.more = stride, (o - i) // 2
    def forward(self, x):
        y = self.b(F.relu(self.a(x)))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
        return F.relu(y + x)

layers, i = [nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU()], 16
for o in (16, 32, 64):
    for n in range(3):
        layers.append(Block(i, o, 2 if n == 0 and o > 16 else 1))
        i = o
net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

def measure(last):
    model = net.to(memory_format=torch.channels_last) if last else net.to(memory_format=torch.contiguous_format)
    if kind == "qat":
        from torch.ao.quantization import get_default_qat_qconfig_mapping
        from torch.ao.quantization.quantize_fx import prepare_qat_fx
        model = prepare_qat_fx(net.train(), get_default_qat_qconfig_mapping("x86"), torch.randn(batch, 3, 32, 32))
        if last:
            model = model.to(memory_format=torch.channels_last)
    opt = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    x, t = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    if last:
        x = x.to(memory_format=torch.channels_last)
    def step():
        opt.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), t).backward()
        opt.step()
    for _ in range(3):
        step()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return batch / sorted(times)[len(times) // 2]

print(max(measure(False), measure(True)))
"""


class Network:
    """The forward graph as text; the target comes as probabilities."""

    def __init__(self, batch):
        self.batch, self.constants, self.body, self.count = batch, [], [], 0

    def sizes(self, shape):
        return f"f32[{','.join(map(str, shape))}]"

    def constant(self, shape, scale):
        name = f"w{len(self.constants)}"
        self.constants.append(f"const #{name} : {self.sizes(shape)} = rand({len(self.constants) + 1}, {-scale}, {scale})")
        self.body.append(f"  %{name} = const #{name} : {self.sizes(shape)}")
        return f"%{name}"

    def op(self, text, shape):
        self.count += 1
        self.body.append(f"  %v{self.count} = {text} : {self.sizes(shape)}")
        return f"%v{self.count}"

    def conv(self, x, inputs, outputs, size, stride):
        weight = self.constant((outputs, inputs, 3, 3), (2 / (9 * inputs)) ** 0.5)
        bias = self.constant((outputs,), 0.1)
        return self.op(f"conv {x}, {weight}, {bias} {{strides=[{stride},{stride}], pads=[1,1,1,1]}}", (self.batch, outputs, size, size))

    def block(self, x, inputs, outputs, size, stride):
        b, size = self.batch, size // stride
        y = self.op(f"relu {self.conv(x, inputs, outputs, size, stride)}", (b, outputs, size, size))
        y = self.conv(y, outputs, outputs, size, 1)
        if stride > 1:
            more = (outputs - inputs) // 2
            x = self.op(f"slice {x} {{starts=[0,0,0,0], sizes=[{b},{inputs},{size},{size}], steps=[1,1,2,2]}}", (b, inputs, size, size))
            x = self.op(f"pad {x} {{pads=[0,{more},0,0,0,{more},0,0]}}", (b, outputs, size, size))
        return self.op(f"relu {self.op(f'add {y}, {x}', (b, outputs, size, size))}", (b, outputs, size, size)), size

    def text(self):
        b = self.batch
        x, inputs, size = self.op(f"relu {self.conv('%x', 3, 16, 32, 1)}", (b, 16, 32, 32)), 16, 32
        for outputs in (16, 32, 64):
            for n in range(3):
                x, size = self.block(x, inputs, outputs, size, 2 if n == 0 and outputs > 16 else 1)
                inputs = outputs
        x = self.op(f"reduce_mean {x} {{axes=[2,3], keepdims=0}}", (b, 64))
        x = self.op(f"linear {x}, {self.constant((10, 64), 0.2)}, {self.constant((10,), 0.1)}", (b, 10))
        x = self.op(f"mul {self.op(f'log_softmax {x} {{axis=1}}', (b, 10))}, %t", (b, 10))
        x = self.op(f"reduce_sum {x} {{axes=[0,1], keepdims=0}}", ())
        self.body.append(f'  %loss = map {x} {{expr="a0 * {-1 / b}"}} : f32[]')
        graph = f'graph @resnet20(%x: {self.sizes((b, 3, 32, 32))}, %t: {self.sizes((b, 10))}) -> ("loss") {{'
        return "\n".join([*self.constants, graph, *self.body, "  return %loss", "}"]) + "\n"


# What stands in front of train-step.
PREPARED = {"float": "", "qat": "annotate,prepare,prepare-qat{range=[-1.0,3.0]},"}


def output(*command):
    """What it prints, and its peak memory in MB."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as wrong:
        process = subprocess.Popen([str(c) for c in command], stdout=said, stderr=wrong)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        wrong.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(map(str, command[:2]))}: {wrong.read().decode()[-800:]}")
        return said.read().decode(), usage.ru_maxrss * 1024 / 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("qcompile")
    parser.add_argument("--torch", default=os.environ.get("QC_TORCH_PYTHON", ""))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--kinds", default="float,qat")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--json")
    o = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        forward = pathlib.Path(folder) / "forward.qir"
        forward.write_text(Network(o.batch).text())
        step = {}
        for kind in o.kinds.split(","):
            step[kind] = pathlib.Path(folder) / f"{kind}.qir"
            pipeline = PREPARED[kind] + 'train-step{of="loss", rate=0.001, momentum=0.9, weight_decay=0.0001}'
            step[kind].write_text(output(o.qcompile, "opt", forward, "--payloads", f"--pipeline={pipeline}")[0])
        for threads in map(int, o.threads.split(",")):
            for kind, path in step.items():
                ours, theirs, peaks = [], [], ([], [])
                for _ in range(o.rounds):
                    report, peak = output(o.qcompile, "bench", path, "--threads", threads, "--seconds", o.seconds, "--json")
                    ours.append(1e3 * o.batch / json.loads(report)["median_ms"])
                    peaks[0].append(peak)
                    if o.torch:
                        report, peak = output(o.torch, "-c", TORCH, o.batch, threads, o.seconds, kind)
                        theirs.append(float(report))
                        peaks[1].append(peak)
                row = {"kind": kind, "threads": threads, "images_per_s": statistics.median(ours), "peak_mb": statistics.median(peaks[0]), "load": os.getloadavg()[0]}
                line = f"{kind:5} {threads} threads: {row['images_per_s']:8.0f} images/s, {row['peak_mb']:5.0f} MB"
                if theirs:
                    row |= {"torch": statistics.median(theirs), "torch_peak_mb": statistics.median(peaks[1]), "ratio": statistics.median(a / b for a, b in zip(ours, theirs))}
                    line += f"; PyTorch {row['torch']:8.0f}, {row['torch_peak_mb']:5.0f} MB; ratio {row['ratio']:.2f}"
                print(f"{line} (load {row['load']:.1f})", flush=True)
                rows.append(row)
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
