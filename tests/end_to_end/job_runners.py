#!/usr/bin/env python3
"""Shards under job runners give the bytes of one run.

    job_runners.py QCOMPILE SOURCE_DIR

The Slurm script runs with the variables that Slurm sets; the Ray script runs on two local workers.  Exit code 77 (left out) where the
Python that runs this has no Ray.
"""
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

QCOMPILE, ROOT = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
MODEL, SAMPLES = ROOT / "tests/data/digits/digits.onnx", f"npy:{ROOT}/tests/data/digits/test.npy?mean=0&std=255&limit=100"


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        subprocess.run([QCOMPILE, "calibrate", MODEL, "-d", SAMPLES, "-o", work / "one.qcal"], check=True, capture_output=True)
        one = (work / "one.qcal").read_bytes()

        for task in range(5, 8):  # --array=5-7
            env = {**os.environ, "QCOMPILE": str(QCOMPILE), "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "3"}
            subprocess.run(["bash", ROOT / "tools/distributed/calibrate.slurm", MODEL, SAMPLES, work / "slurm"], env=env, check=True, capture_output=True)
        subprocess.run([QCOMPILE, "merge", *sorted(work.glob("slurm.*.qcal")), "-o", work / "slurm.qcal"], check=True, capture_output=True)
        assert (work / "slurm.qcal").read_bytes() == one, "the Slurm script's shards give other bytes"
        print("slurm script: passed")

        if importlib.util.find_spec("ray") is None:
            print("ray is not installed: left out")
            return 77
        subprocess.run([sys.executable, ROOT / "tools/distributed/calibrate_ray.py", MODEL, "-d", SAMPLES, "-o", work / "ray.qcal", "--shards", "4", "--workers", "2",
                        "--qcompile", str(QCOMPILE)], check=True)
        assert (work / "ray.qcal").read_bytes() == one, "the Ray script's shards give other bytes"
        assert not list(work.glob("ray.*.qcal"))
        print("ray, two workers: passed")
    return 0


sys.exit(main())
