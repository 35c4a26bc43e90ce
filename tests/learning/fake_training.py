"""Stands in for training.py where a test needs its process, but no training: ``python fake_training.py HOW ORDER``. It
imports nothing of the service, which takes longer than all that it does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ADAPTER, GREEDY = "adapter", "greedy.json"


def main(how: str, path: Path) -> int:
    order = json.loads(path.read_text())
    folder = Path(order["folder"])
    print("a library says something", flush=True)
    line = {"stage": "texts", "step": 1, "steps": 2, "figures": {"loss": 2.5}}
    print(json.dumps(line), flush=True)
    match how:
        case "fails":
            print(json.dumps({"stage": "failed", "step": 0, "steps": 0, "reason": "the disk is full"}), flush=True)
            return 1
        case "crashes":
            print("RuntimeError: out of luck", flush=True)
            return 1
        case "dies":
            os.kill(os.getpid(), 9)
        case "dies and leaves an engine":
            engine = subprocess.Popen(["sleep", "600"])
            (folder.parent / "pid").write_text(str(engine.pid))
            os.kill(os.getpid(), 9)
        case "hangs":
            (folder.parent / "pid").write_text(str(os.getpid()))
            time.sleep(600)
        case "leaves nothing":
            return 0
    adapter = folder / ADAPTER
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 8, "target_modules": ["q_proj"]}))
    (adapter / "adapter_model.safetensors").write_bytes(f"weights of {order['lessons']}".encode())
    (folder / GREEDY).write_text("[]")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
