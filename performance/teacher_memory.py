"""The memory that loading a teacher takes, beside the bytes of its weights on disk.

    python performance/teacher_memory.py               # a random decoder of one billion parameters, 2 GB on disk
    python performance/teacher_memory.py --blocks 4    # a smaller one

Each way of loading runs in a process of its own, whose peaks are those of resident memory, file pages included, and of
anonymous memory, which the system cannot drop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import work
from table_memory import Watch

#: What is asked for -> (precision, devices).
WAYS = {"auto": ("auto", None), "auto, device map auto": ("auto", "auto"), "float32": ("float32", None)}


def write(folder: Path, blocks: int) -> None:
    """Write a random decoder in bfloat16."""
    import torch
    from transformers import AutoModelForSequenceClassification, Qwen2Config

    sizes = {"hidden_size": 2048, "intermediate_size": 5504, "num_attention_heads": 16, "num_key_value_heads": 16}
    config = Qwen2Config(num_hidden_layers=blocks, vocab_size=32_000, num_labels=2, pad_token_id=0, **sizes)
    torch.set_default_dtype(torch.bfloat16)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


def load(folder: Path, way: str) -> dict[str, float]:
    """Load the teacher in this process, and return the growth of its peaks in MB."""
    import accelerate  # noqa: F401 - what loading imports is no memory of the weights
    from transformers.models.qwen2 import modeling_qwen2  # noqa: F401

    from railkd.models.checkpoints import Checkpoint
    from railkd.runtime import hardware

    dtype, devices = WAYS[way]
    checkpoint = Checkpoint.find(folder).loaded_as(dtype, devices)
    hardware.reset_peak_memory()
    before, anonymous = hardware.peak_memory() / 1e6, work.rss_anon_mb()
    watch = Watch()
    watch.start()
    model = checkpoint.frozen()
    assert model is not None
    return {"peak": hardware.peak_memory() / 1e6 - before, "anonymous": watch.stop() - anonymous}


def main() -> None:
    """Parse the command line and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=18)
    parser.add_argument("--load", nargs=2, metavar=("FOLDER", "WAY"), help="in this process: what the others run")
    args = parser.parse_args()
    if args.load:
        print(json.dumps(load(Path(args.load[0]), args.load[1])))
        return
    print(work.machine())
    with tempfile.TemporaryDirectory() as name:
        script = [sys.executable, __file__]
        subprocess.run([sys.executable, "-c", _writing(name, args.blocks)], check=True)
        disk = sum(file.stat().st_size for file in Path(name).glob("*.safetensors")) / 1e6
        for way in WAYS:
            done = subprocess.run([*script, "--load", name, way], capture_output=True, text=True, check=True)
            grown: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            shares = {what: round(value / disk, 2) for what, value in grown.items()}
            print(f"{way}: of {disk:,.0f} MB on disk", json.dumps(shares))


def _writing(folder: str, blocks: int) -> str:
    """Return a program that writes the teacher, in a process of its own, which gives its memory back."""
    return f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport teacher_memory, pathlib\n" + (
        f"teacher_memory.write(pathlib.Path({folder!r}), {blocks})"
    )


if __name__ == "__main__":
    main()
