"""Cloud detection against local servers that speak the three protocols, or misbehave."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.machine.cloud_metadata import detect, preemption_notice
from harness.schema.host_record import DetectedInstance

TOKEN = "AQAEAtoken=="
EC2 = {
    "/latest/meta-data/services/domain": "amazonaws.com",
    "/latest/meta-data/instance-type": "g5.xlarge",
    "/latest/meta-data/placement/region": "us-east-1",
    "/latest/meta-data/instance-life-cycle": "spot",
}
GCE = {
    "/computeMetadata/v1/instance/machine-type": "projects/424242/machineTypes/g2-standard-4",
    "/computeMetadata/v1/instance/zone": "projects/424242/zones/us-central1-a",
    "/computeMetadata/v1/instance/scheduling/preemptible": "FALSE",
}
FORM = "?api-version=2021-02-01&format=text"
AZURE = {
    f"/metadata/instance/compute/vmSize{FORM}": "Standard_NC24ads_A100_v4",
    f"/metadata/instance/compute/location{FORM}": "eastus",
    f"/metadata/instance/compute/priority{FORM}": "Spot",
}
# Generous, so that a slow test machine does not matter; the budget has tests of its own.
PATIENT_S = 20.0


class Cloud(BaseHTTPRequestHandler):
    """Answers and refuses requests like the cloud in `server.facts`."""

    def do_PUT(self):
        ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        is_ec2 = self.path == "/latest/api/token" and self.server.facts is EC2 and ttl.isdigit()
        self.answer(200 if is_ec2 else 403, TOKEN if is_ec2 else "")

    def do_GET(self):
        self.server.asked.append(self.path)
        allowed = {
            id(EC2): self.headers.get("X-aws-ec2-metadata-token") == TOKEN,
            id(GCE): self.headers.get("Metadata-Flavor") == "Google",
            id(AZURE): self.headers.get("Metadata") == "true",
        }[id(self.server.facts)]
        text = (self.server.facts | self.server.changes).get(self.path)
        if text is None or not allowed:
            self.answer(401 if not allowed else 404, "")
        else:
            self.answer(200, text)

    def answer(self, status, text):
        self.send_response(status)
        if self.server.facts is GCE:
            self.send_header("Metadata-Flavor", "Google")
        data = text.encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def served(handler, **fields):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    vars(server).update(fields)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def cloud(facts, **changes):
    paths = {key: next(path for path in facts if key in path) for key in changes}
    changed = {paths[key]: value for key, value in changes.items()}
    with served(Cloud, facts=facts, changes=changed, asked=[]) as server:
        yield server


def ask(server, firmware=None, *, everywhere=True, budget_s=PATIENT_S):
    return detect(firmware, everywhere=everywhere, address=server.server_address, budget_s=budget_s)


RIGHT = {
    "aws": (EC2, "Amazon EC2", DetectedInstance(vendor="aws", instance="g5.xlarge", region="us-east-1", is_spot=True)),
    "gcp": (
        GCE,
        "Google",
        DetectedInstance(vendor="gcp", instance="g2-standard-4", region="us-central1", is_spot=False),
    ),
    "azure": (
        AZURE,
        "Microsoft Corporation",
        DetectedInstance(vendor="azure", instance="Standard_NC24ads_A100_v4", region="eastus", is_spot=True),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_each_cloud_is_detected(name):
    facts, firmware, detected = RIGHT[name]
    with cloud(facts) as server:
        assert ask(server) == detected
        assert ask(server, firmware, everywhere=False) == detected


@pytest.mark.parametrize("name", RIGHT)
def test_only_the_needed_paths_are_requested(name):
    facts, firmware, _ = RIGHT[name]
    with cloud(facts) as server:
        ask(server, firmware, everywhere=False)
        assert set(server.asked) == set(facts)


@pytest.mark.parametrize("firmware", [None, "Hetzner", "QEMU"])
def test_unknown_firmware_makes_no_request(firmware):
    with cloud(EC2) as server:
        assert ask(server, firmware, everywhere=False) is None
        assert server.asked == []


def test_only_the_firmwares_cloud_is_asked():
    with cloud(GCE) as server:
        assert ask(server, "Amazon EC2", everywhere=False) is None
        assert server.asked == []  # its token request was refused


@pytest.mark.parametrize(
    ("facts", "changes", "region", "is_spot"),
    [
        (EC2, {"life-cycle": "on-demand"}, "us-east-1", False),
        (EC2, {"life-cycle": "scheduled"}, "us-east-1", None),
        (EC2, {"life-cycle": None, "region": None}, None, None),
        (EC2, {"region": "<b>us-east-1</b>"}, None, True),
        (GCE, {"preemptible": "TRUE"}, "us-central1", True),
        (GCE, {"preemptible": None, "zone": None}, None, None),
        (AZURE, {"priority": "Regular"}, "eastus", False),
        (AZURE, {"priority": ""}, "eastus", None),
        (AZURE, {"location": "x" * 500}, None, True),
    ],
)
def test_missing_or_invalid_answers_are_none(facts, changes, region, is_spot):
    with cloud(facts, **changes) as server:
        detected = ask(server)
    assert (detected.region, detected.is_spot) == (region, is_spot)


@pytest.mark.parametrize(
    "answer", ["<html><body>Log in</body></html>", "", "x" * 5_000, "é", "g5 xlarge", "\x00\x01", "../etc", "-"]
)
def test_invalid_instance_names_are_rejected(answer):
    for facts, key in ((EC2, "instance-type"), (GCE, "machine-type"), (AZURE, "vmSize")):
        with cloud(facts, **{key: answer}) as server:
            assert ask(server) is None, facts


def test_another_cloud_with_ec2s_protocol_is_not_ec2():
    with cloud(EC2, domain="openstack.example") as server:
        assert ask(server) is None


class Anything(BaseHTTPRequestHandler):
    """Answers every request with status 200 and a page, like the login page of a guest network."""

    def do_GET(self):
        page = b"<html>Welcome</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_PUT = do_GET

    def log_message(self, *_):
        pass


class Elsewhere(Anything):
    """Redirects every request to another server."""

    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(302)
        self.send_header("Location", f"http://127.0.0.1:{self.server.target}{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_GET


def test_a_login_page_is_no_cloud():
    with served(Anything) as server:
        assert ask(server) is None


def test_a_redirect_is_not_followed():
    with cloud(AZURE) as target, served(Elsewhere, target=target.server_port, asked=[]) as server:
        assert ask(server) is None
        assert server.asked
        assert target.asked == []


def test_proxies_are_not_used(monkeypatch):
    with cloud(EC2) as server, served(Anything) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        assert ask(server).instance == "g5.xlarge"


def test_a_refused_connection_is_no_cloud():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound without listening
        assert detect(None, everywhere=True, address=sock.getsockname(), budget_s=PATIENT_S) is None


@pytest.mark.parametrize("rubbish", [b"", b"\x00\xff" * 100, b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_an_answer_that_is_not_http_is_no_cloud(rubbish):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(rubbish)

        threading.Thread(target=answer, daemon=True).start()
        assert detect(None, everywhere=True, address=listener.getsockname(), budget_s=PATIENT_S) is None
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.timeout(60)  # without the budget, these tests would never end
class TestBudget:
    def ask(self, address):
        return detect(None, everywhere=True, address=address, budget_s=0.2)

    def test_a_service_that_never_answers(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts the connection, and nothing answers
            assert self.ask(silent.getsockname()) is None

    def test_a_service_that_sends_single_bytes_slowly(self):
        stop = threading.Event()

        class Dripping(Anything):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                while not stop.wait(0.02):
                    try:
                        self.wfile.write(b"x")
                    except OSError:
                        return
                self.server.dripped.append(True)

            do_PUT = do_GET

        with served(Dripping, dripped=[]) as server:
            assert self.ask(server.server_address) is None
            # The request was abandoned; reading the longest name would take 4 s, twenty times the budget.
            assert server.dripped == []
            stop.set()

    def test_a_budget_of_zero_gives_no_answer(self):
        with cloud(EC2) as server:
            assert detect(None, everywhere=True, address=server.server_address, budget_s=0.0) is None


EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
NAME = f"/metadata/instance/compute/name{FORM}"
EVENT = (
    '{"DocumentIncarnation": 1, "Events": [{"EventType": "%s", "Resources": ["%s", "another"], "Description": "%s"}]}'
)


def preempts(kind="Preempt", name="mine"):
    return {EVENTS: EVENT % (kind, name, "x" * 500), NAME: "mine"}


@pytest.mark.parametrize(
    ("vendor", "facts", "answers", "is_taken"),
    [
        ("aws", EC2, {}, False),
        ("aws", EC2, {"/latest/meta-data/spot/instance-action": '{"action": "terminate"}'}, True),
        ("gcp", GCE, {"/computeMetadata/v1/instance/preempted": "FALSE"}, False),
        ("gcp", GCE, {"/computeMetadata/v1/instance/preempted": "TRUE"}, True),
        ("gcp", GCE, {}, False),
        ("azure", AZURE, {EVENTS: '{"DocumentIncarnation": 0, "Events": []}'}, False),
        ("azure", AZURE, preempts(), True),
        ("azure", AZURE, preempts(kind="Reboot"), False),
        ("azure", AZURE, preempts(name="yours"), False),
        ("azure", AZURE, {EVENTS: "<html>"}, False),
        ("azure", AZURE, {EVENTS: '{"Events": [{}]}'}, False),
    ],
)
def test_preemption_notices(vendor, facts, answers, is_taken):
    with served(Cloud, facts=facts, changes=answers, asked=[]) as server:
        assert preemption_notice(vendor, address=server.server_address, budget_s=PATIENT_S) is is_taken


def test_without_a_service_there_is_no_notice():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not preemption_notice("aws", address=free.getsockname(), budget_s=0.2)
