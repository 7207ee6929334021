"""A real kube-apiserver over a real etcd, on loopback: it validates and keeps objects, and nothing runs them."""

import functools
import http.client
import json
import os
import secrets
import socket
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import urlencode

from charts import TOOLS

PROGRAM = Path(os.environ.get("MODERATO_TEST_APISERVER", TOOLS / "apiserver-1.37.2" / "apiserver"))
PATIENCE = 120
TOKEN = secrets.token_hex(16)


class Refused(Exception):
    """The server's answer to what it does not take."""


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def self_signed(folder):
    """A key and the certificate of 127.0.0.1 for it, good for service accounts' tokens too."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


class Cluster:
    def __init__(self, folder):
        key, certificate = self_signed(folder)
        self.folder, self.certificate = folder, certificate
        (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
        self.port = free_port()
        self.tls = ssl.create_default_context(cafile=certificate)
        self.log = folder / "log"
        flags = {
            "advertise-address": "127.0.0.1",
            "bind-address": "127.0.0.1",
            "secure-port": self.port,
            "tls-cert-file": certificate,
            "tls-private-key-file": key,
            "token-auth-file": folder / "tokens.csv",
            "authorization-mode": "RBAC",
            "endpoint-reconciler-type": "none",
            "service-account-issuer": "https://127.0.0.1",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "service-cluster-ip-range": "10.0.0.0/24",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, folder / "etcd", *(f"--{name}={value}" for name, value in flags.items())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def __enter__(self):
        try:
            self.until("the API server is ready", self.ready)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def until(self, what, holds):
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s: {self.log.read_text()[-3000:]}"
            time.sleep(0.1)

    def ready(self):
        try:
            return self.request("GET", "/readyz")[0] == 200
        except (ConnectionRefusedError, ConnectionResetError):
            return False

    def kubeconfig(self):
        """A file for clients such as helm."""
        path = self.folder / "kubeconfig"
        server = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.certificate)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config))
        return path

    def request(self, method, path, body=None, kind="application/json"):
        """Status, answer and the server's warnings."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=PATIENCE)
        try:
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind, "Accept": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            given = json.loads(text) if answer.headers.get_content_type() == "application/json" else text
            return answer.status, given, answer.headers.get_all("Warning", [])
        finally:
            connection.close()

    def taken(self, *request):
        """The object as the server has it now; a warning is an error, as a typing error in a field is."""
        status, answer, warnings = self.request(*request)
        if status not in (200, 201):
            raise Refused(answer["message"])
        if warnings:
            raise Refused("; ".join(warnings))
        return answer

    @functools.cache
    def resources(self, version):
        """Kind to its place in a path, and if it is in a namespace, as the server tells."""
        group = f"/apis/{version}" if "/" in version else f"/api/{version}"
        found = self.taken("GET", group)["resources"]
        return {item["kind"]: (f"{group}/", item["name"], item["namespaced"]) for item in found if "/" not in item["name"]}

    def path(self, item, namespace, **query):
        group, name, namespaced = self.resources(item["apiVersion"])[item["kind"]]
        return f"{group}{f'namespaces/{namespace}/' if namespaced else ''}{name}", f"?{urlencode(query)}"

    def apply(self, item, namespace="default"):
        """Server-side apply, as `helm upgrade` does it."""
        path, query = self.path(item, namespace, fieldManager="helm", fieldValidation="Strict")
        return self.taken("PATCH", f"{path}/{item['metadata']['name']}{query}", item, "application/apply-patch+yaml")

    def admit(self, item, namespace):
        """Creates it, but for keeping it."""
        path, query = self.path(item, namespace, fieldValidation="Strict", dryRun="All")
        return self.taken("POST", f"{path}{query}", item)

    def define(self, crd):
        """A kind, until the server serves it."""
        self.apply(crd)
        path, _ = self.path(crd, None)

        def established():
            conditions = self.taken("GET", f"{path}/{crd['metadata']['name']}")["status"]["conditions"] or []
            return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)

        self.until(f"{crd['metadata']['name']} is served", established)
