#!/usr/bin/env python3
"""Calibration in shards under Ray.

    calibrate_ray.py MODEL -d SOURCE -o OUT.qcal --shards N [--address auto] [--qcompile PATH] [-- more options of calibrate]

One task per shard runs `qcompile calibrate --shard I/N --resume`; the files are merged at the end.  Model, samples and the folder of OUT
must be at the same paths on every node (a shared file system).  Lost tasks are retried by Ray and go on from their checkpoints.
"""
import argparse
import pathlib
import subprocess
import sys


def parse():
    own, more = (sys.argv[1:], [])
    if "--" in own:
        at = own.index("--")
        own, more = own[:at], own[at + 1:]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("-d", "--data", action="append", required=True)
    p.add_argument("-o", "--output", required=True, type=pathlib.Path)
    p.add_argument("--shards", type=int, required=True)
    p.add_argument("--address", help="of a running cluster; default: a local one with --workers CPUs")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--qcompile", default="qcompile")
    args = p.parse_args(own)
    args.more = more
    return args


def shard_command(args, index):
    sources = [part for source in args.data for part in ("-d", source)]
    output = args.output.with_suffix(f".{index}.qcal")
    return output, [args.qcompile, "calibrate", args.model, *sources, "-o", str(output), "--shard", f"{index}/{args.shards}", "--resume", *args.more]


def main():
    args = parse()
    import ray

    ray.init(address=args.address) if args.address else ray.init(num_cpus=args.workers, include_dashboard=False)

    @ray.remote(num_cpus=1, max_retries=3)
    def calibrate(index):
        _, command = shard_command(args, index)
        done = subprocess.run(command, capture_output=True, text=True)
        return index, done.returncode, done.stderr

    failed = False
    pending = [calibrate.remote(i) for i in range(args.shards)]
    while pending:
        ready, pending = ray.wait(pending)
        index, code, err = ray.get(ready[0])
        print(f"shard {index}: {'done' if code == 0 else f'exit code {code}'}, {len(pending)} left", file=sys.stderr)
        if code != 0:
            failed = True
            print(err, file=sys.stderr)
    ray.shutdown()
    if failed:
        return 1
    parts = [shard_command(args, i)[0] for i in range(args.shards)]
    code = subprocess.run([args.qcompile, "merge", *map(str, parts), "-o", str(args.output)]).returncode
    if code == 0:
        for part in parts:
            part.unlink()
    return code


if __name__ == "__main__":
    sys.exit(main())
