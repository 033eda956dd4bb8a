# SPDX-License-Identifier: Apache-2.0
"""An HTTP/1.1 server for tests that can misbehave: a thread per connection, TLS by option, counts what comes."""
import json, random, socket, socketserver, ssl, struct, threading, time, urllib.parse
from email.utils import formatdate


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.headers, self.body = method, headers, body
        parts = urllib.parse.urlsplit(target)
        self.path, self.query = parts.path, dict(urllib.parse.parse_qsl(parts.query))

    def json(self):
        return json.loads(self.body or b"{}")

    def form(self):
        return dict(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))


class Answer:
    def __init__(self, status=200, body=b"", type="application/json", headers=None):
        self.status, self.type, self.headers = status, type, headers or {}
        self.body = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()


class Closed(Exception):
    """Close the connection without an answer."""


def read_request(stream):
    line = stream.readline(65537).decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = {}
    while (text := stream.readline(65537).decode("latin-1").strip()):
        name, _, value = text.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while (size := int(stream.readline().split(b";")[0], 16)):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers.get("content-length", 0)))
    return Request(line[0], line[1], headers, body)


class Server(socketserver.ThreadingTCPServer):
    """answer(request) -> Answer.  `faults` is a list of dicts {do, path?, count?, ...}; the first that fits is carried out, see misbehave()."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer, cert=None, port=0, host="127.0.0.1", ahead=0):
        super().__init__((host, port), None)
        self.answer, self.cert, self.ahead = answer, cert, ahead
        self.lock, self.faults, self.seen, self.connections, self.bytes_in, self.live = threading.Lock(), [], [], 0, 0, set()
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def now(self):
        return int(time.time()) + self.ahead

    def finish_request(self, sock, address):
        with self.lock:
            self.connections += 1
        sock.settimeout(120)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self.cert:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                if self.cert.get("weak"):
                    context.set_ciphers("ALL:@SECLEVEL=0")
                context.load_cert_chain(self.cert["cert"], self.cert["key"])
                sock = context.wrap_socket(sock, server_side=True)
            with self.lock:
                self.live.add(sock)
            stream = sock.makefile("rb")
            while (request := read_request(stream)) and self.one(sock, request):
                pass
        except (OSError, ValueError, Closed):
            pass
        finally:
            with self.lock:
                self.live.discard(sock)
            try:
                sock.close()
            except OSError:
                pass

    def drop(self):
        """Cut all connections, as a restart does."""
        with self.lock:
            live, self.live = self.live, set()
        for s in live:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def fault_for(self, request):
        with self.lock:
            for f in self.faults:
                if f.get("path", "") in request.path and f.get("count", 1) > 0:
                    if "count" in f:
                        f["count"] -= 1
                    return f
        return None

    def one(self, sock, request):
        with self.lock:
            self.seen.append({"method": request.method, "path": request.path, "bytes": len(request.body), "time": time.time()})
            self.bytes_in += len(request.body)
        fault = self.fault_for(request)
        if fault and fault.get("after"):  # answer only after a while
            time.sleep(fault["after"])
        if fault and fault["do"] != "late":
            return misbehave(self, sock, request, fault)
        self.send(sock, self.answer(request))
        return request.headers.get("connection", "").lower() != "close"

    def send(self, sock, a):
        head = f"HTTP/1.1 {a.status} X\r\nDate: {formatdate(self.now(), usegmt=True)}\r\nContent-Type: {a.type}\r\nContent-Length: {len(a.body)}\r\n"
        head += "".join(f"{k}: {v}\r\n" for k, v in a.headers.items())
        sock.sendall(head.encode() + b"\r\n" + a.body)


def misbehave(server, sock, request, f):
    """What a network, a proxy or a bad server may do instead of answering."""
    do = f["do"]
    if do == "status":
        server.send(sock, Answer(f["status"], f.get("body", ""), f.get("type", "text/plain"), f.get("headers")))
        return True
    if do == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Closed
    if do == "close":
        raise Closed
    if do == "hang":
        time.sleep(f.get("for", 100))
        raise Closed
    good = server.answer(request)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {f.get('type', 'application/json')}\r\n"
    if do == "garbage":
        sock.sendall(random.Random(f.get("seed", 1)).randbytes(500))
    elif do == "garbage-body":
        body = random.Random(f.get("seed", 1)).randbytes(500)
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    elif do == "truncated":
        sock.sendall(f"{head}Content-Length: {len(good.body)}\r\n\r\n".encode() + good.body[: len(good.body) // 2])
    elif do == "cut-json":  # a whole answer of half a document
        sock.sendall(f"{head}Content-Length: {len(good.body) // 2}\r\n\r\n".encode() + good.body[: len(good.body) // 2])
    elif do == "huge":
        sock.sendall(f"{head}Content-Length: {1 << 30}\r\n\r\n".encode())
        while True:
            sock.sendall(b" " * 65536)
    elif do == "huge-header":
        sock.sendall(head.encode())
        while True:
            sock.sendall(b"X-Y: " + b"y" * 4000 + b"\r\n")
    elif do == "slow":
        sock.sendall(f"{head}Content-Length: {len(good.body)}\r\n\r\n".encode())
        for b in good.body:
            sock.sendall(bytes([b]))
            time.sleep(f.get("every", 1))
    elif do == "half-close":
        sock.sendall(head.encode())
        sock.shutdown(socket.SHUT_WR)
        time.sleep(2)
    else:
        raise ValueError(do)
    raise Closed
