"""Small price, hardware, CPU and billing tables for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

HARDWARE_HEADER = (
    "name,match,kind,memory_gib,memory_bandwidth_gb_per_s,peak_fp32_tflops,peak_tf32_tflops,peak_bf16_tflops,"
    "peak_fp16_tflops,tdp_watts,source,note"
)
PRICE_HEADER = (
    "provider,instance_type,region,accelerator,hardware,accelerator_count,accelerator_memory_gib,vcpus,memory_gib,"
    "usd_per_hour_on_demand,usd_per_hour_spot,as_of,source"
)
BILLING_HEADER = "provider,granularity_s,minimum_s,as_of,source"
CPU_HEADER = "provider,match,vendor,cpu,bf16_flags,source"
HARDWARE = (
    r"NVIDIA Tesla T4,\bt4\b,gpu,15,320,8.1,,,65,70,datasheet,",
    r"NVIDIA A10G,\ba10g\b,gpu,22.49,600,35,35,70,70,300,datasheet,a note",
)
PRICES = (
    "aws,t3.xlarge,us-east-1,,,0,,4,16,0.1,,2026-07,list",
    "aws,m5.xlarge,us-east-1,,,0,,4,16,0.192,0.08,2026-07,list",
    "aws,m5.xlarge,eu-west-1,,,0,,4,16,0.214,,2026-07-15,list",
    "gcp,n2-standard-4,us-central1,,,0,,4,15,0.18,,2026-07,list",
    "aws,m5.4xlarge,us-east-1,,,0,,16,64,0.768,,2026-07,list",
    "aws,g4dn.xlarge,us-east-1,T4,NVIDIA Tesla T4,1,16,4,16,0.526,,2026-07,list",
    "aws,g5.xlarge,us-east-1,A10G,NVIDIA A10G,1,22.35,4,16,1.006,,2026-07,list",
    "aws,g5.12xlarge,us-east-1,A10G,NVIDIA A10G,4,22.35,48,192,5.672,,2026-07,list",
    "vast,1x-V100,anywhere,V100,,1,16,4,16,0.18,,2026-07,list",
)
CPUS = (
    r"aws,m5\..+,intel,Skylake,,page",
    r"gcp,n2-.+,intel,Ice Lake,,page",
)
BILLING = ("aws,1,60,2017-10-02,announcement", "gcp,10,30,2026-07,page")


def write_tables(
    folder: Path,
    price_rows: Iterable[str] = PRICES,
    hardware_rows: Iterable[str] = HARDWARE,
    billing_rows: Iterable[str] = BILLING,
    cpu_rows: Iterable[str] = CPUS,
) -> Path:
    """Write the four tables to a folder."""
    tables = (
        ("prices", PRICE_HEADER, price_rows),
        ("hardware", HARDWARE_HEADER, hardware_rows),
        ("billing", BILLING_HEADER, billing_rows),
        ("cpus", CPU_HEADER, cpu_rows),
    )
    for name, header, rows in tables:
        (folder / f"{name}.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return folder


def change(row: str, header: str, **fields: str) -> str:
    """Replace fields of a row that has no quoted commas."""
    cells = dict(zip(header.split(","), row.split(","), strict=True)) | fields
    return ",".join(cells.values())
