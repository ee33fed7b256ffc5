"""A client that does not keep to RFC 4254, message by message; what became of each, as JSON."""

import json
import sys
import time

import paramiko
from paramiko.common import cMSG_CHANNEL_DATA, cMSG_CHANNEL_OPEN, cMSG_CHANNEL_REQUEST, cMSG_USERAUTH_REQUEST, cMSG_CHANNEL_WINDOW_ADJUST

HOST = sys.argv[1]


def connect(login=True):
    client = paramiko.Transport((HOST, 22))
    client.start_client(timeout=30)
    if login:
        client.auth_none("job")
    return client


def message(kind, *parts):
    made = paramiko.Message()
    made.add_byte(kind)
    for part in parts:
        if isinstance(part, bool):
            made.add_boolean(part)
        elif isinstance(part, int):
            made.add_int(part)
        else:
            made.add_string(part)
    return made


def lives(client, wait=2.0):
    """Whether the connection still stands and serves."""
    end = time.time() + wait
    while time.time() < end and client.is_active():
        time.sleep(0.05)
    if not client.is_active():
        return "closed"
    try:
        channel = client.open_session(timeout=20)
        channel.exec_command("echo alive")
        return channel.makefile().read().decode().strip()
    except Exception as error:
        return type(error).__name__


said = {}

# Data for channels that nobody confirmed, and that nobody asked for.
client = connect()
client._send_user_message(message(cMSG_CHANNEL_OPEN, b"session", 77, 1 << 20, 1 << 15))
for number in (0, 1, 2, 77, 0xFFFFFFFF):
    client._send_user_message(message(cMSG_CHANNEL_DATA, number, b"too early\n" * 100))
said["data before confirmation"] = lives(client)
client.close()

# More than the window holds, to a program that reads nothing.
client = connect()
channel = client.open_session(timeout=20)
channel.exec_command("sleep 600")
piece = b"x" * 30000
try:
    for _ in range(3000):
        client._send_user_message(message(cMSG_CHANNEL_DATA, channel.remote_chanid, piece))
        if not client.is_active():
            break
except Exception:
    pass
said["beyond the window"] = lives(client, 1.0)
client.close()

# A window that overflows.
client = connect()
channel = client.open_session(timeout=20)
for _ in range(4):
    client._send_user_message(message(cMSG_CHANNEL_WINDOW_ADJUST, channel.remote_chanid, 0xFFFFFFFF))
channel.exec_command("echo wide")
try:
    said["a window too wide"] = channel.makefile().read().decode().strip() or "closed"
except Exception as error:
    said["a window too wide"] = type(error).__name__
client.close()

# Methods of authentication that nobody knows, again and again.
client = connect(login=False)
count = 0
try:
    client._send_message(message(b"\x05", b"ssh-userauth"))
    for count in range(200):
        client._send_message(message(cMSG_USERAUTH_REQUEST, b"job", b"ssh-connection", b"made-up@example.com"))
        time.sleep(0.02)
        if not client.is_active():
            break
except Exception:
    pass
said["login attempts"] = count
client.close()

# Requests that nobody knows, and several programs on one channel.
client = connect()
channel = client.open_session(timeout=20)
for number in range(2000):
    client._send_user_message(message(cMSG_CHANNEL_REQUEST, channel.remote_chanid, b"made-up@example.com", False, b"x" * 100))
channel.exec_command("echo first; exit 3")
try:
    client._send_user_message(message(cMSG_CHANNEL_REQUEST, channel.remote_chanid, b"exec", False, b"echo second"))
except Exception:
    pass
said["one program"] = channel.makefile().read().decode().strip()
said["status"] = channel.recv_exit_status()
# Its status is there before the channel closes.
said["closed after"] = channel.status_event.is_set()
said["after unknown requests"] = lives(client, 0.1)
client.close()

# Extensions that nobody knows, without end, and ones that are cut off.
for case, counted, parts in (
    ("unknown extensions", 500, [b"made-up@example.com", b"x" * 1000] * 500),
    ("extensions cut off", 0xFFFFFFFF, [b"server-sig-algs"]),
):
    client = connect()
    client._send_user_message(message(b"\x07", counted, *parts))
    said[case] = lives(client, 0.5)
    client.close()

print(json.dumps(said))
