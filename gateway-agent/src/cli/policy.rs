//! `policy`: work on policy files, without the daemon.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use ::policy::{
    Action, Connect, Exec, Explanation, FileCase, FileOperation, HttpCase, KubernetesCase, Policy, Question,
    Source, Ssh, SshCase, Statement, Subject, UnixTime, testing,
};
use anyhow::{Context, anyhow, bail};
use protocol::{
    http::target,
    kubernetes,
    postgres::sql::{self, Catalogue, Refused},
};
use serde_json::{Value, json};

use super::{Global, print};

/// Longest SQL text read, in bytes: what the daemon reads.
const SQL_MAX: usize = 64 * 1024;

/// Check, test, explain: policy files, without the daemon
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Say whether policy files are good, and what is wrong with them
    ///
    /// Several files make one policy, as in the daemon's configuration; each file of a folder is a policy of its
    /// own. Without arguments: the files of the configuration.
    Check {
        #[arg(value_name = "FILE|DIR")]
        files: Vec<PathBuf>,
    },
    /// Run the expected decisions that stand beside policy files
    ///
    /// NAME.tests.yaml holds cases for NAME.yaml. Ends 1 when one does not hold, or when there are none. Names
    /// are resolved by search_path alone: no database is asked.
    Test {
        #[arg(value_name = "FILE|DIR")]
        files: Vec<PathBuf>,
    },
    /// Say which rules decide a statement for a subject, and why
    #[command(
        after_help = "Examples:\n  gateway-agent policy explain --subject payments-agent --resource orders 'SELECT email FROM customers'\n  gateway-agent policy explain --claims token.json --resource orders --connect orders\n  gateway-agent policy explain --subject deploy-main --resource web --ssh-user deploy 'cd /srv/app && git pull'\n  gateway-agent policy explain --subject build --resource forge --http 'GET https://git.example/acme/app/info/refs?service=git-receive-pack'"
    )]
    Explain(Box<Explain>),
    /// Read SQL or a command line on standard input and print what the engine sees in it
    Parse {
        /// The language of the input
        #[arg(long, value_enum)]
        dialect: Dialect,
    },
    /// Print the JSON Schema of policy files
    Schema,
}

#[derive(Debug, clap::Args)]
struct Explain {
    /// A subject of the policy, by name
    #[arg(long, required_unless_present = "claims", conflicts_with = "claims")]
    subject: Option<String>,
    /// A file with the claims of a token, as a JSON object with `iss`
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// A resource of the policy, by name
    #[arg(long)]
    resource: String,
    /// Ask about opening a session on this database instead of a statement
    #[arg(long, value_name = "DATABASE", conflicts_with_all = ["sql", "ssh_user", "http", "kubernetes"], required_unless_present_any = ["sql", "ssh_user", "http", "kubernetes"])]
    connect: Option<String>,
    /// Ask about a request to an HTTP host
    #[arg(long, value_name = "METHOD URL", conflicts_with_all = ["sql", "ssh_user"], value_parser = http_request)]
    http: Option<HttpCase>,
    /// Ask about a request to an API server, as `GET /api/v1/namespaces/shop/pods`
    #[arg(long, value_name = "METHOD PATH", conflicts_with_all = ["sql", "ssh_user", "http"])]
    kubernetes: Option<String>,
    /// Read the body of that request from standard input
    #[arg(long, requires = "kubernetes")]
    body: bool,
    /// Content-Type of the body
    #[arg(long, requires = "body", value_name = "TYPE")]
    content_type: Option<String>,
    #[command(flatten)]
    ssh: SshRequest,
    /// Time of the decision, as 2027-01-31T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<UnixTime>,
    /// A policy file; may be repeated [default: the files of the configuration]
    #[arg(long = "policy", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The statements, or with --ssh-user the command line; `-` reads them from standard input
    sql: Option<String>,
}

