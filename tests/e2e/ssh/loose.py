"""An SSH server of the kind from before strict key exchange, with the ciphers it is told.

loose.py ADDRESS KEY CIPHER…
"""

import asyncio
import sys

import asyncssh
import asyncssh.connection

address, key, *ciphers = sys.argv[1:]


def without_strictness(self):
    return [b"ext-info-s"]


asyncssh.connection.SSHConnection._get_extra_kex_algs = without_strictness
# Whatever the client offers.
asyncssh.connection.SSHConnection._strict_kex = property(lambda self: False, lambda self, value: None)


class Anybody(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False


async def main():
    def run(process):
        process.stdout.write("ran " + process.command + "\n")
        process.exit(0)

    await asyncssh.create_server(Anybody, address, 22, server_host_keys=[key], encryption_algs=ciphers, process_factory=run)
    print("listening", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
