#!/bin/sh
# Makes a folder in which OpenSSH's regression tests run: their scripts, changed where they would start a server or a
# program without a connection, and the keys that they would make. Arguments: the folder, the user's id.
set -eu
to=$1
id=$2
cp -a /usr/lib/openssh/regress/. "$to"
cd "$to"
# Servers are started and ended outside of the job (`sshd`, `serve.sh`), and where a program would be each connection's server
# (`sshd -i`), clients connect to the port where that is so. The gateway's login is one more key of the user's; a job also trusts the gateway's host key.
sed -i \
	-e 's|^	cat $OBJ/ssh_config$|	sed "s/^	Port.*/	Port 4300/" $OBJ/ssh_config|' \
	-e 's|^	echo proxycommand .*|	:|' \
	-e 's|\(echo "ProxyTelnetCommand=\)sh [^"]*"|\1$OBJ/netcat 127.0.0.1 4300"|' \
	-e 's|^	UsePAM.*|	UsePAM no|' \
	-e 's|^	Subsystem	sftp	.*|	Subsystem sftp /usr/lib/openssh/sftp-server|' \
	-e 's|^chmod 644 $OBJ/authorized_keys_$USER|cat $OBJ/gateway.pub >> $OBJ/authorized_keys_$USER; . $OBJ/trust.sh; &|' \
	-e 's|^	echo "ProxyLocalhost=1".*|&; echo "SSHManualHostKeys=$($OBJ/fingerprints.sh)" >> ${OBJ}/.putty/sessions/localhost_proxy|' \
	test-exec.sh
# What reads and writes files by a server of its own, without any connection, does it by one.
sed -i -e 's|-D ${SFTPSERVER}|-D ${OBJ}/sftp-through-ssh|' ./*.sh
sed -i -e 's|^	exec $SCP "$@"|	exec ${SSH} -F ${0%/*}/ssh_proxy somehost "$arg"|' scp-ssh-wrapper.sh
for changed in test-exec.sh scp-ssh-wrapper.sh scp.sh sftp.sh; do
	if cmp -s "$changed" "/usr/lib/openssh/regress/$changed"; then
		echo "$changed is not what this was written for" >&2
		exit 1
	fi
done

cat > sftp-through-ssh <<'EOF'
#!/bin/sh
exec ${SSH} -F ${0%/*}/ssh_proxy -s somehost sftp
EOF
cat > trust.sh <<'EOF'
if [ -n "$REGRESS_GATEWAY" ]; then
	awk '{ print "localhost-with-alias,127.0.0.1,::1", $2, $3 }' /etc/ssh/ssh_known_hosts >> $OBJ/known_hosts
fi
EOF
cat > fingerprints.sh <<'EOF'
#!/bin/sh
ssh-keygen -lf ${0%/*}/known_hosts | awk '{ printf "%s%s", comma, $2; comma = "," }'
EOF
# Of the algorithms that ssh has, the tests try those that the gateway has too.
cat > ssh <<'EOF'
#!/bin/sh
before=
for word; do
	case "$before $word" in
	"-Q kex") exec printf '%s\n' curve25519-sha256 curve25519-sha256@libssh.org diffie-hellman-group16-sha512 diffie-hellman-group18-sha512 ;;
	"-Q cipher") exec printf '%s\n' aes128-ctr aes192-ctr aes256-ctr aes256-gcm@openssh.com ;;
	"-Q cipher-auth") exec printf '%s\n' aes256-gcm@openssh.com ;;
	"-Q mac") exec printf '%s\n' hmac-sha2-256 hmac-sha2-512 hmac-sha2-256-etm@openssh.com hmac-sha2-512-etm@openssh.com ;;
	"-Q compression") exec echo none ;;
	esac
	before=$word
done
exec /usr/bin/ssh "$@"
EOF
# Stands for the server's process: while it lives, the server runs.
cat > sshd <<'EOF'
#!/bin/sh
for word; do
	case "$word" in -t | -T | -i | -V) exec /usr/sbin/sshd "$@" ;; esac
done
rm -f "${0%/*}/sshd.pid"
setsid sh -c '
	exec 3>"$0/serve"
	{ printf "%s\n" "$@"; echo; } >&3
	trap "rm -f $0/pidfile; exit" TERM
	while [ ! -f "$0/sshd.pid" ]; do sleep 0.1 3>&-; done
	echo $$ > "$0/pidfile"
	while :; do sleep 0.5 3>&-; done
' "${0%/*}" "$@" < /dev/null > /dev/null 2>&1 &
EOF
chmod 755 sftp-through-ssh fingerprints.sh ssh sshd
mkfifo -m 600 serve

for type in $(/usr/bin/ssh -Q key-plain | grep -v '^sk'); do
	ssh-keygen -q -N '' -t "$type" -f "$type"
done
ssh-keygen -q -N '' -t ed25519 -C gateway -f gateway
sed "s|^nobody:.*|nobody:x:$id:$id::$to:/bin/sh|" /etc/passwd > passwd
chown -R "$id:$id" .
