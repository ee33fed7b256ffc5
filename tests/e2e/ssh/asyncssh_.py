"""What scripts do with asyncssh."""

import asyncio
import sys

import asyncssh


async def main():
    async with asyncssh.connect(sys.argv[1], username="job", known_hosts="/etc/ssh/ssh_known_hosts") as client:
        done = await client.run("echo out; echo err >&2; exit 3")
        print(done.stdout, end="")
        print(done.stderr, end="")
        print(done.exit_status)
        async with client.start_sftp_client() as sftp:
            async with sftp.open("there") as file:
                print(await file.read())
            async with sftp.open("new", "w") as file:
                await file.write("from the job")
            print(sorted(name for name in await sftp.listdir(".") if not name.startswith(".")))


asyncio.run(main())
