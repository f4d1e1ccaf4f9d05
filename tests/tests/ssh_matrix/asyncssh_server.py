"""An SSH server of asyncssh: PORT HOSTKEY PASSWORD CA SIGNATURES. Runs commands by the account's login shell, as the account."""

import asyncio
import os
import pwd
import sys

import asyncssh
from asyncssh.rsa import RSAKey

PORT, HOST_KEY, PASSWORD, CA, SIGNATURES = sys.argv[1:6]

if "rsa-sha2-512" not in SIGNATURES:
    # It says what it takes, and takes the others all the same: here it does not.
    RSAKey.all_sig_algorithms = {b"ssh-rsa"}


class Server(asyncssh.SSHServer):
    def connection_made(self, conn):
        self.conn = conn

    def begin_auth(self, username):
        home = pwd.getpwnam(username).pw_dir
        keys = open(os.path.join(home, ".ssh", "authorized_keys")).read()
        ca = open(CA).read()
        self.conn.set_authorized_keys(asyncssh.import_authorized_keys(keys + "cert-authority " + ca))
        return True

    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        return password == PASSWORD


async def pump(read, write):
    while data := await read(65536):
        write.write(data)
        await write.drain()
    if hasattr(write, "close") and not isinstance(write, asyncssh.SSHWriter):
        write.close()


async def handle(process):
    account = pwd.getpwnam(process.get_extra_info("username"))
    child = await asyncio.create_subprocess_exec(
        account.pw_shell, "-c", process.command,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        user=account.pw_uid, group=account.pw_gid, extra_groups=[], cwd=account.pw_dir,
        env={"HOME": account.pw_dir, "USER": account.pw_name, "SHELL": account.pw_shell, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
    )
    into = asyncio.ensure_future(pump(process.stdin.read, child.stdin))
    await asyncio.gather(pump(child.stdout.read, process.stdout), pump(child.stderr.read, process.stderr))
    process.exit(await child.wait())
    into.cancel()


async def main():
    await asyncssh.create_server(
        Server, "127.0.0.1", int(PORT), server_host_keys=[HOST_KEY], process_factory=handle, encoding=None,
        signature_algs=SIGNATURES.split(","),
    )
    await asyncio.Event().wait()


asyncio.run(main())
