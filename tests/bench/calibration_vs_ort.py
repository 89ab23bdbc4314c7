#!/usr/bin/env python3
"""Time and peak memory of collecting activation ranges: qcompile's histogram observers beside ONNX Runtime's calibrators, in one run.

    calibration_vs_ort.py QCOMPILE MODEL.onnx SAMPLES.npy [--counts 40,400] [--methods entropy,percentile,minmax] [--threads 1] [--limit-gb 16]

SAMPLES.npy is [n, ...], one sample of the model's only input per row.  Every measurement is a process of its own, which loads the model,
reads the samples from that file, and ends with ranges; printed are its wall time in seconds and its peak resident memory in MB.  Needs
numpy and onnxruntime.
"""
import argparse
import os
import resource
import sys
import tempfile
import time


def measured(command, limit):
    """Wall seconds and peak MB of a process; None if it fails, of more than `limit` bytes, say."""
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        if limit:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os.execvp(command[0], command)
    _, status, usage = os.wait4(pid, 0)
    return (time.perf_counter() - start, usage.ru_maxrss / 1024) if status == 0 else None


def calibrate_with_ort(model, samples, count, method, threads):
    import numpy as np
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    onnxruntime.set_default_logger_severity(4)
    data = np.load(samples, mmap_mode="r")

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.name = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()[0].name
            self.next_index = 0

        def get_next(self):
            if self.next_index == count:
                return None
            self.next_index += 1
            return {self.name: np.array(data[self.next_index - 1 : self.next_index])}

    kind = {"entropy": CalibrationMethod.Entropy, "percentile": CalibrationMethod.Percentile, "minmax": CalibrationMethod.MinMax}[method]
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(model, augmented_model_path=f"{folder}/augmented.onnx", calibrate_method=kind)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        calibrator.infer_session = onnxruntime.InferenceSession(f"{folder}/augmented.onnx", options, providers=["CPUExecutionProvider"])
        calibrator.collect_data(Reader())
        calibrator.compute_data()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("qcompile")
    p.add_argument("model")
    p.add_argument("samples")
    p.add_argument("--counts", default="40,400")
    p.add_argument("--methods", default="entropy,percentile,minmax")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--limit-gb", type=float, default=0, help="address space of a process; 0: all there is")
    p.add_argument("--worker", nargs=2, metavar=("METHOD", "COUNT"), help="one measurement of ONNX Runtime, used by this script itself")
    a = p.parse_args()
    if a.worker:
        return calibrate_with_ort(a.model, a.samples, int(a.worker[1]), a.worker[0], a.threads)
    counts = [int(c) for c in a.counts.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        rows = {"qcompile histogram": lambda n: [a.qcompile, "calibrate", a.model, "-d", f"npy:{a.samples}?limit={n}", "-o", f"{folder}/{n}.qcal",
                                                 "--threads", str(a.threads)]}
        for method in a.methods.split(","):
            rows[f"ONNX Runtime {method}"] = lambda n, m=method: [sys.executable, __file__, a.qcompile, a.model, a.samples, "--threads", str(a.threads),
                                                                  "--worker", m, str(n)]
        print(f"{'':26}" + "".join(f"{n:>8} samples      " for n in counts))
        for name, command in rows.items():
            cells = [measured(command(n), int(a.limit_gb * 2**30)) for n in counts]
            print(f"{name:26}" + "".join(f"{c[0]:8.1f} s {c[1]:7.0f} MB " if c else f"{'failed':>22} " for c in cells), flush=True)


if __name__ == "__main__":
    main()
