"""Images a second from JPEG files of 500 x 375 pixels to batches of network input, by augmentation and threads.

The files are made here: coloured noise with the spectrum of photographs, some 150 kB each. Rounds are
interleaved; a CPU second is one of the whole process and does not depend on what else the machine does.

Run: python -m benchmarks.loading [--size 224] [--images 320] [--threads 1 2]
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from quadnas.data.augmentation import BASIC, NO_AUGMENTATION, Augmentation, RandAugment
from quadnas.data.base import load_data
from quadnas.data.batches import minibatches
from quadnas.data.files import FileSplit

BATCH_SIZE = 64
AUGMENTATIONS = {
    "none": NO_AUGMENTATION,
    "crops and mirroring": BASIC,
    "+ colour jitter": Augmentation(color_jitter=0.4),
    "+ RandAugment": Augmentation(rand_augment=RandAugment()),
    "+ RandAugment, erasing, mixup, cutmix": Augmentation(
        rand_augment=RandAugment(), random_erasing=0.25, mixup_alpha=0.8, cutmix_alpha=1.0
    ),
}


def make_photographs(root: Path, count: int) -> FileSplit:
    """Noise whose amplitude falls as 1 / frequency, as JPEG files of two classes."""
    random = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.rfftfreq(500)[None]) + 0.01
    for i in range(count):
        spectrum = np.fft.rfft2(random.normal(size=(375, 500, 3)), axes=(0, 1)) / frequency[..., None] ** 1.1
        pixels = np.fft.irfft2(spectrum, s=(375, 500), axes=(0, 1))
        pixels = np.clip(120 + 55 * pixels / pixels.std(), 0, 255).astype(np.uint8)
        path = root / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, quality=92)
    training = load_data(f"folder:{root}").training
    assert isinstance(training, FileSplit)
    return training


def per_second(split: FileSplit, size: int, augmentation: Augmentation, round_: int) -> tuple[float, float]:
    """Images per second of the clock and of CPU time in one epoch."""
    wall, cpu, images = time.perf_counter(), time.process_time(), 0
    for batch in minibatches(split, BATCH_SIZE, size=size, seed=round_, epoch=0, augmentation=augmentation):
        images += len(batch.images)
    return images / (time.perf_counter() - wall), images / (time.process_time() - cpu)


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        split = make_photographs(Path(folder), options.images)
        variants = [(name, threads) for name in AUGMENTATIONS for threads in options.threads]
        rounds = [
            [
                per_second(replace(split, workers=n), options.size, AUGMENTATIONS[name], k)
                for name, n in variants
            ]
            for k in range(options.rounds)
        ]
    print(f"{options.size}x{options.size}, batches of {BATCH_SIZE}: images per second, per CPU second")
    for (name, threads), figures in zip(variants, zip(*rounds, strict=True), strict=True):
        wall, cpu = (statistics.median(values) for values in zip(*figures, strict=True))
        print(f"  {name:<40}{threads:>2} threads{wall:>8.0f}{cpu:>8.0f}")


if __name__ == "__main__":
    main()
