//! What CI jobs run every day, each allowed by the rule that one would write for it.

use crate::support::*;

/// A command line, and the `ssh` part of a rule.
const TABLE: &[(&str, &str)] = &[
    ("uptime", "commands: [{ program: uptime, arguments: [] }]"),
    ("hostname -f", "commands: [{ program: hostname, arguments: [\"**\"] }]"),
    ("true", "commands: [{ program: id, arguments: [] }]"),
    ("echo ok", "commands: [{ program: id, arguments: [] }]"),
    ("df -h /srv", "commands: [{ program: df, arguments: [\"-h\", \"/srv/**\"] }]"),
    ("git fetch --prune origin", "commands: [{ program: git, arguments: [fetch, \"**\"] }]"),
    (
        "cd /srv/app && git pull --ff-only",
        "commands: [{ program: git, arguments: [pull, \"**\"], folder: /srv/app }]",
    ),
    (
        "cd /srv/app && git reset --hard origin/main && git clean -fd",
        "commands: [{ program: git, arguments: [\"**\"] }]",
    ),
    (
        "git -C /srv/app rev-parse HEAD",
        "commands: [{ program: git, arguments: [\"-C\", \"/srv/app\", \"**\"] }]",
    ),
    (
        "git -c user.name=ci -c user.email=ci@example.com commit -m 'a b'",
        "commands: [{ program: git, arguments: [\"**\"] }]",
    ),
    ("git -c http.extraHeader='X: y' fetch", "commands: [{ program: git, arguments: [\"**\"] }]"),
    (
        "git clone --depth 1 https://git.internal/acme/web.git /srv/app",
        "commands: [{ program: git, arguments: [clone, \"**\"] }]",
    ),
    ("git log -1 --format=%H", "commands: [{ program: git, arguments: [log, \"**\"] }]"),
    ("git checkout -f v1.2.3", "commands: [{ program: git, arguments: [checkout, \"**\"] }]"),
    (
        "git-upload-pack '/srv/git/app.git'",
        "files: [{ operations: [read], paths: [\"/srv/git/**\"], by: [git] }]",
    ),
    (
        "git-receive-pack '/srv/git/app.git'",
        "files: [{ operations: [write], paths: [\"/srv/git/**\"], by: [git] }]",
    ),
    ("systemctl restart app.service", "commands: [{ program: systemctl, arguments: [restart, \"app*\"] }]"),
    (
        "sudo systemctl restart app",
        "commands: [{ program: systemctl, arguments: [restart, app], via: [sudo] }]",
    ),
    (
        "sudo -n -u app /srv/app/bin/migrate",
        "commands: [{ program: /srv/app/bin/*, arguments: [], via: [sudo] }]",
    ),
    (
        "sudo -H -E systemctl daemon-reload",
        "commands: [{ program: systemctl, arguments: [daemon-reload], via: [sudo] }]",
    ),
    (
        "systemctl is-active --quiet app || systemctl start app",
        "commands: [{ program: systemctl, arguments: [\"**\"] }]",
    ),
    ("journalctl -u app -n 100 --no-pager", "commands: [{ program: journalctl, arguments: [\"**\"] }]"),
    ("docker compose up -d --build", "commands: [{ program: docker, arguments: [compose, \"**\"] }]"),
    (
        "cd /srv/app && docker compose pull && docker compose up -d",
        "commands: [{ program: docker, arguments: [compose, \"**\"] }]",
    ),
    ("docker ps --format '{{.Names}}'", "commands: [{ program: docker, arguments: [ps, \"**\"] }]"),
    (
        "docker exec app rake db:migrate",
        "commands: [{ program: docker, arguments: [exec, app, rake, \"**\"] }, { program: rake, arguments: [\"**\"], via: [docker] }]",
    ),
    ("docker image prune -af", "commands: [{ program: docker, arguments: [image, prune, \"**\"] }]"),
    ("kubectl rollout status deploy/app", "commands: [{ program: kubectl, arguments: [rollout, \"**\"] }]"),
    (
        "mkdir -p /srv/app/releases/20261121",
        "commands: [{ program: mkdir, arguments: [\"-p\", \"/srv/app/**...\"] }]",
    ),
    (
        "ln -sfn /srv/app/releases/7 /srv/app/current",
        "commands: [{ program: ln, arguments: [\"-sfn\", \"/srv/app/**\", \"/srv/app/current\"] }]",
    ),
    (
        "rm -rf /srv/app/releases/1 /srv/app/releases/2",
        "commands: [{ program: rm, arguments: [\"-rf\", \"/srv/app/releases/**...\"] }]",
    ),
    ("rm -f /srv/app/tmp/*.pid", "commands: [{ program: rm, arguments: [\"-f\", \"/srv/app/tmp/**...\"] }]"),
    ("ls -la /srv/app", "commands: [{ program: ls, arguments: [\"-la\", \"/srv/app/**\"] }]"),
    (
        "ls -1dt /srv/app/releases/* | tail -n +6 | xargs rm -rf",
        "commands: [{ program: ls, arguments: [\"**\"] }, { program: tail, arguments: [\"**\"] }, { program: rm, arguments: [\"-rf\", \"**\"] }]",
    ),
    ("cat /srv/app/VERSION", "commands: [{ program: cat, arguments: [\"/srv/app/**\"] }]"),
    (
        "tail -n 50 /var/log/app/app.log",
        "commands: [{ program: tail, arguments: [\"-n\", \"*\", \"/var/log/app/**\"] }]",
    ),
    (
        "grep -c ERROR /var/log/app/app.log || true",
        "commands: [{ program: grep, arguments: [\"-c\", \"*\", \"/var/log/app/**\"] }]",
    ),
    (
        "tar -xzf /tmp/app.tgz -C /srv/app",
        "commands: [{ program: tar, arguments: [\"-xzf\", \"/tmp/*.tgz\", \"-C\", \"/srv/app\"] }]",
    ),
    ("tar czf - -C /srv/app .", "commands: [{ program: tar, arguments: [\"**\"] }]"),
    (
        "chmod 0644 /srv/app/config.yml && chown app:app /srv/app/config.yml",
        "commands: [{ program: ch*, arguments: [\"**\"] }]",
    ),
    (
        "cp -a /srv/app/config.yml /srv/app/config.yml.bak",
        "commands: [{ program: cp, arguments: [\"-a\", \"/srv/app/**...\"] }]",
    ),
    (
        "NODE_ENV=production npm ci --omit=dev",
        "commands: [{ program: npm, arguments: [\"**\"] }], env: [NODE_ENV]",
    ),
    ("cd /srv/app && npm run build", "commands: [{ program: npm, arguments: [run, \"*\"] }]"),
    (
        "cd /srv/app && RAILS_ENV=production bundle exec rake db:migrate",
        "commands: [{ program: bundle, arguments: [\"**\"] }], env: [\"RAILS_*\"]",
    ),
    (
        "/srv/app/venv/bin/python manage.py migrate --noinput",
        "commands: [{ program: /srv/app/venv/bin/python, arguments: [manage.py, \"**\"] }]",
    ),
    (
        "python3 /srv/app/deploy.py --env prod",
        "commands: [{ program: python3, arguments: [/srv/app/deploy.py, \"**\"] }]",
    ),
    ("php artisan migrate --force", "commands: [{ program: php, arguments: [artisan, \"**\"] }]"),
    ("composer install --no-dev", "commands: [{ program: composer, arguments: [\"**\"] }]"),
    ("make -C /srv/app deploy", "commands: [{ program: make, arguments: [\"**\"] }]"),
    (
        "bash /srv/app/deploy.sh --fast",
        "commands: [{ program: bash, arguments: [/srv/app/deploy.sh, \"**\"] }]",
    ),
    ("cd /srv/app && ./deploy.sh", "commands: [{ program: /srv/app/deploy.sh, arguments: [] }]"),
    (
        "set -e; cd /srv/app && git pull; systemctl restart app",
        "commands: [{ program: git, arguments: [\"**\"] }, { program: systemctl, arguments: [\"**\"] }]",
    ),
    (
        "set -euo pipefail\ncd /srv/app || exit 1\ngit pull\nsystemctl restart app\n",
        "commands: [{ program: git, arguments: [\"**\"], folder: /srv/app }, { program: systemctl, arguments: [\"**\"] }]",
    ),
    (
        "bash -c 'cd /srv/app && git pull'",
        "commands: [{ program: git, arguments: [\"**\"], folder: /srv/app }]",
    ),
    ("/bin/sh -c 'echo ~deploy && sleep 0'", "commands: [{ program: sleep, arguments: [\"**\"] }]"),
    (
        "/bin/sh -c '( umask 77 && mkdir -p \"` echo ~/.ansible/tmp `\"&& mkdir \"` echo ~/.ansible/tmp/ansible-tmp-1 `\" && echo ansible-tmp-1=\"` echo ~/.ansible/tmp/ansible-tmp-1 `\" ) && sleep 0'",
        "commands: [{ program: mkdir, arguments: [\"**\"] }, { program: sleep, arguments: [\"**\"] }]",
    ),
    (
        "/bin/sh -c 'chmod u+x ~/.ansible/tmp/a/ ~/.ansible/tmp/a/AnsiballZ_ping.py && sleep 0'",
        "commands: [{ program: chmod, arguments: [u+x, \"~/.ansible/tmp/**...\"] }, { program: sleep, arguments: [\"**\"] }]",
    ),
    (
        "/bin/sh -c '/usr/bin/python3 /home/deploy/.ansible/tmp/a/AnsiballZ_ping.py && sleep 0'",
        "commands: [{ program: python3, arguments: [\"/home/deploy/.ansible/tmp/**\"] }, { program: sleep, arguments: [\"**\"] }]",
    ),
    (
        "/bin/sh -c 'rm -f -r ~/.ansible/tmp/a/ > /dev/null 2>&1 && sleep 0'",
        "commands: [{ program: rm, arguments: [\"-f\", \"-r\", \"~/.ansible/tmp/**\"] }, { program: sleep, arguments: [\"**\"] }]",
    ),
    (
        "rsync --server -vlogDtprze.iLsfxCIvu --delete . /srv/app/releases/7/",
        "files: [{ operations: [write, remove], paths: [\"/srv/app/**\"], by: [rsync] }]",
    ),
    (
        "rsync --server --sender -vlogDtprze.iLsfxCIvu . /srv/app/",
        "files: [{ operations: [read], paths: [\"/srv/app/**\"], by: [rsync] }]",
    ),
    ("scp -t /srv/app/releases/7/", "files: [{ operations: [write], paths: [\"/srv/app/**\"] }]"),
    ("scp -r -p -f '/var/log/app/*.log'", "files: [{ operations: [read], paths: [\"/var/log/app/**\"] }]"),
    (
        "cat > /srv/app/config.yml",
        "commands: [{ program: cat, arguments: [] }], files: [{ operations: [write], paths: [\"/srv/app/**\"] }]",
    ),
    (
        "cat <<'EOF' > /srv/app/env\nA=$B\nEOF\n",
        "commands: [{ program: cat, arguments: [] }], files: [{ operations: [write], paths: [\"/srv/app/**\"] }]",
    ),
    (
        "tee /srv/app/out < /srv/app/in",
        "commands: [{ program: tee, arguments: [\"/srv/app/**\"] }], files: [{ operations: [read], paths: [\"/srv/app/**\"] }]",
    ),
    (
        "if [ -f /srv/app/pid ]; then kill \"$(cat /srv/app/pid)\"; fi",
        "commands: [{ program: kill, arguments: [\"**\"] }, { program: cat, arguments: [\"/srv/app/**\"] }]",
    ),
    (
        "for s in web worker; do systemctl restart \"app-$s\"; done",
        "commands: [{ program: systemctl, arguments: [restart, \"**\"] }]",
    ),
    (
        "while ! curl -fsS http://127.0.0.1:8080/health; do sleep 1; done",
        "commands: [{ program: curl, arguments: [\"-fsS\", \"*\"] }, { program: sleep, arguments: [\"*\"] }]",
    ),
    ("timeout 60 /srv/app/bin/wait-for-db", "commands: [{ program: /srv/app/bin/*, arguments: [] }]"),
    (
        "nohup /srv/app/bin/worker > /srv/app/log/worker.log 2>&1 &",
        "commands: [{ program: /srv/app/bin/*, arguments: [] }], files: [{ operations: [write], paths: [\"/srv/app/log/**\"] }]",
    ),
    (
        "find /srv/app/releases -maxdepth 1 -mtime +30 -exec rm -rf {} +",
        "commands: [{ program: find, arguments: [\"/srv/app/**\", \"**\"] }, { program: rm, arguments: [\"-rf\", \"**\"] }]",
    ),
    (
        "ps aux | awk '{print $2}' | head -5",
        "commands: [{ program: ps, arguments: [\"**\"] }, { program: awk, arguments: [\"**\"] }, { program: head, arguments: [\"**\"] }]",
    ),
    (
        "sed -i 's/^VERSION=.*/VERSION=7/' /srv/app/env",
        "commands: [{ program: sed, arguments: [\"-i\", \"s/*/*/\", \"/srv/app/**\"] }]",
    ),
    (
        "[ -n \"$CI\" ] && [ \"$(cat /srv/app/VERSION)\" = 7 ] || exit 1",
        "commands: [{ program: cat, arguments: [\"/srv/app/**\"] }]",
    ),
    (
        "sha256sum -c /srv/app/SHA256SUMS",
        "commands: [{ program: sha256sum, arguments: [\"-c\", \"/srv/app/**\"] }]",
    ),
    (
        "command -v docker > /dev/null && docker version",
        "commands: [{ program: docker, arguments: [version] }]",
    ),
    (
        "env LANG=C sort /srv/app/list | uniq -c",
        "commands: [{ program: sort, arguments: [\"/srv/app/**\"] }, { program: uniq, arguments: [\"-c\"] }], env: [LANG]",
    ),
];

#[test]
fn ordinary_commands_are_allowed() {
    let mut wrong = Vec::new();
    for (text, part) in TABLE {
        let policy = policy(&format!(
            "  - {{ id: r, effect: allow, subjects: [job], resources: [web], connect: true, ssh: {{ {part} }} }}\n"
        ));
        if let Some(reason) = exec(&policy, text) {
            wrong.push(format!("{text}: {reason}"));
        }
        // And nothing is, where another program is granted.
        let other = crate::support::policy(
            "  - { id: r, effect: allow, subjects: [job], resources: [web], ssh: { commands: [{ program: other, arguments: [] }] } }\n",
        );
        if !matches!(*text, "true" | "echo ok") && exec(&other, text).is_none() {
            wrong.push(format!("{text}: allowed by a rule for another program"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(TABLE.len() >= 60);
}
