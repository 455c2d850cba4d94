"""Where a step's memory went: one more step, after all else was measured, watched tensor by tensor."""

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
from harness.dataset.tokens import TokenArrays
from harness.execution.messages import TrainHistory
from harness.schema.cells import FineTuneConfig
from harness.schema.diagnostics_record import MemoryParts, StepPeak
from harness.worker.distributed import DistributedContext
from harness.worker.evaluation import evaluation_batches, predict
from harness.worker.meters import ResidentMemory, nvml_process_bytes
from harness.worker.train_loop import forward_backward, iter_batches
from harness.worker.train_state import OnProgress, TrainState

_SDPA = "_scaled_dot_product_"
# The plain path is taken apart before a dispatch mode sees it; nothing else in BERT uses this softmax.
_PLAIN_SOFTMAX, _PLAIN_SDPA = "_safe_softmax", "_scaled_dot_product_attention_math"
# What part of the model a module is, by a word of its path: the first that is found counts.
_KINDS = (
    ("embeddings", "embeddings"),
    ("attention", "attention"),
    ("intermediate", "feed-forward"),
    ("output", "feed-forward"),
    ("ffn", "feed-forward"),
    ("pooler", "head"),
    ("classifier", "head"),
    # Nothing is saved here but by checkpointing, which keeps a whole layer's input.
    ("layer", "layer inputs"),
)
_WEIGHT_COPIES = "weight copies"  # of autocast, in its own type
_OTHER = "other"


def measure_breakdown(
    trainee: TrainState,
    rows: dict[str, TokenArrays],
    config: FineTuneConfig,
    place: DistributedContext,
    num_steps: int,
    held: tuple[ResidentMemory, ResidentMemory],
    beat: OnProgress,
) -> tuple[MemoryParts, tuple[str, ...]]:
    """Repeat the largest micro-batch of the first `num_steps` steps, without an update, and count what it holds.

    Args:
        rows: Of the splits `train` and `val`.
        held: By this process before the model was loaded, and after all that its peak covers.

    Returns:
        The parts, and the names of the operators that attention ran as.
    """
    train_rows, model = rows["train"], trainee.model
    step = _largest(islice(iter_batches(train_rows, config, place), num_steps), train_rows, config)
    model.train()
    trainee.optimizer.zero_grad(set_to_none=True)
    if config.training.grad_accum > 1:
        # All but an update's first micro-batch find the gradients of the earlier ones.
        forward_backward(trainee, train_rows, step, config, place, TrainHistory(), beat)
    with _Watch(model) as watch:
        forward_backward(trainee, train_rows, step, config, place, TrainHistory(), beat)
    buckets = _bucket_bytes(trainee)
    gradients = buckets + _num_bytes(_gradients(model))
    peak = watch.peak.model_copy(update={"gradients_bytes": watch.peak.gradients_bytes + buckets})
    trainee.optimizer.zero_grad(set_to_none=True)
    if config.model.init == "pretrained":
        evaluation = _evaluation_peak(model, rows["val"], config, place)
        evaluation = evaluation.model_copy(update={"gradients_bytes": buckets})
        peak = max(peak, evaluation, key=lambda one: one.num_bytes)
    before, after = held
    (mine,) = (micro[place.rank] for micro in step)
    states = (value for state in trainee.optimizer.state.values() for value in state.values())
    parts = MemoryParts(
        base_bytes=_gpu_base_bytes(place) if place.device.type == "cuda" else before.total_bytes,
        libraries_bytes=_growth(before.libraries_bytes, after.libraries_bytes),
        weights_bytes=_num_bytes([*model.parameters(), *model.buffers()]),
        unread_weights_bytes=after.unread_weights_bytes if place.device.type == "cpu" else 0,
        gradients_bytes=gradients,
        optimizer_bytes=_num_bytes(value for value in states if torch.is_tensor(value)),
        activations_bytes=dict(sorted(watch.saved.items())),
        num_samples=len(mine),
        num_padded_tokens=_num_padded(mine, train_rows, config),
        at_peak=peak,
    )
    return parts, tuple(sorted(watch.kernels))


