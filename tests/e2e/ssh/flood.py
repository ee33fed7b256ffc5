"""Opens a thousand channels on one connection, and asks for things that nobody knows."""

import json
import sys

import paramiko

client = paramiko.Transport((sys.argv[1], 22))
client.start_client(timeout=30)
client.auth_none("job")

opened, refused = [], 0
for _ in range(1000):
    try:
        opened.append(client.open_session(timeout=30))
    except paramiko.ChannelException:
        refused += 1

try:
    client.open_channel("tun@openssh.com", timeout=30)
    unknown = "opened"
except paramiko.ChannelException:
    unknown = "refused"
client.global_request("made-up@example.com", (b"x" * 1000,), wait=True)

print(json.dumps({"opened": len(opened), "refused": refused, "unknown": unknown}))
client.close()
