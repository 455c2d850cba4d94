"""A bare PyTorch loop, as a careful user would write it: every text padded to one length, AdamW, a linear schedule.

Run by bench/bench_peers.py in the environment .venv-peers/trainer, with one argument: the job as JSON. Prints one line of JSON.
"""

import json
import sys
import time
from importlib.metadata import version

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

job = json.loads(sys.argv[1])
torch.set_num_threads(job["threads"])
torch.manual_seed(job["seed"])

rows = {name: np.load(f"{job['tokens']}/train-{name}.npy") for name in ("offsets", "labels")}
rows["ids"] = np.fromfile(f"{job['tokens']}/train-ids.bin", np.int32)
input_ids = torch.zeros(len(rows["labels"]), job["seq_len"], dtype=torch.int64)
attention_mask = torch.zeros_like(input_ids)
for row, (begin, end) in enumerate(zip(rows["offsets"], rows["offsets"][1:], strict=False)):
    input_ids[row, : end - begin] = torch.from_numpy(rows["ids"][begin:end])
    attention_mask[row, : end - begin] = 1
loader = DataLoader(
    TensorDataset(input_ids, attention_mask, torch.from_numpy(rows["labels"])),
    batch_size=job["batch_size"],
    shuffle=True,
)

model = AutoModelForSequenceClassification.from_pretrained(job["model"], num_labels=2, dtype=torch.float32)
decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
optimizer = torch.optim.AdamW(
    [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=1e-4, fused=True
)
schedule = get_linear_schedule_with_warmup(optimizer, len(loader) // 10, len(loader))

model.train()
seconds, losses = [], []
train_began, batches = time.perf_counter(), iter(loader)
for _ in range(len(loader)):
    began = time.perf_counter()
    ids, mask, labels = next(batches)
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(loss.item())
    seconds.append(time.perf_counter() - began)
train_s = time.perf_counter() - train_began

versions = {name: version(name) for name in ("torch", "transformers")}
threads = torch.get_num_threads()
print(json.dumps({"steps_s": seconds, "train_s": train_s, "losses": losses, "threads": threads, "versions": versions}))
