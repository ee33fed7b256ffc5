//! `gateway-agent verify`: is a recording what its agent wrote?

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use record::{Checkpoint, Ending, Fault, PublicKey, ReadError, Report};
use serde::Serialize;

use crate::audit::public_key;

/// Checks recordings: every hash, every number, every signature.
///
/// Exits with 0 when every file is whole: sealed, or closed by a later agent after a crash (`recovered`). Exits with
/// 1 when a file was altered, ends without a seal, or cannot be read.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Recordings, or folders that hold some.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Public key of the agent: its .pub file, or 64 hexadecimal digits.
    #[arg(long, value_name = "PUB")]
    key: String,
    /// Accept recordings that a running agent still writes, if whole so far.
    #[arg(long)]
    live: bool,
    /// Refuse recovered recordings too.
    #[arg(long)]
    strict: bool,
}

/// What became of one file.
#[derive(Debug, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
enum Outcome {
    Sealed(Report),
    Recovered(Report),
    /// Not sealed, and locked by whoever writes it.
    Live(Report),
    Unsealed(Report),
    Tampered {
        offset: u64,
        frame: Option<u64>,
        what: String,
    },
    /// Genuine, but of another session than the file name says.
    Misnamed {
        session: String,
    },
    Unreadable {
        error: String,
    },
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a Path,
    ok: bool,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

pub(super) fn run(args: VerifyArgs, json: bool) -> anyhow::Result<ExitCode> {
    let key = public_key(&args.key).context("--key")?;
    let mut files = Vec::new();
    for path in &args.paths {
        let found = files.len();
        collect(path, &mut files).with_context(|| path.display().to_string())?;
        ensure!(files.len() > found, "{}: no recordings (*.gwr) below", path.display());
    }
    let mut out = io::stdout().lock();
    let mut bad = 0;
    for path in &files {
        let outcome = check(path, &key);
        let ok = match &outcome {
            Outcome::Sealed(_) => true,
            Outcome::Recovered(_) => !args.strict,
            Outcome::Live(_) => args.live,
            _ => false,
        };
        bad += usize::from(!ok);
        if json {
            serde_json::to_writer(&mut out, &Line { path, ok, outcome: &outcome })?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", describe(path, &outcome))?;
        }
    }
    if !json && files.len() > 1 {
        writeln!(out, "{} recordings, {bad} not accepted", files.len())?;
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A file is taken as given; of a folder, everything named `*.gwr` below.
fn collect(path: &Path, to: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        to.push(path.to_owned());
        return Ok(());
    }
    let mut entries = fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            collect(&path, to)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "gwr") {
            to.push(path);
        }
    }
    Ok(())
}

fn check(path: &Path, key: &PublicKey) -> Outcome {
    let unreadable = |error: String| Outcome::Unreadable { error };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return unreadable(error.to_string()),
    };
    // Asked first: a file that is finished while it is read was live, not cut.
    let live = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    let report = match record::verify(BufReader::new(&file), key) {
        Ok(report) => report,
        Err(ReadError::Fault(Fault { offset, frame, what })) => {
            return Outcome::Tampered { offset, frame, what: what.to_string() };
        }
        Err(error) => return unreadable(error.to_string()),
    };
    // A genuine file in place of another.
    if let Some(header) = &report.header
        && path.extension().is_some_and(|extension| extension == "gwr")
        && path.file_stem().is_some_and(|name| name != header.session.as_str())
    {
        return Outcome::Misnamed { session: header.session.clone() };
    }
    match report.ending {
        Ending::Sealed => Outcome::Sealed(report),
        Ending::Recovered { .. } => Outcome::Recovered(report),
        Ending::Unsealed { .. } if live => Outcome::Live(report),
        Ending::Unsealed { .. } => Outcome::Unsealed(report),
    }
}

