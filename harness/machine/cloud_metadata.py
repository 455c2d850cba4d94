"""Ask the cloud's metadata service for the instance type and for notices of preemption, but for no account data."""

from __future__ import annotations

import http.client
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Literal

from harness.schema.host_record import DetectedInstance

BUDGET_S = 0.3
# All three clouds use this link-local address, so there is no DNS lookup and no request leaves the host.
ADDRESS = ("169.254.169.254", 80)

Vendor = Literal["aws", "gcp", "azure"]

# Cloud by the vendor name in the firmware (see `describe_machine`).
_BY_FIRMWARE: dict[str, Vendor] = {"Amazon EC2": "aws", "Google": "gcp", "Microsoft Corporation": "azure"}
# Longest accepted answers in bytes: for a name, and for Azure's list of scheduled events.
_MAX_ANSWER, _MAX_EVENTS_ANSWER = 200, 20_000
_INSTANCE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{1,63}")
_REGION = re.compile(r"[a-z][a-z0-9-]{1,39}")


def detect(
    firmware: str | None, *, everywhere: bool = False, address: tuple[str, int] = ADDRESS, budget_s: float = BUDGET_S
) -> DetectedInstance | None:
    """Ask the metadata service of the cloud that the firmware names, or of every known cloud, for the instance.

    Never raises and never takes longer than `budget_s`; a service that has not answered by then counts as absent.

    Args:
        firmware: Vendor name in the firmware; None when unknown. Only the three clouds are asked.
        everywhere: Ask all three clouds, whatever the firmware says, because a container may hide the firmware.
        address: Address of the service; tests use their own.
        budget_s: Seconds for all requests together.

    Returns:
        The first valid answer; None without one.
    """
    own_cloud = _BY_FIRMWARE.get(firmware or "")
    vendors = [vendor for vendor in _DETECT if everywhere or vendor == own_cloud]
    answers: queue.SimpleQueue[DetectedInstance | None] = queue.SimpleQueue()
    ends_at = time.perf_counter() + budget_s

    def ask(vendor: Vendor) -> None:
        try:
            answers.put(_DETECT[vendor](_Service(address, ends_at)))
        except (OSError, http.client.HTTPException, ValueError):
            answers.put(None)

    for vendor in vendors:
        # Daemon threads: a service that answers slowly must not delay the end of this process.
        threading.Thread(target=ask, args=(vendor,), daemon=True).start()
    for _ in vendors:
        try:
            answer = answers.get(timeout=max(0.0, ends_at - time.perf_counter()))
        except queue.Empty:
            return None
        if answer is not None:
            return answer
    return None


def preemption_notice(vendor: Vendor, *, address: tuple[str, int] = ADDRESS, budget_s: float = BUDGET_S) -> bool:
    """Return whether the cloud has announced that it takes this machine back; False without an answer in time.

    Sources: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html,
    https://cloud.google.com/compute/docs/instances/create-use-preemptible#detecting_if_an_instance_was_preempted,
    https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
    """
    service = _Service(address, time.perf_counter() + budget_s)
    try:
        return _NOTICES[vendor](service)
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return False


class _Service:
    """Sends requests to one metadata service until a time limit. http.client follows no redirects and uses no proxy."""

    def __init__(self, address: tuple[str, int], ends_at: float) -> None:
        self._address, self._ends_at = address, ends_at

    def ask(
        self,
        path: str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        flavour: str | None = None,
        max_bytes: int = _MAX_ANSWER,
    ) -> str:
        """Request a short text.

        Args:
            path: Path and query.
            headers: Request headers.
            method: HTTP method.
            flavour: Required `Metadata-Flavor` of the answer; None to accept any.
            max_bytes: Longest accepted answer.

        Raises:
            OSError: When the service does not answer in time.
            ValueError: When the status is not 200, or the answer is empty, too long, not ASCII or of a wrong flavour.
        """
        remaining_s = self._ends_at - time.perf_counter()
        if remaining_s <= 0:
            raise TimeoutError
        connection = http.client.HTTPConnection(*self._address, timeout=remaining_s)
        try:
            connection.request(method, path, headers=dict(headers))
            response = connection.getresponse()
            text = response.read(max_bytes + 1).decode("ascii").strip()
            if response.status != http.client.OK or not 0 < len(text) <= max_bytes:
                raise ValueError(path)
            if flavour is not None and response.headers.get("Metadata-Flavor") != flavour:
                raise ValueError(flavour)
            return text
        finally:
            connection.close()

    def ask_optional(self, path: str, headers: Mapping[str, str]) -> str | None:
        """Request a text as `ask` does, but return None for an invalid answer, so that other answers remain usable."""
        try:
            return self.ask(path, headers)
        except ValueError:
            return None


