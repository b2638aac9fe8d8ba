"""Stores for tests: a small web server with chosen manners, and a store in memory that fails when told to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Site:
    """A folder on the web. `has_ranges`, `has_etags`: its manners; `faults`: answers to give first, by path."""

    def __init__(self, folder: Path, *, has_ranges: bool = True, has_etags: bool = True) -> None:
        self.folder, self.has_ranges, self.has_etags = folder, has_ranges, has_etags
        self.faults: dict[str, list[int]] = {}
        self.gets: list[str] = []
        self.others: list[str] = []  # methods that it does not know
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler, *, has_body: bool) -> None:
        name = unquote(request.path.partition("?")[0]).strip("/")
        if has_body:
            self.gets.append(name)
            if self.faults.get(name):
                request.send_error(self.faults[name].pop(0))
                return
        path = self.folder / name
        if path.is_dir():
            links = (f'<a href="{one.name}{"/" * one.is_dir()}">x</a>' for one in sorted(path.iterdir()))
            content, kind = "\n".join(links).encode(), "text/html"
        elif path.is_file():
            content, kind = path.read_bytes(), "application/octet-stream"
        else:
            request.send_error(404)
            return
        begin, end, status = 0, len(content), 200
        wanted = request.headers.get("Range", "").removeprefix("bytes=")
        if self.has_ranges and wanted:
            first, _, last = wanted.partition("-")
            begin, end, status = int(first or 0), int(last or end - 1) + 1, 206
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(end - begin))
        if self.has_etags and path.is_file():
            request.send_header("ETag", f'"{sha256(content).hexdigest()[:16]}"')
        request.end_headers()
        if has_body:
            request.wfile.write(content[begin:end])


@contextmanager
def serving(folder: Path, **manners: bool) -> Iterator[Site]:
    site = Site(folder, **manners)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self, has_body=True)

        def do_HEAD(self) -> None:
            site.answer(self, has_body=False)

        def send_error(self, code: int, *words: str | None) -> None:
            if code == 501:
                site.others.append(self.command)
            super().send_error(code, *words)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class FlakyStore(MemoryFileSystem):
    """flaky://...: in memory; the next `num_faults` requests fail, those in `refused` always. Files show no version."""

    protocol = "flaky"
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    num_faults: ClassVar[int] = 0
    refused: ClassVar[set[str]] = set()
    refusal: ClassVar[type[Exception]] = PermissionError
    written: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix("flaky://"))

    @classmethod
    def reset(cls) -> None:
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.num_faults = 0
        cls.refused, cls.refusal = set(), PermissionError
        cls.written = []

    @classmethod
    def request(cls, kind: str) -> None:
        if kind in cls.refused:
            raise cls.refusal(f"{kind} is not for you")
        if cls.num_faults > 0:
            FlakyStore.num_faults -= 1
            raise ConnectionResetError("the line is down")

    def get_file(self, path: str, *args: object, **options: object) -> None:
        self.request("get")
        super().get_file(path, *args, **options)

    def put_file(self, local: str, path: str, *args: object, **options: object) -> None:
        self.request("put")
        super().put_file(local, path, *args, **options)
        self.written.append(path)

    def pipe_file(self, path: str, *args: object, **options: object) -> None:
        self.request("put")
        super().pipe_file(path, *args, **options)
        self.written.append(path)

    def find(self, *args: object, **options: object) -> object:
        self.request("list")
        return super().find(*args, **options)


fsspec.register_implementation("flaky", FlakyStore, clobber=True)
