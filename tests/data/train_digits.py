#!/usr/bin/env python3
"""Trains the small CNN of the quick start on scikit-learn's digits and writes it with its data.

    python train_digits.py        # needs torch, scikit-learn, onnx, pillow; writes into digits/ beside this file

The network has what a real one has: convolutions with BatchNorm left unfolded, a strided and a depthwise convolution, a residual
addition, a global mean and a linear layer.  Input: 1x1x16x16, the 8x8 digit enlarged, pixels 0..255 divided by 255.
Files: digits.onnx; calib/*.png (60 images); test.npy (597 images, u8, N x 1 x 16 x 16) and labels.tsv (index, class).
"""
import pathlib

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

OUT = pathlib.Path(__file__).resolve().parent / "digits"


def conv_bn(cin, cout, kernel=3, stride=1, groups=1):
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(1, 16)
        self.a = conv_bn(16, 16)
        self.b = conv_bn(16, 16)
        self.down = conv_bn(16, 32, stride=2)
        self.depthwise = conv_bn(32, 32, groups=32)
        self.pointwise = conv_bn(32, 32, kernel=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        x = torch.relu(self.down(x))
        x = nn.functional.hardtanh(self.depthwise(x), 0.0, 6.0)
        x = torch.relu(self.pointwise(x))
        return self.head(x.mean((2, 3)))


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = load_digits()
    small = (data.images * (255 / 16)).round().astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(i).resize((16, 16), Image.Resampling.BILINEAR)) for i in small])
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], data.target[order]
    train, test = slice(0, 1200), slice(1200, None)
    x = torch.tensor(images[train], dtype=torch.float32)[:, None] / 255
    y = torch.tensor(labels[train])
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-2)
    epochs, batch = 40, 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * (len(x) // batch + 1))
    for _ in range(epochs):
        for i in torch.randperm(len(x)).split(batch):
            shift = torch.randint(-1, 2, (2,)).tolist()
            loss = nn.functional.cross_entropy(net(torch.roll(x[i], shift, (2, 3))), y[i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        scores = net(torch.tensor(images[test], dtype=torch.float32)[:, None] / 255)
    print("test accuracy", (scores.argmax(1).numpy() == labels[test]).mean())

    (OUT / "calib").mkdir(parents=True, exist_ok=True)
    torch.onnx.export(net, x[:1], str(OUT / "digits.onnx"), input_names=["image"], output_names=["scores"], opset_version=17,
                      dynamic_axes={"image": {0: "N"}, "scores": {0: "N"}}, dynamo=False, do_constant_folding=False,
                      training=torch.onnx.TrainingMode.PRESERVE)
    for k in range(60):
        Image.fromarray(images[k]).save(OUT / "calib" / f"{k:03d}.png")
    np.save(OUT / "test.npy", images[test][:, None])
    with open(OUT / "labels.tsv", "w") as file:
        file.write("index\tclass\n")
        file.writelines(f"{i}\t{c}\n" for i, c in enumerate(labels[test]))


if __name__ == "__main__":
    main()
