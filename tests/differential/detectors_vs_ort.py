#!/usr/bin/env python3
"""Detectors of torchvision with their post-processing inside: SSDLite and RetinaNet, whose data decides how many boxes there are.

    detectors_vs_ort.py QCOMPILE [NAME ...] [--keep FOLDER]

With random weights, exported by both of PyTorch's exporters (the older with free height and width), each is run at five sizes by qcompile, in machine
code, and once by the interpreter, and by ONNX Runtime: at least 99 of 100 detections must be the same (class, score to 1e-4, corners to 0.1 of a
pixel; where two scores or an overlap lie on the line, an order of sums may decide for the other).  Then the model is quantized from random images
of one size to one file, whose height and width stay as free as the model's, and runs at that size and at another; both engines give the same bytes,
and as many detections must be those of ONNX Runtime on it (scores to 0.01, corners to 2 pixels) as it shares with itself without optimizations, less a
tenth: of thousands of candidates with random weights one step of an integer decides which are left.

Needs torch, torchvision, onnxscript, onnx and onnxruntime; exit code 77, which ctest reports as skipped, when one is missing.
"""
import argparse
import contextlib
import io
import pathlib
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy as np
    import onnxruntime
    import onnxscript  # noqa: F401
    import torch
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)


def suppress(boxes, scores, threshold):
    """What torchvision::nms is, where its library of operators is built for another torch."""
    order, kept = torch.argsort(scores, descending=True, stable=True), []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while order.numel():
        first, rest = order[0], order[1:]
        kept.append(int(first))
        sides = (torch.minimum(boxes[first, 2:], boxes[rest, 2:]) - torch.maximum(boxes[first, :2], boxes[rest, :2])).clamp(min=0)
        common = sides[:, 0] * sides[:, 1]
        order = rest[common / (area[first] + area[rest] - common) <= threshold]
    return torch.tensor(kept, dtype=torch.int64)


def with_operators():
    try:
        import torchvision
        return torchvision
    except RuntimeError:
        for name in [m for m in sys.modules if m.startswith("torchvision")]:
            del sys.modules[name]
    except ImportError as missing:
        print(f"left out: {missing}")
        sys.exit(77)
    library = torch.library.Library("torchvision", "DEF")
    align = "(Tensor x, Tensor rois, float scale, SymInt height, SymInt width, int ratio, bool aligned) -> Tensor"
    for name, signature in {"nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", "qnms": "(Tensor d, Tensor s, float i) -> Tensor",
                            "roi_align": align, "qroi_align": align, **{n: "(Tensor x) -> Tensor" for n in (
                                "_roi_align_backward", "ps_roi_align", "_ps_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_pool",
                                "_ps_roi_pool_backward", "deform_conv2d", "_deform_conv2d_backward")}}.items():
        library.define(name + signature)
    library.impl("nms", suppress, "CPU")
    with_operators.library = library  # lives as long as the process
    import torchvision
    return torchvision


def has_operators() -> None:
    return None


torchvision = with_operators()
torchvision.ops.boxes._assert_has_ops = torchvision.extension._assert_has_ops = has_operators
IMAGE = [torch.rand(3, 160, 200, generator=torch.Generator().manual_seed(5))]


def without_branch(boxes, scores, classes, threshold):
    """torchvision decides here by the number of boxes, which torch.export does not take."""
    return torch.ops.torchvision.nms(boxes + classes.to(boxes)[:, None] * 513.0, scores, threshold)


