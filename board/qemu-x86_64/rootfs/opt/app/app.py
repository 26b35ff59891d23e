"""The board's application: slow to start, threaded, and full of state that only its start can make.

A GET of any path answers with what a restored process must still have: the token drawn at start, the
counter that one thread keeps ticking, and the number of the redis connection opened at start, on
which every request counts.
"""

import json
import os
import queue
import socket
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What real applications load before they serve; most of the start is this.
import argparse, asyncio, concurrent.futures, configparser, csv, ctypes, datetime, decimal  # noqa
import email.message, hashlib, hmac, logging.handlers, pickle, sqlite3, ssl, statistics  # noqa
import tempfile, urllib.request, uuid, xml.etree.ElementTree, zipfile  # noqa


class Redis:
    """One connection, opened once: if it breaks, requests fail."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")
        self.lock = threading.Lock()

    def call(self, *words):
        with self.lock:
            text = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
            self.socket.sendall(text.encode())
            line = self.lines.readline().decode().rstrip()
        if not line.startswith(":"):
            raise RuntimeError(f"redis answered {line!r}")
        return int(line[1:])


class Counter(threading.Thread):
    """Ticks ten times a second, and measures by the monotonic clock how late its ticks come."""

    def __init__(self):
        super().__init__(daemon=True)
        self.value = 0
        self.largest_gap = 0.0

    def run(self):
        last = time.monotonic()
        while True:
            time.sleep(0.1)
            now = time.monotonic()
            self.largest_gap = max(self.largest_gap, now - last)
            self.value, last = self.value + 1, now


class Worker(threading.Thread):
    """Blocks in a futex until there is a job."""

    def __init__(self):
        super().__init__(daemon=True)
        self.jobs = queue.Queue()
        self.done = 0

    def run(self):
        while True:
            job, answer = self.jobs.get()
            self.done += 1
            answer.put(hashlib.sha256(job).hexdigest())


def table():
    """A lookup table as measuring applications build one; a few MiB of live objects."""
    return {n: (n * n % 8191, str(n)) for n in range(40000)}


def complain(kind, value, trace):
    """Nobody reads a daemon's stderr; what ends it goes to the console."""
    with open("/dev/console", "w") as console:
        traceback.print_exception(kind, value, trace, file=console)


sys.excepthook = complain
TOKEN = os.urandom(16).hex()
TABLE = table()
COUNTER = Counter()
WORKER = Worker()
REDIS = Redis("/run/redis/redis.sock")
CONNECTION = REDIS.call("CLIENT", "ID")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        answer = queue.Queue()
        WORKER.jobs.put((TOKEN.encode(), answer))
        body = json.dumps({
            "token": TOKEN,
            "counter": COUNTER.value,
            "largest_gap": COUNTER.largest_gap,
            "redis_connection": REDIS.call("CLIENT", "ID"),
            "redis_connection_at_start": CONNECTION,
            "redis_counter": REDIS.call("INCR", "requests"),
            "worker": answer.get(timeout=10),
            "worker_done": WORKER.done,
            "monotonic": time.monotonic(),
            "uptime": float(open("/proc/uptime").read().split()[0]),
            "threads": threading.active_count(),
            "table": len(TABLE),
            "pid": os.getpid(),
        }).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


COUNTER.start()
WORKER.start()
server = ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
open("/run/app.ready", "w").close()
server.serve_forever()