/// A request to an SSH host. With a login name and nothing else: connecting.
#[derive(Debug, clap::Args)]
struct SshRequest {
    /// Ask about a request to an SSH host, for this login name
    #[arg(long, value_name = "NAME")]
    ssh_user: Option<String>,
    /// A shell
    #[arg(long, requires = "ssh_user", conflicts_with = "sql")]
    shell: bool,
    /// A subsystem
    #[arg(long, value_name = "NAME", requires = "ssh_user", conflicts_with_all = ["sql", "shell"])]
    subsystem: Option<String>,
    /// An operation on a file by SFTP, as `read:/srv/app/x`; rename and symlink as `rename:/a:/b`
    #[arg(long, value_name = "OPERATION:PATH", requires = "ssh_user", conflicts_with_all = ["sql", "shell", "subsystem"], value_parser = file_request)]
    file: Option<FileCase>,
    /// A tunnel to a host and port
    #[arg(long, value_name = "HOST:PORT", requires = "ssh_user", conflicts_with_all = ["sql", "shell", "subsystem", "file"])]
    forward: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Dialect {
    Postgres,
    /// A command line
    Sh,
}

impl Args {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        match &self.action {
            Act::Check { files } => check(files, global),
            Act::Test { files } => test(files, global),
            Act::Explain(explain) => explain.run(global),
            Act::Parse { dialect: Dialect::Postgres } => parse(global),
            Act::Parse { dialect: Dialect::Sh } => parse_shell(global),
            Act::Schema => {
                print::json(&::policy::json_schema())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// One policy and the files that it is made of.
type Set = Vec<PathBuf>;

fn check(files: &[PathBuf], global: &Global) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut results = Vec::new();
    for set in sets(files, global)? {
        let names: Vec<String> = set.iter().map(|p| p.display().to_string()).collect();
        match Policy::load(&read(&set)?) {
            Ok(policy) => {
                results.push(json!({ "files": names, "good": true, "version": &**policy.version() }));
                if !global.json {
                    print::line(&format!("{}: good, version {}", names.join(" "), policy.version()))?;
                }
            }
            Err(diagnostics) => {
                code = ExitCode::FAILURE;
                if !global.json {
                    for diagnostic in &diagnostics {
                        print::line(&diagnostic.to_string())?;
                    }
                }
                results.push(json!({ "files": names, "good": false, "diagnostics": diagnostics }));
            }
        }
    }
    if global.json {
        print::json(&results)?;
    }
    Ok(code)
}

fn test(files: &[PathBuf], global: &Global) -> anyhow::Result<ExitCode> {
    let now = now();
    let mut outcomes = Vec::new();
    for set in sets(files, global)? {
        let tests: Set = set.iter().map(|p| tests_of(p)).filter(|p| p.exists()).collect();
        if tests.is_empty() {
            continue;
        }
        let policy = load(&set)?;
        for source in read(&tests)? {
            let cases = testing::cases(&source).map_err(|d| joined(&d))?;
            outcomes.extend(on_large_stack(|| {
                testing::run(&policy, &cases, now, analyse, shell, target::case, kubernetes::case)
            })?);
        }
    }
    let failed = outcomes.iter().filter(|o| !o.passed()).count();
    if global.json {
        print::json(&outcomes)?;
    } else {
        for outcome in &outcomes {
            let word = if outcome.passed() { "ok    " } else { "FAILED" };
            print::line(&format!("{word}  {}:{}  {}", outcome.file, outcome.line, outcome.name))?;
            for failure in &outcome.failures {
                print::line(&format!("        {}", print::printable(failure)))?;
            }
        }
        print::line(&format!("{} hold, {failed} do not", outcomes.len() - failed))?;
    }
    if outcomes.is_empty() {
        bail!("no expected decisions: write them in NAME.tests.yaml beside NAME.yaml");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Explain {
    fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let files = match self.files.as_slice() {
            [] => global.config()?.policy.files,
            files => files.to_vec(),
        };
        let policy = load(&files)?;
        let subject = self.subject(&policy)?;
        let resource = policy.resource_named(&self.resource).with_context(|| {
            let known: Vec<&str> = policy.resources().iter().map(|r| &*r.name).collect();
            format!("the policy has no resource `{}`; it has {}", self.resource, known.join(", "))
        })?;
        let now = self.at.unwrap_or_else(now);
        let actions = self.actions(policy.lets_everything(&subject, resource))?;
        let explanations: Vec<Explanation> = actions
            .iter()
            .map(|action| policy.explain(&Question { subject: &subject, resource, action, now, grant: None }))
            .collect();
        if global.json {
            print::json(&explanations)?;
        } else {
            for explanation in &explanations {
                print::line(&print::printable(&explanation.to_string()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn subject(&self, policy: &Policy) -> anyhow::Result<Arc<Subject>> {
        let Some(file) = &self.claims else {
            let name = self.subject.as_deref().unwrap_or_default();
            return policy.subject_named(name).with_context(|| format!("the policy has no subject `{name}`"));
        };
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let claims: Value = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        let issuer = claims.get("iss").and_then(Value::as_str).context("the claims have no `iss`")?;
        policy
            .subject(issuer, &claims)
            .map_err(|denial| anyhow!("{}\n  hint: {}", denial.reason, denial.hint))
    }

    fn ssh_request(&self, user: &str) -> anyhow::Result<Ssh> {
        let exec = match self.sql.as_deref() {
            Some("-") => Some(stdin()?),
            text => text.map(str::to_owned),
        };
        let SshRequest { shell, subsystem, file, forward, .. } = &self.ssh;
        let connect = exec.is_none() && !shell && subsystem.is_none() && file.is_none() && forward.is_none();
        let case = SshCase {
            user: user.to_owned(),
            connect,
            exec,
            shell: *shell,
            subsystem: subsystem.clone(),
            file: file.clone(),
            direct_tcpip: forward.clone(),
            ..SshCase::default()
        };
        case.action(self::shell).map_err(|wrong| anyhow!(wrong))
    }

    /// `everything`: also what cannot be read.
    fn actions(&self, everything: bool) -> anyhow::Result<Vec<Action>> {
        if let Some(user) = &self.ssh.ssh_user {
            return Ok(vec![Action::Ssh(self.ssh_request(user)?)]);
        }
        if let Some(request) = &self.kubernetes {
            let body = match self.body {
                true => Some(serde_json::from_reader(std::io::stdin()).context("the body")?),
                false => None,
            };
            let case =
                KubernetesCase { request: request.clone(), content_type: self.content_type.clone(), body };
            return match kubernetes::case(&case) {
                Ok(action) => Ok(vec![Action::Kubernetes(Box::new(action))]),
                Err(refused) => bail!("denied before any rule: {refused}"),
            };
        }
        if let Some(case) = &self.http {
            return match target::case(case) {
                Ok(http) => Ok(vec![Action::Http(http)]),
                Err(refused) => bail!("denied before any rule: {refused}"),
            };
        }
        if let Some(database) = &self.connect {
            return Ok(vec![Action::Connect(Connect {
                database: database.clone(),
                user: String::new(),
                application: String::new(),
            })]);
        }
        let text = match self.sql.as_deref() {
            Some("-") | None => stdin()?,
            Some(text) => text.to_owned(),
        };
        let statements = match on_large_stack(|| analyse(&text))? {
            Ok(statements) => statements,
            Err(_) if everything => vec![Statement::unread()],
            Err(refused) => {
                bail!("denied before any rule: {}\n  hint: {}", refused.reason, refused.hint)
            }
        };
        if statements.is_empty() {
            bail!("there is no statement in it");
        }
        Ok(statements.into_iter().map(Action::Statement).collect())
    }
}

fn parse(global: &Global) -> anyhow::Result<ExitCode> {
    let text = stdin()?;
    let seen = on_large_stack(|| sql::report(&text))?;
    for statement in &seen {
        if global.json {
            print::line(&serde_json::to_string(statement)?)?;
            continue;
        }
        let list = |name: &str| match statement.get(name) {
            Some(Value::Array(items)) => items
                .iter()
                .map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned))
                .collect::<Vec<_>>()
                .join(", "),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let names: &[&str] = match statement.get("error") {
            Some(_) => &["error", "hint"],
            None => &["kind", "class", "relations", "columns", "functions", "opaque"],
        };
        print::pairs(&names.iter().map(|n| (*n, list(n))).collect::<Vec<_>>())?;
        print::line("")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_shell(global: &Global) -> anyhow::Result<ExitCode> {
    let text = stdin()?;
    let exec = shell(text.strip_suffix('\n').unwrap_or(&text));
    if global.json {
        print::json(&exec)?;
        return Ok(ExitCode::SUCCESS);
    }
    for run in &exec.invocations {
        let words: Vec<_> = run.arguments.iter().map(|word| format!("{:?}", word.text)).collect();
        print::pairs(&[
            ("runs", run.program.text.clone()),
            ("with", words.join(" ")),
            ("in", run.folder.clone().unwrap_or_else(|| "(unknown)".to_owned())),
            ("through", run.via.join(" ")),
        ])?;
        print::line("")?;
    }
    for used in &exec.files {
        let below = if used.recursive { " and below" } else { "" };
        print::line(&format!("{} {}{below} by {}", used.operation.name(), used.path.text, used.by.name()))?;
    }
    for set in &exec.assignments {
        print::line(&format!("sets {}", set.name))?;
    }
    for why in &exec.opaque {
        print::line(&format!("not seen through: {}", print::printable(why)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `OPERATION:PATH` or `OPERATION:PATH:TARGET`.
fn file_request(text: &str) -> Result<FileCase, String> {
    let known = || FileOperation::ALL.iter().map(|of| of.name()).collect::<Vec<_>>().join(", ");
    let (operation, paths) = text.split_once(':').ok_or("write OPERATION:PATH")?;
    let operation = FileOperation::ALL
        .into_iter()
        .find(|of| of.name() == operation)
        .ok_or_else(|| format!("operations are {}", known()))?;
    let (path, target) = match paths.split_once(':') {
        Some((path, target)) => (path, Some(target.to_owned())),
        None => (paths, None),
    };
    Ok(FileCase { operation, path: path.to_owned(), target, home: None, by: None })
}

/// `METHOD URL`, or a URL alone for GET.
fn http_request(text: &str) -> Result<HttpCase, String> {
    let (method, url) = match text.split_once(' ') {
        Some((method, url)) => (Some(method.to_owned()), url),
        None => (None, text),
    };
    if url.is_empty() {
        return Err("write `GET https://host/path`".to_owned());
    }
    Ok(HttpCase { method, url: url.to_owned(), ..HttpCase::default() })
}

/// Reads and checks one policy.
pub(super) fn load(files: &[PathBuf]) -> anyhow::Result<Policy> {
    Policy::load(&read(files)?).map_err(|diagnostics| joined(&diagnostics))
}

fn joined(diagnostics: &[::policy::Diagnostic]) -> anyhow::Error {
    anyhow!("{}", diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            Ok(Source { name: file.display().to_string(), text })
        })
        .collect()
}

/// The policies that are meant: all named files together, each file of a folder alone.
fn sets(files: &[PathBuf], global: &Global) -> anyhow::Result<Vec<Set>> {
    if files.is_empty() {
        return Ok(vec![global.config()?.policy.files]);
    }
    let (folders, together): (Vec<&PathBuf>, Vec<&PathBuf>) = files.iter().partition(|p| p.is_dir());
    let mut sets = Vec::new();
    if !together.is_empty() {
        sets.push(together.into_iter().cloned().collect());
    }
    for folder in folders {
        let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
            .with_context(|| folder.display().to_string())?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        found.retain(|p| is_policy(p));
        found.sort();
        sets.extend(found.into_iter().map(|p| vec![p]));
    }
    Ok(sets)
}

fn is_policy(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_file() && name.ends_with(".yaml") && !name.ends_with(".tests.yaml")
}

/// `NAME.tests.yaml` of `NAME.yaml`.
fn tests_of(policy: &Path) -> PathBuf {
    policy.with_extension("tests.yaml")
}

fn analyse(text: &str) -> Result<Vec<Statement>, Refused> {
    sql::analyse(text, &Catalogue::empty(), SQL_MAX)
}

fn shell(text: &str) -> Exec {
    protocol::ssh::command::read(text.as_bytes())
}

/// The parsers recurse; a thread of its own gives them the room that the daemon gives them.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(sql::STACK).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| anyhow!("the SQL analyser failed; please report the statement"))
    })
}

fn stdin() -> anyhow::Result<String> {
    // One byte more than is parsed, so that longer input is refused and not cut.
    let mut text = String::new();
    std::io::stdin().take(SQL_MAX as u64 + 1).read_to_string(&mut text).context("standard input")?;
    Ok(text)
}

fn now() -> UnixTime {
    crate::clock::now()
}

fn time(text: &str) -> Result<UnixTime, String> {
    let at = humantime::parse_rfc3339(text).map_err(|e| e.to_string())?;
    at.duration_since(std::time::UNIX_EPOCH).map(|d| UnixTime(d.as_secs())).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_requests() {
        let read = file_request("rename:/a:/b").unwrap();
        assert_eq!(
            (read.operation, read.path.as_str(), read.target.as_deref()),
            (FileOperation::Rename, "/a", Some("/b"))
        );
        assert!(file_request("/a").is_err());
        assert!(file_request("copy:/a").unwrap_err().contains("symlink"));
    }

    #[test]
    fn tests_stand_beside_their_policy() {
        assert_eq!(tests_of(Path::new("/p/orders.yaml")), Path::new("/p/orders.tests.yaml"));
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yaml", "a.tests.yaml", "notes.md"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let global = Global { config: None, socket: None, json: false };
        let found = sets(&[dir.path().to_owned()], &global).unwrap();
        assert_eq!(found, [vec![dir.path().join("a.yaml")], vec![dir.path().join("b.yaml")]]);
        let both = [dir.path().join("b.yaml"), dir.path().join("a.yaml")];
        assert_eq!(sets(&both, &global).unwrap(), [both.to_vec()], "named files are one policy, in order");
    }
}
