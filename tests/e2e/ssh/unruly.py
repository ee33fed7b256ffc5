"""An SSH host that does not keep to RFC 4254. What it does is the command it is given.

unruly.py ADDRESS KEY
"""

import socket
import sys
import threading
import time

import paramiko
from paramiko.common import (
    cMSG_CHANNEL_CLOSE,
    cMSG_CHANNEL_DATA,
    cMSG_CHANNEL_EOF,
    cMSG_CHANNEL_REQUEST,
    cMSG_CHANNEL_WINDOW_ADJUST,
    cMSG_GLOBAL_REQUEST,
)

address, key = sys.argv[1], paramiko.Ed25519Key.from_private_key_file(sys.argv[2])


class Host(paramiko.ServerInterface):
    def __init__(self, transport):
        self.transport = transport

    def get_allowed_auths(self, username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        # The command of the tests: echo, and what is to be done.
        doing = (command.decode().split() + ["no_status"])[1]
        threading.Thread(target=self.work, args=(channel, doing), daemon=True).start()
        return True

    def send(self, kind, *parts):
        message = paramiko.Message()
        message.add_byte(kind)
        for part in parts:
            if isinstance(part, bool):
                message.add_boolean(part)
            elif isinstance(part, int):
                message.add_int(part)
            else:
                message.add_string(part)
        self.transport._send_user_message(message)

    def status(self, channel, number):
        self.send(cMSG_CHANNEL_REQUEST, channel.remote_chanid, b"exit-status", False, number)

    def over(self, channel):
        self.send(cMSG_CHANNEL_EOF, channel.remote_chanid)
        self.send(cMSG_CHANNEL_CLOSE, channel.remote_chanid)

    def work(self, channel, doing):
        # The request is answered first.
        time.sleep(0.3)
        try:
            getattr(self, doing)(channel)
        except Exception as error:
            print(doing, repr(error), flush=True)

    def status_first(self, channel):
        self.status(channel, 3)
        channel.sendall(b"late\n")
        self.over(channel)

    def status_twice(self, channel):
        channel.sendall(b"once\n")
        self.status(channel, 4)
        self.status(channel, 5)
        self.over(channel)

    def no_status(self, channel):
        channel.sendall(b"nothing more\n")
        self.over(channel)

    def after_the_end(self, channel):
        channel.sendall(b"before\n")
        self.send(cMSG_CHANNEL_EOF, channel.remote_chanid)
        self.send(cMSG_CHANNEL_DATA, channel.remote_chanid, b"after\n")
        self.status(channel, 6)
        self.send(cMSG_CHANNEL_CLOSE, channel.remote_chanid)
        self.send(cMSG_CHANNEL_DATA, channel.remote_chanid, b"long after\n")

    def beyond_the_window(self, channel):
        for _ in range(4000):
            self.send(cMSG_CHANNEL_DATA, channel.remote_chanid, b"x" * 30000)
        self.status(channel, 0)
        self.over(channel)

    def huge(self, channel):
        self.send(cMSG_CHANNEL_DATA, channel.remote_chanid, b"x" * 3_000_000)
        self.status(channel, 0)
        self.over(channel)

    def wide(self, channel):
        for _ in range(4):
            self.send(cMSG_CHANNEL_WINDOW_ADJUST, channel.remote_chanid, 0xFFFFFFFF)
        channel.sendall(b"wide\n")
        self.status(channel, 0)
        self.over(channel)

    def unknown(self, channel):
        for number in range(2000):
            self.send(cMSG_CHANNEL_REQUEST, channel.remote_chanid, b"made-up@example.com", number % 2 == 0, b"x" * 100)
            self.send(cMSG_GLOBAL_REQUEST, b"made-up@example.com", number % 2 == 0, b"x" * 100)
        channel.sendall(b"fine\n")
        self.status(channel, 0)
        self.over(channel)

    def nobody_s(self, channel):
        for number in range(2000):
            self.send(cMSG_CHANNEL_DATA, 4000 + number, b"nobody's")
        channel.sendall(b"fine\n")
        self.status(channel, 0)
        self.over(channel)

    def opens(self, channel):
        refused = 0
        kinds = ("session", "x11", "auth-agent@openssh.com", "direct-tcpip", "forwarded-tcpip", "tun@openssh.com")
        there = ("127.0.0.1", 22)
        for kind in kinds:
            try:
                self.transport.open_channel(kind, there, there, timeout=20)
            except paramiko.ChannelException:
                refused += 1
        channel.sendall(b"%d of %d refused\n" % (refused, len(kinds)))
        self.status(channel, 0)
        self.over(channel)


listener = socket.create_server((address, 22))
print("listening", flush=True)


def serve(client):
    transport = paramiko.Transport(client)
    transport.add_server_key(key)
    try:
        transport.start_server(server=Host(transport))
        transport.join()
    except Exception as error:
        print(repr(error), flush=True)


while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