fn describe(path: &Path, outcome: &Outcome) -> String {
    let path = path.display();
    match outcome {
        Outcome::Sealed(report) => format!("ok         {path}: sealed, {}", contents(report)),
        Outcome::Recovered(report) => {
            let Ending::Recovered { unsigned } = report.ending else { return String::new() };
            let dropped = report.last_checkpoint.map_or(0, |last| last.dropped);
            format!(
                "recovered  {path}: the agent died; closed by a later one, {}; {unsigned} frames were not signed when it \
                 died, {dropped} bytes of an incomplete frame were cut",
                contents(report)
            )
        }
        Outcome::Live(report) => format!("live       {path}: whole so far, {}", contents(report)),
        Outcome::Unsealed(report) => {
            let Ending::Unsealed { offset, partial } = report.ending else { return String::new() };
            let rest = if partial > 0 {
                format!(" and {partial} bytes of an incomplete frame")
            } else {
                String::new()
            };
            format!(
                "NOT SEALED {path}: ends at byte {offset}{rest}; {}; the session still ran, the agent died, or the end was \
                 cut off",
                signed(report.last_checkpoint)
            )
        }
        Outcome::Tampered { offset, frame, what } => {
            let frame = frame.map(|frame| format!(", frame {frame}")).unwrap_or_default();
            format!("TAMPERED   {path}: byte {offset}{frame}: {what}")
        }
        Outcome::Misnamed { session } => {
            format!("TAMPERED   {path}: this is the recording of session {:?}", session)
        }
        Outcome::Unreadable { error } => format!("UNREADABLE {path}: {error}"),
    }
}

fn contents(report: &Report) -> String {
    let took = Duration::from_millis(report.duration_ns / 1_000_000);
    format!(
        "{} records in {} blocks, {} bytes, {}",
        report.records,
        report.blocks,
        report.bytes,
        humantime::format_duration(took)
    )
}

fn signed(last: Option<Checkpoint>) -> String {
    match last {
        None => "nothing in it is signed".into(),
        Some(last) => {
            let at = UNIX_EPOCH + Duration::from_nanos(last.at_unix_ns);
            format!("last signed checkpoint at byte {}, {}", last.end, humantime::format_rfc3339_seconds(at))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use record::{Header, Scribe, SigningKey, Writer};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        verify: VerifyArgs,
        #[arg(long)]
        json: bool,
    }

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32]).unwrap()
    }

    fn recording(session: &str) -> (Vec<u8>, Vec<u8>) {
        let mut scribe = Scribe::new(key()).unwrap();
        let header = Header { session: session.into(), ..Header::default() };
        let writer = Writer::open(Vec::new(), &header, &mut scribe).unwrap();
        let open = writer.get_ref().clone();
        (open, writer.seal(1, &mut scribe).unwrap())
    }

    fn accepts(args: &[&str]) -> bool {
        let key = key().public().to_string();
        let args = ["verify", "--key", &key].iter().chain(args).copied().collect::<Vec<_>>();
        let cli = Cli::try_parse_from(args).unwrap();
        let code = run(cli.verify, cli.json).unwrap();
        format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS)
    }

    fn said(path: &Path) -> String {
        describe(path, &check(path, &key().public()))
    }

    #[test]
    fn each_state_of_a_file_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let day = dir.path().join("2027-01-15");
        fs::create_dir(&day).unwrap();
        let path = day.join("s1.gwr");
        let (open, sealed) = recording("s1");
        let (folder, file) = (dir.path().to_str().unwrap(), path.to_str().unwrap());

        fs::write(&path, &sealed).unwrap();
        assert!(accepts(&[file]) && accepts(&[folder]) && accepts(&["--json", "--strict", folder, file]));
        assert!(said(&path).starts_with("ok "));

        fs::write(&path, &sealed[..sealed.len() - 1]).unwrap();
        assert!(!accepts(&[file]) && !accepts(&["--json", folder]));
        assert!(
            said(&path).starts_with("NOT SEALED") && said(&path).contains("last signed checkpoint at byte")
        );

        let mut flipped = sealed.clone();
        flipped[200] ^= 1;
        fs::write(&path, &flipped).unwrap();
        assert!(!accepts(&[file]));
        assert!(
            said(&path).starts_with("TAMPERED") && said(&path).contains("byte 16, frame 0"),
            "{}",
            said(&path)
        );

        fs::write(&path, recording("s2").1).unwrap();
        assert!(!accepts(&[file]));
        assert!(said(&path).contains("this is the recording of session \"s2\""));

        fs::write(&path, &open).unwrap();
        let writing = File::open(&path).unwrap();
        writing.lock().unwrap();
        assert!(!accepts(&[file]) && accepts(&["--live", file]));
        drop(writing);
        assert!(!accepts(&["--live", file]));

        let plan = record::recover(&open[..], &Scribe::new(key()).unwrap(), 0).unwrap().unwrap();
        fs::write(&path, [&open[..], &plan.tail].concat()).unwrap();
        assert!(accepts(&[file]) && !accepts(&["--strict", file]));
        assert!(said(&path).starts_with("recovered"));
    }

    #[test]
    fn a_folder_without_recordings_is_not_a_success() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["verify", "--key", &key().public().to_string(), dir.path().to_str().unwrap()];
        assert!(run(Cli::try_parse_from(args).unwrap().verify, false).is_err());
    }
}
