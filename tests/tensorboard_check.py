"""Reads a run's event files with TensorBoard's own reader and prints what it saw.

A check by hand, no part of ./test, since it needs the Python package tensorboard:

    python3 -m venv /tmp/tensorboard && /tmp/tensorboard/bin/pip install tensorboard
    /tmp/tensorboard/bin/python tests/tensorboard_check.py runs/quickstart

Prints, of each scalar, how many points there are and the first and the last. Fails if the reader
finds no scalar, if steps do not rise, or if metrics.jsonl beside the files has other losses.
"""

import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def as_float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def main():
    run = pathlib.Path(sys.argv[1])
    folder = next(run.rglob("events.out.tfevents.*"), run / "events").parent
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    if not tags:
        sys.exit(f"no scalars in {folder}")
    for tag in tags:
        points = events.Scalars(tag)
        steps = [point.step for point in points]
        if steps != sorted(set(steps)):
            sys.exit(f"{tag}: the steps do not rise: {steps}")
        print(f"{tag}: {len(points)} points, step {steps[0]} = {points[0].value:.7g}, "
              f"step {steps[-1]} = {points[-1].value:.7g}")
    metrics = run / "metrics.jsonl"
    if metrics.exists():
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        written = {row["step"]: as_float32(row["loss"]) for row in rows if "loss" in row}
        read = {point.step: point.value for point in events.Scalars("loss")}
        if written != read:
            sys.exit("the losses of metrics.jsonl and of the event files differ")
        print(f"{len(read)} losses equal those of metrics.jsonl")


main()