def plausible(model, outputs):
    """Weights that tell things apart: activations of the size of noise, outputs of the deviation that is asked for."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                module.bias.data.zero_()
    with torch.no_grad():
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        for _ in range(3):
            model.backbone(torch.randn(2, 3, 320, 320, generator=generator))
        model.eval()
        for name, (deviation, bias) in outputs.items():
            module, seen = model.get_submodule(name), []
            hook = module.register_forward_hook(lambda m, x, y: seen.append(y.std().item()))
            model(IMAGE)
            hook.remove()
            module.weight.data *= deviation / max(seen)
            module.bias.data.fill_(bias)
    return model


def ssdlite():
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=11, score_thresh=0.05)
    return plausible(model, {})


def retinanet():
    model = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=11, min_size=160, max_size=256)
    return plausible(model, {"head.classification_head.cls_logits": (1.0, -2.0), "head.regression_head.bbox_reg": (0.3, 0.0)})


DETECTORS = {"ssdlite": ssdlite, "retinanet": retinanet}


def export(model, path, newer):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if not newer:
            torch.onnx.export(model, (IMAGE,), path, dynamo=False, opset_version=17, input_names=["image"],
                              output_names=["boxes", "scores", "labels"], dynamic_axes={"image": {1: "height", 2: "width"}})
            return
        usual, torchvision.ops.boxes.batched_nms = torchvision.ops.boxes.batched_nms, without_branch
        torch.onnx.export(model, (IMAGE,), path, dynamo=True, input_names=["image"], output_names=["boxes", "scores", "labels"])
        torchvision.ops.boxes.batched_nms = usual


def detections(outputs):
    """Boxes, scores and labels, whatever their order and names."""
    boxes = next(o for o in outputs if o.ndim == 2)
    scores = next(o for o in outputs if o.ndim == 1 and o.dtype == np.float32)
    return boxes, scores, next(o for o in outputs if o.dtype == np.int64)


def shared(ours, theirs, score, pixel):
    """How many detections of the one are among those of the other."""
    (a, sa, la), (b, sb, lb) = ours, theirs
    if max(len(a), len(b)) == 0:
        return 1.0
    if min(len(a), len(b)) == 0:
        return 0.0
    near = (np.abs(a[:, None] - b[None]).max(-1) <= pixel) & (np.abs(sa[:, None] - sb[None]) <= score) & (la[:, None] == lb[None])
    return min(near.any(1).mean(), near.any(0).mean(), len(a) / len(b), len(b) / len(a))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    failures = 0

    def qcompile(*args):
        done = subprocess.run([options.qcompile.resolve(), *map(str, args)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"qcompile {' '.join(map(str, args))}\n{done.stderr}")

    with tempfile.TemporaryDirectory() as folder:
        work = options.keep or pathlib.Path(folder)
        work.mkdir(exist_ok=True)

        def session_of(path, optimized=True):
            settings = onnxruntime.SessionOptions()
            settings.log_severity_level = 3
            levels = onnxruntime.GraphOptimizationLevel
            settings.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
            return onnxruntime.InferenceSession(str(path), settings)

        def by_ort(path, image, optimized=True):
            session = session_of(path, optimized)
            return session.run(None, {session.get_inputs()[0].name: image})

        def both(path, image, engine="jit"):
            session, theirs = session_of(path), by_ort(path, image)
            np.save(work / "image.npy", image)
            qcompile("run", path, "--input", f"{session.get_inputs()[0].name}={work / 'image.npy'}", "--output-dir", work / "out", "--engine", engine)
            ours = [np.load(work / "out" / f"{o.name}.npy") for o in session.get_outputs()]
            return detections(ours), detections(theirs)

        for name, make in DETECTORS.items():
            if options.names and name not in options.names:
                continue
            model = make()
            for newer in (False, True):
                path = work / f"{name}_{'dynamo' if newer else 'torchscript'}.onnx"
                export(model, path, newer)
                rng = np.random.default_rng(7)
                sizes = [(160, 200)] * 5 if newer else [(160, 200), (128, 128), (200, 150), (96, 224), (180, 240)]
                rows = []
                for k, (height, width) in enumerate(sizes):
                    image = rng.random((3, height, width), dtype=np.float32)
                    for engine in ("jit", "interpreter") if k == 0 and name == "ssdlite" else ("jit",):
                        ours, theirs = both(path, image, engine)
                        rows.append((shared(ours, theirs, 1e-4, 0.1), len(theirs[0])))
                for k in range(6):
                    np.save(work / f"sample{k}.npy", rng.random((1, 3, 160, 200), dtype=np.float32))
                int8 = path.with_suffix(".int8.onnx")
                qcompile("quantize", path, *(a for k in range(6) for a in ("-d", f"npy:{work / f'sample{k}.npy'}")), "-o", int8)
                said, fine = [], True
                for k, size in enumerate(sizes[:1] if newer else (sizes[0], sizes[3])):
                    image = rng.random((3, *size), dtype=np.float32)
                    ours, theirs = both(int8, image)
                    quantized = shared(ours, theirs, 1e-2, 2)
                    reference, _ = both(int8, image, "interpreter") if k == 0 else (ours, theirs)
                    same = all(a.tobytes() == b.tobytes() for a, b in zip(ours, reference))
                    own = shared(detections(by_ort(int8, image, False)), theirs, 1e-2, 2)
                    fine = fine and quantized >= 0.9 * own and same
                    said.append(f"{quantized:.3f} of {len(theirs[0])} ({own:.3f} with itself){'' if same else ', OTHER bytes by the interpreter'}")
                ok = min(share for share, _ in rows) >= 0.99 and fine
                failures += not ok
                print(f"{'ok  ' if ok else 'FAIL'} {path.stem}: float {' '.join(f'{share:.3f} of {n}' for share, n in rows)}; int8 beside ONNX Runtime "
                      f"{' and '.join(said)}", flush=True)
    sys.exit(1 if failures else 0)


main()
