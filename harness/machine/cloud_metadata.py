"""Which cloud machine this is, by the metadata service that its cloud answers it on (its own words, no account)."""

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
# The same link-local address in all three clouds: no name has to be resolved, and nothing beyond the host is asked.
ADDRESS = ("169.254.169.254", 80)

Vendor = Literal["aws", "gcp", "azure"]

# By the vendor that the firmware names (see machine.py).
_BY_FIRMWARE: dict[str, Vendor] = {"Amazon EC2": "aws", "Google": "gcp", "Microsoft Corporation": "azure"}
_LONGEST = 200
_LONGEST_EVENTS = 20_000
_INSTANCE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{1,63}")
_REGION = re.compile(r"[a-z][a-z0-9-]{1,39}")


def detect(
    firmware: str | None, *, everywhere: bool = False, address: tuple[str, int] = ADDRESS, budget_s: float = BUDGET_S
) -> DetectedInstance | None:
    """Ask the cloud that the firmware names, or every known one, what this machine is.

    Never raises, and never takes longer than `budget_s` in all: what has not answered by then is taken for absent.

    Args:
        firmware: The vendor's name as the firmware has it; of another than these three nobody is asked.
        everywhere: Ask all three, whatever the firmware says (in a container it may be hidden).
        address: Of the service; tests have their own.
        budget_s: For all questions together.

    Returns:
        The first right answer; None without one.
    """
    named = _BY_FIRMWARE.get(firmware or "")
    asked = [vendor for vendor in _ASK if everywhere or vendor == named]
    answers: queue.SimpleQueue[DetectedInstance | None] = queue.SimpleQueue()
    ends_at = time.perf_counter() + budget_s

    def ask(vendor: Vendor) -> None:
        try:
            answers.put(_ASK[vendor](_Service(address, ends_at)))
        except (OSError, http.client.HTTPException, ValueError):
            answers.put(None)

    for vendor in asked:
        # Daemons: one that a service keeps waiting with a byte now and then holds nobody up when this process ends.
        threading.Thread(target=ask, args=(vendor,), daemon=True).start()
    for _ in asked:
        try:
            answer = answers.get(timeout=max(0.0, ends_at - time.perf_counter()))
        except queue.Empty:
            return None
        if answer is not None:
            return answer
    return None


def preemption_notice(vendor: Vendor, *, address: tuple[str, int] = ADDRESS, budget_s: float = BUDGET_S) -> bool:
    """Whether the cloud has given notice that it takes this machine back; False where it does not answer in time.

    Sources: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html,
    https://cloud.google.com/compute/docs/instances/create-use-preemptible#detecting_if_an_instance_was_preempted,
    https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
    """
    service = _Service(address, time.perf_counter() + budget_s)
    try:
        return _TAKEN_BACK[vendor](service)
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return False


class _Service:
    """One conversation with a metadata service. http.client follows no redirect and knows no proxy."""

    def __init__(self, address: tuple[str, int], ends_at: float) -> None:
        self._address, self._ends_at = address, ends_at

    def ask(
        self,
        path: str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        flavour: str | None = None,
        longest: int = _LONGEST,
    ) -> str:
        """The short text that it answers.

        Raises:
            OSError: When it does not answer, or not in time.
            ValueError: When the answer is none: a status but 200, too long, no ASCII, not of the flavour.
        """
        left_s = self._ends_at - time.perf_counter()
        if left_s <= 0:
            raise TimeoutError
        connection = http.client.HTTPConnection(*self._address, timeout=left_s)
        try:
            connection.request(method, path, headers=dict(headers))
            response = connection.getresponse()
            text = response.read(longest + 1).decode("ascii").strip()
            if response.status != http.client.OK or not 0 < len(text) <= longest:
                raise ValueError(path)
            if flavour is not None and response.headers.get("Metadata-Flavor") != flavour:
                raise ValueError(flavour)
            return text
        finally:
            connection.close()

    def maybe(self, path: str, headers: Mapping[str, str]) -> str | None:
        """As `ask`; None where the service does not know, so that what else it said still counts."""
        try:
            return self.ask(path, headers)
        except ValueError:
            return None


