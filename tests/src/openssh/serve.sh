#!/bin/sh
# The servers of a run, in a mount namespace of their own. Argument: the folder.
set -eu
folder=$1
mount --bind "$folder/passwd" /etc/passwd
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -m 0755 /run/sshd
systemd-socket-activate --accept --inetd --listen=127.0.0.1:4300 /usr/sbin/sshd -i -f "$folder/sshd_proxy" -E "$folder/sshd.log" &
while :; do
	{
		set --
		while IFS= read -r word && [ -n "$word" ]; do set -- "$@" "$word"; done
		/usr/sbin/sshd -D "$@" -o "PidFile=$folder/sshd.pid" &
		server=$!
		cat > /dev/null
		kill "$server" || :
		wait "$server" || :
	} < "$folder/serve"
done
