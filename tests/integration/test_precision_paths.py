"""GPU code paths that a CPU can test: skipped fp16 updates, the host's attention mask, TF32 flags, GPU binding."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.worker import device, train_loop
from harness.worker.collate import attention_mask, collate
from harness.worker.distributed import DistributedContext
from harness.worker.meters import Meters
from harness.worker.model import build_model
from harness.worker.train_loop import TrainHooks, build_train_state, train
from harness.worker.train_state import SplitTokens, TrainContext

CPU = DistributedContext(torch.device("cpu"), 0, 1)


@pytest.fixture(autouse=True)
def restored_flags():
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def prepare(bench, **raw):
    (cell,) = bench.cells(**raw)
    job = bench.prepare(cell).job
    torch.manual_seed(0)
    context = TrainContext(cell.config, CPU, SplitTokens.load(job.tokens_folder))
    return context, build_model(job.model, cell.config.model, ("bad", "good"))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_updates_that_the_scaler_skips_are_counted_without_reading_its_scale(optimizer, bench, monkeypatch):
    """The CPU refuses fp16 only because it is slow; the code is the same as on a GPU."""
    context, model = prepare(
        bench, matrix={"precision": ["fp16"]}, training={"max_steps": 12, "optimizer": optimizer, "eval_every": 0.25}
    )
    # 2^40 overflows fp16 until it is halved often enough: the scale falls once for every skipped update.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    state = replace(build_train_state(model, context.config, CPU, 12), scaler=scaler)
    scales, read_scale, update, num_skipped = [], scaler.get_scale, scaler.update, []
    monkeypatch.setattr(scaler, "update", lambda: (update(), scales.append(read_scale())))
    monkeypatch.setattr(scaler, "get_scale", lambda: pytest.fail("reading the scale waits for the GPU"))
    hooks = TrainHooks(on_step=lambda history: num_skipped.append(history.num_skipped))
    history = train(state, context, Meters.create(CPU.device, 0), hooks)
    fell = [after < before for before, after in zip([2.0**40, *scales], scales, strict=False)]
    assert len(scales) == 12 and sum(fell) > 3
    assert history.num_skipped == sum(fell)
    # The count is read at pauses only, after every 4th update.
    assert num_skipped[:4] == [0, 0, 0, sum(fell[:4])]


def test_without_fp16_no_update_is_skipped(bench):
    assert bench.run(training={"max_steps": 4}).training.steps.num_skipped == 0


def test_the_hosts_attention_mask_gives_the_same_logits_as_transformers_own(bench, tiny_distilbert):
    for study in ({}, {"model": {"name": str(tiny_distilbert)}}):
        context, model = prepare(bench, **study)
        rows = context.splits.train
        model.eval()
        order = np.argsort(rows.lengths, kind="stable")
        same = next(
            group for group in np.split(order, np.flatnonzero(np.diff(rows.lengths[order])) + 1) if len(group) > 3
        )
        for batch, padded in ((order[::32], True), (same[:4], False)):
            ids, mask, _, num_real = collate(rows, batch, pad_to=None)
            assert (num_real < ids.numel()) is padded
            expanded = attention_mask(mask, model.config, padded=padded)
            assert (expanded is None) is not padded
            with torch.inference_mode():
                theirs = model(input_ids=ids, attention_mask=mask).logits
                ours = model(input_ids=ids, attention_mask=expanded).logits
                always = model(input_ids=ids, attention_mask=attention_mask(mask, model.config, padded=True)).logits
            assert torch.equal(ours, theirs)
            assert torch.allclose(always, theirs, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("precision", "matmul", "is_tf32"), [("fp32", "ieee", False), ("tf32", "tf32", True), ("bf16", "ieee", False)]
)
def test_tf32_is_set_in_torchs_older_and_newer_flags(precision, matmul, is_tf32):
    torch.set_float32_matmul_precision("high" if not is_tf32 else "highest")  # as another cell might have left it
    device.set_matmul_precision(precision)
    assert torch.backends.cuda.matmul.fp32_precision == matmul
    assert torch.backends.cuda.matmul.allow_tf32 is is_tf32
    assert torch.backends.cudnn.allow_tf32 is is_tf32
    assert torch.get_float32_matmul_precision() == ("high" if is_tf32 else "highest")


def test_nothing_in_a_timed_step_waits_for_the_device(bench, monkeypatch):
    """Reading a number from a GPU waits for its queue; on a CPU, the read itself can be detected."""
    context, model = prepare(bench, training={"max_steps": 6, "eval_every": 100})
    state = build_train_state(model, context.config, CPU, 6)
    reads = []

    class ReadDetector(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
                reads.append(func)
            return func(*args, **(kwargs or {}))

    forward_backward = train_loop.forward_backward

    def detecting(*args):
        with ReadDetector():
            return forward_backward(*args)

    monkeypatch.setattr(train_loop, "forward_backward", detecting)
    history = train(state, context, Meters.create(CPU.device, 0), TrainHooks())
    assert len(history.num_samples) == 6
    assert reads == []


def test_ranks_that_share_a_gpu_bind_to_the_first(monkeypatch):
    bound = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", bound.append)
    monkeypatch.setattr(device, "check_gpu_architecture", lambda _: None)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert device.bind_gpu(1, share_first=True) == torch.device("cuda", 0)
    # A cap is set in the allocator before anything is allocated; for a while records named one that nothing had set.
    shares = []
    properties = types.SimpleNamespace(total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: shares.append(given))
    device.bind_gpu(1, share_first=True, memory_limit_gib=6.0)
    device.bind_gpu(1, share_first=True, memory_limit_gib=48.0)
    assert shares == [(0.25, torch.device("cuda", 0)), (1.0, torch.device("cuda", 0))]
    assert set(bound) == {torch.device("cuda", 0)}
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    with pytest.raises(device.Unsupported, match="torch sees 1 CUDA devices, too few for rank 1"):
        device.bind_gpu(1)


def test_without_a_visible_gpu_the_cell_is_unsupported():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(device.Unsupported, match="sees no CUDA device: driver and CUDA build do not fit"):
        device.bind_gpu()


def test_what_the_forkserver_preloads_does_not_initialize_cuda():
    """After any CUDA call, even counting devices, forked processes can't use CUDA."""
    program = (
        "import torch\n"
        "def refuse(*_): raise SystemExit('CUDA was used on import')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = refuse\n"
        "import harness.worker.main\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
