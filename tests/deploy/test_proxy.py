"""The reverse proxy's example: a real nginx with deploy/nginx.conf, but for its names, before a server that tells."""

import asyncio
import os
import shutil
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sandbox.ports import free_port
from tests.authority import Authority

SITE = Path(__file__).parents[2] / "deploy" / "nginx.conf"
CALLBACK = "/oauth/callback/twitter"
BURST = 21
"""How many requests of one address come through at once: one, and the burst."""
WHOLE = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/start.log;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


@dataclass
class Proxy:
    """A running nginx, and what reached the server behind it."""

    port: int
    folder: Path
    trust: ssl.SSLContext
    seen: list[web.BaseRequest] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def statuses(self, count: int, source: str = "127.0.0.1") -> Counter[int]:
        """What one address gets for so many requests at once."""
        connector = aiohttp.TCPConnector(ssl=self.trust, local_addr=(source, 0), limit=8)
        async with aiohttp.ClientSession(connector=connector) as browser:

            async def get() -> int:
                async with browser.get(self.url + CALLBACK) as response:
                    return response.status

            return Counter(await asyncio.gather(*(get() for _ in range(count))))


def nginx() -> str:
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("nginx is missing (Debian: apt-get install nginx-light)")
        pytest.skip("nginx is not here (Debian: apt-get install nginx-light)")
    return found


def write(folder: Path, port: int, behind: int) -> Path:
    """The example with this test's names in the place of its own."""
    key, certificate = Authority().issue("ip:127.0.0.1")
    (folder / "privkey.pem").write_bytes(key)
    (folder / "fullchain.pem").write_bytes(certificate)
    names = {
        "listen 443": f"listen 127.0.0.1:{port}",
        "listen [::]:443 ssl http2;": "",
        "/etc/accounts/tls": str(folder),
        "/var/log/nginx": str(folder),
        "http://127.0.0.1:8080": f"http://127.0.0.1:{behind}",
    }
    site = SITE.read_text()
    for name, here in names.items():
        assert name in site
        site = site.replace(name, here)
    (folder / "site.conf").write_text(site)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(WHOLE.format(folder=folder, user=user))
    return folder / "nginx.conf"


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    program = nginx()
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    proxy = Proxy(free_port(), tmp_path, trust)

    async def tell(request: web.BaseRequest) -> web.Response:
        proxy.seen.append(request)
        return web.Response(text="the service")

    runner = web.ServerRunner(web.Server(tell))
    await runner.setup()
    behind = web.TCPSite(runner, "127.0.0.1", 0)
    await behind.start()
    config = write(tmp_path, proxy.port, runner.addresses[0][1])
    process = start(program, config)
    try:
        await until_listening(process, proxy)
        yield proxy
    finally:
        process.terminate()
        process.wait(timeout=10)
        await runner.cleanup()


def start(program: str, config: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([program, "-c", config, "-e", config.with_name("start.log")], stderr=subprocess.DEVNULL)


async def until_listening(process: subprocess.Popen[bytes], proxy: Proxy) -> None:
    deadline = time.monotonic() + 10
    while True:
        assert process.poll() is None, (proxy.folder / "start.log").read_text()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        except OSError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def test_b4_one_address_is_limited_and_another_is_not(proxy: Proxy) -> None:
    flood = await proxy.statuses(60)
    assert flood[429] >= 30 and flood[200] >= BURST and flood[200] + flood[429] == 60
    assert await proxy.statuses(5, source="127.0.0.2") == {200: 5}


async def test_only_the_callback_is_reachable_and_only_by_get(proxy: Proxy) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=proxy.trust)) as browser:
        for path in ("/", "/healthz", "/metrics", "/oauth", "/oauth/callback", "//oauth/../healthz", "/.git/config"):
            async with browser.get(proxy.url + path) as response:
                assert response.status == 404, path
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            async with browser.request(method, proxy.url + CALLBACK) as response:
                assert response.status in (403, 405), method
    assert proxy.seen == []


async def test_what_a_browser_says_about_where_it_comes_from_is_not_passed_on(proxy: Proxy) -> None:
    said = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Cookie", "Referer")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=proxy.trust)) as browser:
        await browser.get(f"{proxy.url}{CALLBACK}?state=s&code=c", headers=dict.fromkeys(said, "evil.test"))
    [request] = proxy.seen
    assert request.path_qs == f"{CALLBACK}?state=s&code=c"
    assert "evil.test" not in str(request.headers)


async def test_no_log_of_the_proxy_holds_a_code_or_a_state(proxy: Proxy) -> None:
    query = "?code=code-canary&state=state-canary"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=proxy.trust)) as browser:
        for path in (CALLBACK, "/oauth/callback/nowhere", "/elsewhere"):
            await browser.get(proxy.url + path + query)
        await asyncio.gather(*(browser.get(proxy.url + CALLBACK + query) for _ in range(40)))
        async with browser.get(proxy.url + CALLBACK + query + "x" * 20_000) as response:
            assert response.status == 414
    logs = {log.name: log.read_text() for log in proxy.folder.glob("*.log")}
    assert CALLBACK in logs["accounts.log"]
    assert "canary" not in "".join(logs.values())