def _aws(service: _Service) -> DetectedInstance | None:
    """Ask EC2's Instance Metadata Service version 2, which requires a token.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
    """
    header, base = _aws_token(service), "/latest/meta-data"
    # Refuse OpenStack and others, which implement this protocol too, but with their own instance names.
    if not service.ask(f"{base}/services/domain", header).startswith("amazonaws.com"):
        return None
    return _detected(
        "aws",
        service.ask(f"{base}/instance-type", header),
        service.ask_optional(f"{base}/placement/region", header),
        {"spot": True, "on-demand": False}.get(service.ask_optional(f"{base}/instance-life-cycle", header) or ""),
    )


def _aws_token(service: _Service) -> dict[str, str]:
    token = service.ask("/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    return {"X-aws-ec2-metadata-token": token}


def _gcp(service: _Service) -> DetectedInstance | None:
    """Ask Google Cloud; see https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys."""
    header, base = {"Metadata-Flavor": "Google"}, "/computeMetadata/v1/instance"
    instance = _name("machineTypes", service.ask(f"{base}/machine-type", header, flavour="Google"))
    if instance is None:
        return None
    zone = _name("zones", service.ask_optional(f"{base}/zone", header) or "") or ""
    preemptible = service.ask_optional(f"{base}/scheduling/preemptible", header) or ""
    return _detected("gcp", instance, zone.rpartition("-")[0], {"TRUE": True, "FALSE": False}.get(preemptible))


def _azure(service: _Service) -> DetectedInstance | None:
    """Ask Azure; see https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service."""
    header, base, form = {"Metadata": "true"}, "/metadata/instance/compute", "?api-version=2021-02-01&format=text"
    instance = service.ask(f"{base}/vmSize{form}", header)
    priority = service.ask_optional(f"{base}/priority{form}", header) or ""
    is_spot = {"Spot": True, "Low": True, "Regular": False}.get(priority)
    return _detected("azure", instance, service.ask_optional(f"{base}/location{form}", header), is_spot)


def _name(kind: str, text: str) -> str | None:
    """Extract NAME from projects/NUMBER/KIND/NAME; the project number is private."""
    match = re.fullmatch(rf"projects/[^/]+/{kind}/([^/]+)", text)
    return None if match is None else match[1]


def _detected(vendor: Vendor, instance: str, region: str | None, is_spot: bool | None) -> DetectedInstance | None:
    """Validate an answer; return None for an invalid instance name, such as the login page of a guest network."""
    if _INSTANCE.fullmatch(instance) is None:
        return None
    known = region is not None and _REGION.fullmatch(region) is not None
    return DetectedInstance(vendor=vendor, instance=instance, region=region if known else None, is_spot=is_spot)


def _aws_notice(service: _Service) -> bool:
    """Return whether EC2 has scheduled an interruption: only then does the path exist."""
    return service.ask_optional("/latest/meta-data/spot/instance-action", _aws_token(service)) is not None


def _gcp_notice(service: _Service) -> bool:
    return (
        service.ask("/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}, flavour="Google") == "TRUE"
    )


def _azure_notice(service: _Service) -> bool:
    """Return whether Azure preempts this machine. Other machines' events are ignored: the list covers a whole set."""
    header, form = {"Metadata": "true"}, "?api-version=2021-02-01&format=text"
    events = json.loads(
        service.ask("/metadata/scheduledevents?api-version=2020-07-01", header, max_bytes=_MAX_EVENTS_ANSWER)
    )["Events"]
    preempted = [event["Resources"] for event in events if event["EventType"] == "Preempt"]
    return bool(preempted) and any(
        service.ask(f"/metadata/instance/compute/name{form}", header) in names for names in preempted
    )


_DETECT: dict[Vendor, Callable[[_Service], DetectedInstance | None]] = {"aws": _aws, "gcp": _gcp, "azure": _azure}
_NOTICES: dict[Vendor, Callable[[_Service], bool]] = {
    "aws": _aws_notice,
    "gcp": _gcp_notice,
    "azure": _azure_notice,
}