class _Watch(TorchDispatchMode):
    """Counts every tensor's storage, once, from the operator that makes it to the moment that it is freed.

    Attributes:
        saved: Bytes that autograd saved, by kind of layer.
        peak: What was held at the fullest moment, beyond weights and optimiser state.
        kernels: Operators that attention ran as.
    """

    def __init__(self, model: torch.nn.Module, phase: Literal["forward", "evaluation"] = "forward") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model, self._phase = model, phase
        self._standing = {_key(tensor) for tensor in (*model.parameters(), *model.buffers(), *_gradients(model))}
        self._parameters = {_key(parameter) for parameter in model.parameters()}
        self._live: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self._saved: set[int] = set()
        self._copies: set[int] = set()
        self._where: list[str] = []
        self._live_bytes = self._saved_bytes = 0
        self._gradients_before = _num_bytes(_gradients(model))
        self.saved: Counter[str] = Counter()
        self.kernels: set[str] = set()
        self.peak = StepPeak(
            phase=phase, activations_bytes=0, gradients_bytes=self._gradients_before, workspace_bytes=0
        )
        self._around = ExitStack()

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            kind = _kind(name, module)
            enter = module.register_forward_pre_hook(lambda *_, kind=kind: self._where.append(kind))
            leave = module.register_forward_hook(lambda *_: self._leave(), always_call=True)
            self._around.callback(enter.remove)
            self._around.callback(leave.remove)
        self._around.enter_context(torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:  # noqa: ANN401 - as its base has it
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._around.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        made = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name.startswith(_SDPA) and not name.endswith("_backward"):
            self.kernels.add(name)
        elif name == _PLAIN_SOFTMAX:
            self.kernels.add(_PLAIN_SDPA)
        given = {_key(tensor) for tensor in tree_iter((args, kwargs)) if torch.is_tensor(tensor)}
        for tensor in tree_iter(made):
            # What only gives back its argument made nothing: DDP's buckets are written to and sent so.
            if torch.is_tensor(tensor) and _key(tensor) not in given:
                self._count(tensor)
                if name == "_to_copy" and _key(args[0]) in self._parameters:
                    self._copies.add(_key(tensor))
        if self._live_bytes + self._gradients_before > self.peak.num_bytes:
            self._note_peak()
        return made

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._standing or key in self._live:
            return
        num_bytes = storage.nbytes()
        self._live[key] = num_bytes, weakref.ref(storage, lambda _: self._forget(key))
        self._live_bytes += num_bytes

    def _forget(self, key: int) -> None:
        num_bytes, _ = self._live.pop(key)
        self._live_bytes -= num_bytes
        self._copies.discard(key)
        if key in self._saved:
            self._saved.remove(key)
            self._saved_bytes -= num_bytes

    def _save(self, tensor: torch.Tensor) -> torch.Tensor:
        self._count(tensor)
        key = _key(tensor)
        if key not in self._standing and key not in self._saved:
            num_bytes, _ = self._live[key]
            self._saved.add(key)
            self._saved_bytes += num_bytes
            self.saved[_WEIGHT_COPIES if key in self._copies else self._where[-1] if self._where else _OTHER] += (
                num_bytes
            )
        return tensor

    def _leave(self) -> None:
        self._where.pop()

    def _note_peak(self) -> None:
        # Autograd's engine has a task of its own while a backward pass runs.
        backward = torch._C._current_graph_task_id() != -1
        gradients = _num_bytes(_gradients(self._model)) if backward else self._gradients_before
        fresh = gradients - self._gradients_before
        self.peak = StepPeak(
            phase="backward" if backward else self._phase,
            activations_bytes=self._saved_bytes,
            gradients_bytes=gradients,
            workspace_bytes=max(0, self._live_bytes - self._saved_bytes - fresh),
        )


def _evaluation_peak(
    model: torch.nn.Module, rows: TokenArrays, config: FineTuneConfig, place: DistributedContext
) -> StepPeak:
    batch = max(evaluation_batches(rows, config, place), key=lambda batch: _num_padded(batch, rows, config))
    model.eval()
    with _Watch(model, "evaluation") as watch:
        predict(model, rows, batch, config, place)
    model.train()
    return watch.peak


def _largest(steps: Iterable[Step], rows: TokenArrays, config: FineTuneConfig) -> Step:
    """The micro-batch of which a rank's part has the most padded tokens, as a step of its own; equal on all ranks."""
    micros = (micro for step in steps for micro in step)
    return [max(micros, key=lambda micro: max(_num_padded(part, rows, config) for part in micro))]


def _num_padded(batch: Any, rows: TokenArrays, config: FineTuneConfig) -> int:  # noqa: ANN401
    return len(batch) * (config.seq_len if config.padding == "max" else int(rows.lengths[batch].max(initial=0)))


def _kind(path: str, module: torch.nn.Module) -> str:
    if isinstance(module, torch.nn.LayerNorm):
        return "layer norm"
    if isinstance(module, torch.nn.Dropout):
        return "dropout"
    return next((kind for word, kind in _KINDS if word in path), _OTHER)


def _gradients(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    return (p.grad for p in model.parameters() if p.grad is not None)


def _bucket_bytes(trainee: TrainState) -> int:
    """DDP copies gradients to buckets, which it makes at the start, unless they are views into them."""
    module = trainee.module
    if not isinstance(module, DistributedDataParallel) or module.gradient_as_bucket_view:
        return 0
    return _num_bytes(p for p in trainee.model.parameters() if p.requires_grad)


def _gpu_base_bytes(place: DistributedContext) -> int | None:
    """What NVML charges to this process less what the caching allocator holds: the CUDA context and libraries."""
    used = nvml_process_bytes()
    return None if used is None else used - torch.cuda.memory_reserved(place.device)


def _growth(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else max(0, now - before)


def _key(tensor: torch.Tensor) -> int:
    """What tells its storage from others while it lives."""
    return tensor.untyped_storage()._cdata  # type: ignore[no-any-return]


def _num_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of all storages, each once."""
    storages = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())
