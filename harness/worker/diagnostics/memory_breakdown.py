"""Break down a step's memory: run one extra step after training and track every tensor."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any, Literal, Self

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from harness.dataset.batch_plan import Step
from harness.dataset.training_plan import evaluation_batches
from harness.schema.diagnostics_record import MemoryParts, StepPeak
from harness.worker.collate import num_padded_tokens
from harness.worker.evaluation import predict
from harness.worker.meters import nvml_process_bytes
from harness.worker.train_loop import forward_backward, iter_batches
from harness.worker.train_state import FinishedTraining, TrainContext, TrainState

_SDPA = "_scaled_dot_product_"
# A dispatch mode sees unfused attention only as the operators it consists of. This softmax identifies it: nothing else in
# BERT uses the operator.
_MATH_SOFTMAX, _MATH_SDPA = "_safe_softmax", "_scaled_dot_product_attention_math"
# Kind of layer by a word in the module's path; the first match counts.
_LAYER_KINDS = (
    ("embeddings", "embeddings"),
    ("attention", "attention"),
    ("intermediate", "feed-forward"),
    ("output", "feed-forward"),
    ("ffn", "feed-forward"),
    ("pooler", "head"),
    ("classifier", "head"),
    # Only activation checkpointing saves a tensor here: a whole layer's input.
    ("layer", "layer inputs"),
)
_WEIGHT_COPIES = "weight copies"  # which autocast makes in its lower precision
_OTHER = "other"


def measure_breakdown(training: FinishedTraining) -> tuple[MemoryParts, tuple[str, ...]]:
    """Repeat the training's largest micro-batch without an update, and count its memory by kind.

    Returns:
        The bytes of each kind, and the names of the attention operators that ran.
    """
    state, context = training.state, training.context
    model, train_rows, config = state.model, context.splits.train, context.config
    step = _largest_micro_batch(islice(iter_batches(context), len(training.result.step_s)), context)
    model.train()
    state.optimizer.zero_grad(set_to_none=True)
    if config.training.grad_accum > 1:
        # Create gradients beforehand: in training, all micro-batches of an update but the first find those of earlier ones.
        forward_backward(state, context, step)
    with _TensorTracker(model) as tracker:
        forward_backward(state, context, step)
    buckets = _bucket_bytes(state)
    gradients = buckets + _num_bytes(_gradients(model))
    peak = tracker.peak.model_copy(update={"gradients_bytes": tracker.peak.gradients_bytes + buckets})
    state.optimizer.zero_grad(set_to_none=True)
    if config.is_judged:
        evaluation = _evaluation_peak(model, context).model_copy(update={"gradients_bytes": buckets})
        peak = max(peak, evaluation, key=lambda candidate: candidate.num_bytes)
    before, after = training.resident_before, training.resident_after
    (own,) = (micro[context.rank] for micro in step)
    optimizer_state = (value for moments in state.optimizer.state.values() for value in moments.values())
    parts = MemoryParts(
        base_bytes=_gpu_base_bytes(context.device) if context.device.type == "cuda" else before.total_bytes,
        libraries_bytes=_growth(before.libraries_bytes, after.libraries_bytes),
        weights_bytes=_num_bytes([*model.parameters(), *model.buffers()]),
        unread_weights_bytes=after.unread_weights_bytes if context.device.type == "cpu" else 0,
        gradients_bytes=gradients,
        optimizer_bytes=_num_bytes(value for value in optimizer_state if torch.is_tensor(value)),
        activations_bytes=dict(sorted(tracker.saved.items())),
        num_samples=len(own),
        num_padded_tokens=num_padded_tokens(train_rows, own, config),
        at_peak=peak,
    )
    return parts, tuple(sorted(tracker.kernels))


class _TensorTracker(TorchDispatchMode):
    """Counts every tensor's storage once, from the operator that creates it until it is freed.

    Attributes:
        saved: Bytes that autograd saved, by kind of layer.
        peak: Memory at the peak, excluding weights and optimizer state.
        kernels: Names of the attention operators that ran.
    """

    def __init__(self, model: torch.nn.Module, phase: Literal["forward", "evaluation"] = "forward") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model, self._phase = model, phase
        self._preexisting = {
            _storage_key(tensor) for tensor in (*model.parameters(), *model.buffers(), *_gradients(model))
        }
        self._parameters = {_storage_key(parameter) for parameter in model.parameters()}
        self._live: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self._saved: set[int] = set()
        self._weight_copies: set[int] = set()
        self._module_kinds: list[str] = []
        self._live_bytes = self._saved_bytes = 0
        self._gradients_before = _num_bytes(_gradients(model))
        self.saved: Counter[str] = Counter()
        self.kernels: set[str] = set()
        self.peak = StepPeak(
            phase=phase, activations_bytes=0, gradients_bytes=self._gradients_before, workspace_bytes=0
        )
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            kind = _layer_kind(name, module)
            enter = module.register_forward_pre_hook(lambda *_, kind=kind: self._module_kinds.append(kind))
            leave = module.register_forward_hook(self._leave_module, always_call=True)
            self._cleanup.callback(enter.remove)
            self._cleanup.callback(leave.remove)
        self._cleanup.enter_context(torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:  # noqa: ANN401 - the base class's signature
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._cleanup.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        outputs = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name.startswith(_SDPA) and not name.endswith("_backward"):
            self.kernels.add(name)
        elif name == _MATH_SOFTMAX:
            self.kernels.add(_MATH_SDPA)
        inputs = {_storage_key(tensor) for tensor in tree_iter((args, kwargs)) if torch.is_tensor(tensor)}
        for tensor in tree_iter(outputs):
            # Count only new storages: operators that return an argument create none, such as those that fill DDP's buckets.
            if torch.is_tensor(tensor) and _storage_key(tensor) not in inputs:
                self._count(tensor)
                if name == "_to_copy" and _storage_key(args[0]) in self._parameters:
                    self._weight_copies.add(_storage_key(tensor))
        if self._live_bytes + self._gradients_before > self.peak.num_bytes:
            self._update_peak()
        return outputs

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._preexisting or key in self._live:
            return
        num_bytes = storage.nbytes()
        self._live[key] = num_bytes, weakref.ref(storage, lambda _: self._on_freed(key))
        self._live_bytes += num_bytes

    def _on_freed(self, key: int) -> None:
        num_bytes, _ = self._live.pop(key)
        self._live_bytes -= num_bytes
        self._weight_copies.discard(key)
        if key in self._saved:
            self._saved.remove(key)
            self._saved_bytes -= num_bytes

    def _save(self, tensor: torch.Tensor) -> torch.Tensor:
        self._count(tensor)
        key = _storage_key(tensor)
        if key not in self._preexisting and key not in self._saved:
            num_bytes, _ = self._live[key]
            self._saved.add(key)
            self._saved_bytes += num_bytes
            layer_kind = self._module_kinds[-1] if self._module_kinds else _OTHER
            self.saved[_WEIGHT_COPIES if key in self._weight_copies else layer_kind] += num_bytes
        return tensor

    def _leave_module(self, *_: object) -> None:
        self._module_kinds.pop()

    def _update_peak(self) -> None:
        # Detect a backward pass: only then does autograd's engine have a task id.
        backward = torch._C._current_graph_task_id() != -1
        gradients = _num_bytes(_gradients(self._model)) if backward else self._gradients_before
        new_gradients = gradients - self._gradients_before
        self.peak = StepPeak(
            phase="backward" if backward else self._phase,
            activations_bytes=self._saved_bytes,
            gradients_bytes=gradients,
            workspace_bytes=max(0, self._live_bytes - self._saved_bytes - new_gradients),
        )


def _evaluation_peak(model: torch.nn.Module, context: TrainContext) -> StepPeak:
    rows, config = context.splits.val, context.config
    batches = evaluation_batches(config, rows.lengths, context.rank, context.world_size)
    batch = max(batches, key=lambda batch: num_padded_tokens(rows, batch, config))
    model.eval()
    with _TensorTracker(model, "evaluation") as tracker:
        predict(model, rows, batch, context)
    model.train()
    return tracker.peak


def _largest_micro_batch(steps: Iterable[Step], context: TrainContext) -> Step:
    """Return, as a step, the micro-batch in which some rank has the most padded tokens; all ranks return the same."""
    rows, config = context.splits.train, context.config
    micros = (micro for step in steps for micro in step)
    return [max(micros, key=lambda micro: max(num_padded_tokens(rows, part, config) for part in micro))]


def _layer_kind(path: str, module: torch.nn.Module) -> str:
    if isinstance(module, torch.nn.LayerNorm):
        return "layer norm"
    if isinstance(module, torch.nn.Dropout):
        return "dropout"
    return next((kind for word, kind in _LAYER_KINDS if word in path), _OTHER)


def _gradients(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    return (p.grad for p in model.parameters() if p.grad is not None)


def _bucket_bytes(state: TrainState) -> int:
    """Return the size of DDP's buckets, which hold copies of the gradients; 0 if the gradients are views into the buckets."""
    module = state.module
    if not isinstance(module, DistributedDataParallel) or module.gradient_as_bucket_view:
        return 0
    return _num_bytes(p for p in state.model.parameters() if p.requires_grad)


def _gpu_base_bytes(device: torch.device) -> int | None:
    """Return the memory of the CUDA context and libraries: NVML's figure minus the caching allocator's."""
    used = nvml_process_bytes()
    return None if used is None else used - torch.cuda.memory_reserved(device)


def _growth(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)


def _storage_key(tensor: torch.Tensor) -> int:
    """Return an id of the tensor's storage, unique while the storage is alive."""
    return tensor.untyped_storage()._cdata  # type: ignore[no-any-return]


def _num_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return the size of the tensors' storages, counting shared ones once."""
    storages = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())
