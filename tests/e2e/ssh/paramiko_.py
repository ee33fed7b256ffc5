"""What scripts do with paramiko."""

import sys

import paramiko

client = paramiko.SSHClient()
client.load_host_keys("/etc/ssh/ssh_known_hosts")
client.connect(sys.argv[1], username="job", password="anything", look_for_keys=False, allow_agent=False)
stdin, stdout, stderr = client.exec_command("echo out; echo err >&2; exit 3")
print(stdout.read().decode(), end="")
print(stderr.read().decode(), end="")
print(stdout.channel.recv_exit_status())
sftp = client.open_sftp()
with sftp.open("there") as file:
    print(file.read().decode())
with sftp.open("new", "w") as file:
    file.write("from the job")
print(sorted(name for name in sftp.listdir(".") if not name.startswith(".")))
client.close()
