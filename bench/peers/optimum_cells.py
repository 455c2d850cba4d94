"""Runs of optimum-benchmark's training scenario, one cell after the other, by its Python interface.

Run by bench/bench_peers.py in the environment .venv-peers/optimum, with one argument: the job as JSON. Prints one line of JSON.

optimum-benchmark makes its own random rows of one length, without padding. Its launcher `process` starts a process
per cell; `inline` runs the same loop in this process, so that no other process waits for it.
"""

import json
import os
import sys
import tempfile
import time
from importlib.metadata import version

os.environ.update(LOG_LEVEL="ERROR", LOG_TO_FILE="0", HF_HUB_OFFLINE="1")

from optimum_benchmark import Benchmark, BenchmarkConfig, InlineConfig, ProcessConfig, PyTorchConfig, TrainingConfig
from optimum_benchmark.trackers import latency


def run(config):
    """Run a benchmark in optimum-benchmark's worker, and write the end of its first step to a file.

    The time is on the clock that all processes share.
    """

    class Told(latency.StepLatencyTrackerTrainerCallback):
        def on_step_end(self, *args, **kwargs):
            super().on_step_end(*args, **kwargs)
            if len(self.end_events) == 1:
                with open(os.environ["PEERS_FIRST_STEP"], "w") as file:  # noqa: PTH123 - runs in optimum-benchmark's process
                    file.write(repr(time.perf_counter()))

    from optimum_benchmark.scenarios.training import scenario

    scenario.StepLatencyTrackerTrainerCallback = Told
    return Benchmark.run(config)


def launch(job, cell):
    launcher = ProcessConfig() if job["launcher"] == "process" else InlineConfig()
    steps, batch = job["steps"], cell["batch_size"]
    config = BenchmarkConfig(
        name="peer",
        launcher=launcher,
        backend=PyTorchConfig(
            model=job["model"],
            library="transformers",
            task="text-classification",
            model_type="bert",
            device="cpu",
            torch_dtype="float32",
            inter_op_num_threads=job["threads"],  # sets torch.set_num_threads, despite its name
        ),
        scenario=TrainingConfig(
            max_steps=steps,
            warmup_steps=job["warmup_steps"],
            dataset_shapes={"dataset_size": steps * batch, "sequence_length": cell["seq_len"]},
            training_arguments={
                "per_device_train_batch_size": batch,
                "output_dir": job["folder"],
                "disable_tqdm": True,
                "logging_strategy": "no",
                "max_grad_norm": 0.0,
                "dataloader_pin_memory": False,
            },
        ),
        log_report=False,
    )
    from hydra.utils import get_class

    began = time.perf_counter()
    report = get_class(launcher._target_)(launcher).launch(worker=run, worker_args=[config])
    wall_s = time.perf_counter() - began
    with open(os.environ["PEERS_FIRST_STEP"]) as file:  # noqa: PTH123
        first_step_s = float(file.read()) - began
    return {
        **cell,
        "wall_s": wall_s,
        "first_step_s": first_step_s,
        "steps_s": report.overall.latency.values,
        "reported_samples_per_s": report.train.throughput.value,
    }


def main(job):
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEERS_FIRST_STEP"] = f"{folder}/first-step"
        cells = [launch(job | {"folder": folder}, cell) for cell in job["cells"]]
    versions = {name: version(name) for name in ("optimum-benchmark", "torch", "transformers", "accelerate")}
    print(json.dumps({"cells": cells, "versions": versions}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
