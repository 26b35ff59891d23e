#!/usr/bin/python3
"""talk PORT|PATH [TEXT]: sends TEXT (with \\n and \\r as escapes) or what is on stdin to 127.0.0.1:PORT or the unix
socket PATH, and prints what comes back, until the other side closes or is quiet for half a second."""
import socket, sys

place = sys.argv[1]
if place.startswith("/"):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(place)
else:
    peer = socket.create_connection(("127.0.0.1", int(place)))
text = sys.argv[2].encode().decode("unicode_escape").encode() if len(sys.argv) > 2 else sys.stdin.buffer.read()
peer.sendall(text)
peer.settimeout(5)
got = b""
try:
    while part := peer.recv(65536):
        got += part
        peer.settimeout(0.5)
except TimeoutError:
    pass
sys.stdout.buffer.write(got)
sys.exit(0 if got else 1)
