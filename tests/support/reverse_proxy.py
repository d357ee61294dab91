"""nginx, HAProxy and Caddy, each with a configuration of docs/proxies, in front of ports of this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from support.certificate import Certificate
from support.limits import WAIT_S
from support.ports import free_port

HUBS: Final = ("nginx.conf", "haproxy.cfg", "Caddyfile")
APPS: Final = ("nginx-app.conf", "haproxy-app.cfg", "Caddyfile-app")
"""The configurations for hubs of their own, and for apps that have a hub under `/live`."""

FOLDER: Final = Path(__file__).parents[2] / "docs" / "proxies"


class ReverseProxy:
    """A program with its configuration: `async with ReverseProxy("nginx.conf", certificate, [8000, 8001])`.

    The configuration runs as it is in the file. Only addresses, ports and the paths of files are replaced.

    Args:
        name: of the configuration's file.
        certificate: that the proxy shows.
        ports: of the two nodes.
    """

    def __init__(self, name: str, certificate: Certificate, ports: Sequence[int]) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.certificate = certificate
        self._ports = ports
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> ReverseProxy:
        self._folder = Path(tempfile.mkdtemp(prefix="hub-proxy-"))
        config = self._folder / self.name
        config.write_text(self._configuration())
        command = self._command(config)
        assert shutil.which(command[0]), f"{command[0]} is missing: scripts/test installs it"
        with (self._folder / "output").open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self._folder,
                env={**os.environ, "HOME": str(self._folder), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""},
                stdout=output,
                stderr=output,
            )
        try:
            async with asyncio.timeout(WAIT_S):
                while not await self._listens():
                    assert self._process.returncode is None, f"{command[0]} ended:\n{self.log}"
                    await asyncio.sleep(0.02)  # its listener announces itself by nothing else
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(WAIT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """What the program has written so far."""
        return (self._folder / "output").read_text(errors="replace")

    @property
    def prefix(self) -> str:
        """The path of the hub that the configuration is for."""
        return "/live" if "app" in self.name else ""

    async def ask(
        self,
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        *,
        method: str = "GET",
        body: bytes = b"",
        source: str = "127.0.0.1",
    ) -> tuple[int, bytes]:
        """Send a request as it is written here, and return the status and all that came.

        Args:
            target: of the request line.
            headers: besides Host and those of the body.
            method, body: of the request.
            source: address of this machine that the request comes from.
        """
        lines = [("Host", f"127.0.0.1:{self.port}"), ("Connection", "close"), *headers]
        if body:
            lines.append(("Content-Length", str(len(body))))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self.certificate.trust, local_addr=(source, 0)
            )
            try:
                writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
                answer = await reader.read()
            finally:
                writer.transport.abort()
        return int(answer.split(b" ", 2)[1]), answer

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def _command(self, config: Path) -> list[str]:
        match self.name.partition(".")[0].partition("-")[0]:
            case "nginx":
                run = f"daemon off; pid {self._folder}/pid;"
                return ["nginx", "-p", str(self._folder), "-c", str(config), "-e", "stderr", "-g", run]
            case "haproxy":
                return ["haproxy", "-db", "-f", str(config)]
            case _:
                return ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]

    def _configuration(self) -> str:
        text = (FOLDER / self.name).read_text()
        one, two = self._ports
        replacements = {
            "127.0.0.1:8000": f"127.0.0.1:{one}",
            "127.0.0.1:8001": f"127.0.0.1:{two}",
        }
        certificate = self.certificate
        if self.name.startswith("nginx"):
            replacements |= {
                "listen 443 ": f"listen 127.0.0.1:{self.port} ",
                "/var/log/nginx/": f"{self._folder}/",
                "/etc/ssl/hub.example/fullchain.pem": str(certificate.chain),
                "/etc/ssl/hub.example/privkey.pem": str(certificate.key),
            }
        elif self.name.startswith("haproxy"):
            replacements |= {
                "bind :443 ": f"bind 127.0.0.1:{self.port} ",
                "/etc/ssl/hub.example/haproxy.pem": str(certificate.combined),
            }
        else:
            replacements |= {
                "http_port 80\n": f"http_port {free_port()}\n",
                "https_port 443\n": f"https_port {self.port}\n",
                "admin localhost:2019\n": f"admin localhost:{free_port()}\n",
                "/etc/ssl/hub.example/fullchain.pem": str(certificate.chain),
                "/etc/ssl/hub.example/privkey.pem": str(certificate.key),
                "hub.example {": "127.0.0.1 {",
            }
        for before, after in replacements.items():
            assert before in text, f"{self.name} does not hold {before!r}"
            text = text.replace(before, after)
        return text
