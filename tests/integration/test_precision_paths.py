"""What a GPU needs and a CPU can show: skipped fp16 updates, the mask the host makes, TF32's flags, gloo beside NCCL's place."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.dataset.tokens import load_tokens
from harness.worker import device
from harness.worker import main as worker
from harness.worker import train_loop as training
from harness.worker.collate import attention_mask, collate
from harness.worker.distributed import DistributedContext
from harness.worker.meters import MemoryMeter, StepTimer
from harness.worker.model import build_model
from harness.worker.train_loop import build_train_state, set_precision, train

CPU = DistributedContext(torch.device("cpu"), 0, 1)


@pytest.fixture(autouse=True)
def kept_flags():
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def prepare(bench, **raw):
    (cell,) = bench.cells(**raw)
    job = bench.prepare(cell).job
    torch.manual_seed(0)
    return cell.config, build_model(job.model, cell.config.model, 2), load_tokens(job.tokens_folder, "train")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_updates_that_the_scaler_skips_are_counted_without_reading_its_scale(optimizer, bench, monkeypatch):
    """fp16 is refused on a CPU, for it is slow there; its code is the GPU's all the same."""
    config, model, rows = prepare(
        bench, matrix={"precision": ["fp16"]}, training={"max_steps": 12, "optimizer": optimizer, "eval_every": 0.25}
    )
    trainee = build_train_state(model, config, CPU, 12)
    # 2^40 overflows fp16 until it was halved often enough: the scale falls once for every update that is skipped.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    trainee = replace(trainee, scaler=scaler)
    scales, read, seen = [], scaler.get_scale, []
    update = scaler.update
    monkeypatch.setattr(scaler, "update", lambda: (update(), scales.append(read())))
    monkeypatch.setattr(scaler, "get_scale", lambda: pytest.fail("reading the scale waits for the GPU"))
    trace = train(
        trainee, rows, rows, config, CPU, timer=StepTimer(CPU.device), memory=MemoryMeter(CPU.device, 0),
        on_step=lambda trace: seen.append(trace.num_skipped), tick=lambda: None,
    )  # fmt: skip
    fell = sum(after < before for before, after in zip([2.0**40, *scales], scales, strict=False))
    assert len(scales) == 12 and fell > 3
    assert trace.num_skipped == fell
    # Read at the pauses alone, after every 4th update.
    assert seen[:3] == [0, 0, 0] and seen[3] == sum(s < b for b, s in zip([2.0**40, *scales], scales[:4], strict=False))


def test_without_fp16_no_update_is_skipped(bench):
    assert bench.run(training={"max_steps": 4}).training.steps.num_skipped == 0


def test_the_mask_that_the_host_makes_gives_the_logits_of_transformers_own(bench, tiny_distilbert):
    for settings in ({}, {"model": {"name": str(tiny_distilbert)}}):
        _, model, rows = prepare(bench, **settings)
        model.eval()
        order = np.argsort(rows.lengths, kind="stable")
        same = next(
            group for group in np.split(order, np.flatnonzero(np.diff(rows.lengths[order])) + 1) if len(group) > 3
        )
        for batch, padded in ((order[::32], True), (same[:4], False)):
            ids, mask, _, num_real = collate(rows, batch, pad_to=None)
            assert (num_real < ids.numel()) is padded
            seen = attention_mask(mask, padded=padded)
            assert (seen is None) is not padded
            with torch.inference_mode():
                theirs = model(input_ids=ids, attention_mask=mask).logits
                ours = model(input_ids=ids, attention_mask=seen).logits
                always = model(input_ids=ids, attention_mask=attention_mask(mask, padded=True)).logits
            assert torch.equal(ours, theirs)
            assert torch.allclose(always, theirs, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("precision", "matmul", "is_tf32"), [("fp32", "ieee", False), ("tf32", "tf32", True), ("bf16", "ieee", False)]
)
def test_tf32_is_set_and_unset_for_older_and_newer_readers_of_the_flags(bench, precision, matmul, is_tf32):
    (cell,) = bench.cells(matrix={"precision": [precision]})
    torch.set_float32_matmul_precision("high" if not is_tf32 else "highest")  # as another cell might have left it
    set_precision(cell.config)
    assert torch.backends.cuda.matmul.fp32_precision == matmul
    assert torch.backends.cuda.matmul.allow_tf32 is is_tf32
    assert torch.backends.cudnn.allow_tf32 is is_tf32
    assert torch.get_float32_matmul_precision() == ("high" if is_tf32 else "highest")


def test_nothing_in_a_timed_step_waits_for_the_device(bench, monkeypatch):
    """A step that asked the device for a number would wait for its queue on a GPU; on a CPU the question alone is seen."""
    config, model, rows = prepare(bench, training={"max_steps": 6, "eval_every": 100})
    trainee = build_train_state(model, config, CPU, 6)
    asked = []

    class Asking(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
                asked.append(func)
            return func(*args, **(kwargs or {}))

    step = training.forward_backward
    monkeypatch.setattr(training, "forward_backward", lambda *args: _within(Asking(), step, *args))
    trace = train(
        trainee, rows, rows, config, CPU, timer=StepTimer(CPU.device), memory=MemoryMeter(CPU.device, 0),
        on_step=lambda _: None, tick=lambda: None,
    )  # fmt: skip
    assert len(trace.num_samples) == 6
    assert asked == []


def _within(context, function, *args):
    with context:
        return function(*args)


def test_ranks_that_share_a_gpu_are_bound_to_the_first(bench, monkeypatch):
    (cell,) = bench.cells(matrix={"device": ["gpu-ddp2"]})
    job = replace(bench.prepare(cell).job, rank=1, world_size=2)
    bound = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", bound.append)
    monkeypatch.setattr(device, "check_gpu_architecture", lambda _: None)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert device.bind_gpu(replace(job, share_first_gpu=True)) == torch.device("cuda", 0)
    assert bound == [torch.device("cuda", 0)]
    assert worker.os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    with pytest.raises(device.Unsupported, match="torch sees 1 CUDA devices, too few for rank 1"):
        device.bind_gpu(job)


def test_a_torch_that_sees_no_gpu_is_unsupported_and_says_why(bench):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: torch sees it")
    (cell,) = bench.cells(matrix={"device": ["gpu"]})
    with pytest.raises(device.Unsupported, match="sees no CUDA device: driver and CUDA build do not fit"):
        device.bind_gpu(bench.prepare(cell).job)


def test_what_the_forkserver_loads_asks_nothing_of_cuda():
    """Once CUDA was asked even for the number of its devices, no forked process can use it any more."""
    program = (
        "import torch\n"
        "def refuse(*_): raise SystemExit('CUDA was asked on import')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = refuse\n"
        "import harness.worker.main\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
