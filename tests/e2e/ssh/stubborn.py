"""A client that never answers when the server wants other keys, and goes on sending."""

import json
import sys
import time

import paramiko
from paramiko.common import MSG_KEXINIT, cMSG_CHANNEL_DATA

client = paramiko.Transport((sys.argv[1], 22))
client.start_client(timeout=30)
client.auth_none("job")
refused = []
client._handler_table[MSG_KEXINIT] = refused.append
channel = client.open_session(timeout=20)
channel.exec_command("cat > /dev/null; echo end")
piece, sent = b"x" * 30000, 0
end = time.time() + 60
while time.time() < end and client.is_active():
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_DATA)
    message.add_int(channel.remote_chanid)
    message.add_string(piece)
    try:
        client._send_message(message)
    except Exception:
        break
    sent += len(piece)
print(json.dumps({"asked": len(refused), "sent": sent, "closed": not client.is_active()}))