def _aws(service: _Service) -> DetectedInstance | None:
    """Instance Metadata Service version 2: a token first.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
    """
    header, base = _aws_token(service), "/latest/meta-data"
    # OpenStack and others speak this protocol too, with instance names of their own.
    if not service.ask(f"{base}/services/domain", header).startswith("amazonaws.com"):
        return None
    return _detected(
        "aws",
        service.ask(f"{base}/instance-type", header),
        service.maybe(f"{base}/placement/region", header),
        {"spot": True, "on-demand": False}.get(service.maybe(f"{base}/instance-life-cycle", header) or ""),
    )


def _aws_token(service: _Service) -> dict[str, str]:
    token = service.ask("/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    return {"X-aws-ec2-metadata-token": token}


def _gcp(service: _Service) -> DetectedInstance | None:
    """Source: https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys."""
    header, base = {"Metadata-Flavor": "Google"}, "/computeMetadata/v1/instance"
    instance = _name("machineTypes", service.ask(f"{base}/machine-type", header, flavour="Google"))
    if instance is None:
        return None
    zone = _name("zones", service.maybe(f"{base}/zone", header) or "") or ""
    preemptible = service.maybe(f"{base}/scheduling/preemptible", header) or ""
    return _detected("gcp", instance, zone.rpartition("-")[0], {"TRUE": True, "FALSE": False}.get(preemptible))


def _azure(service: _Service) -> DetectedInstance | None:
    """Source: https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service."""
    header, base, form = {"Metadata": "true"}, "/metadata/instance/compute", "?api-version=2021-02-01&format=text"
    instance = service.ask(f"{base}/vmSize{form}", header)
    priority = service.maybe(f"{base}/priority{form}", header) or ""
    is_spot = {"Spot": True, "Low": True, "Regular": False}.get(priority)
    return _detected("azure", instance, service.maybe(f"{base}/location{form}", header), is_spot)


def _name(kind: str, text: str) -> str | None:
    """Of projects/NUMBER/KIND/NAME the name; the project's number is nobody's business."""
    found = re.fullmatch(rf"projects/[^/]+/{kind}/([^/]+)", text)
    return None if found is None else found[1]


def _detected(vendor: Vendor, instance: str, region: str | None, is_spot: bool | None) -> DetectedInstance | None:
    """None where the name is none: an answer in HTML, a login page of a network in between."""
    if _INSTANCE.fullmatch(instance) is None:
        return None
    known = region is not None and _REGION.fullmatch(region) is not None
    return DetectedInstance(vendor=vendor, instance=instance, region=region if known else None, is_spot=is_spot)


def _aws_notice(service: _Service) -> bool:
    """Not found until the notice is given."""
    return service.maybe("/latest/meta-data/spot/instance-action", _aws_token(service)) is not None


def _gcp_notice(service: _Service) -> bool:
    return (
        service.ask("/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}, flavour="Google") == "TRUE"
    )


def _azure_notice(service: _Service) -> bool:
    """Events are told of all machines of a set: only this one's own count."""
    header, form = {"Metadata": "true"}, "?api-version=2021-02-01&format=text"
    events = json.loads(
        service.ask("/metadata/scheduledevents?api-version=2020-07-01", header, longest=_LONGEST_EVENTS)
    )["Events"]
    preempted = [event["Resources"] for event in events if event["EventType"] == "Preempt"]
    return bool(preempted) and any(
        service.ask(f"/metadata/instance/compute/name{form}", header) in names for names in preempted
    )


_ASK: dict[Vendor, Callable[[_Service], DetectedInstance | None]] = {"aws": _aws, "gcp": _gcp, "azure": _azure}
_TAKEN_BACK: dict[Vendor, Callable[[_Service], bool]] = {
    "aws": _aws_notice,
    "gcp": _gcp_notice,
    "azure": _azure_notice,
}
