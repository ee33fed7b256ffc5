//! `gateway-agent replay`: a session as it went.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, UNIX_EPOCH},
};

use anyhow::Context as _;
use record::{
    CastError, Ending, Event, ExportError, Header, Item, List, Param, Params, PublicKey, Reader, Stream,
    to_asciicast, to_json_lines,
};

use crate::audit::public_key;

/// Prints a recorded session with its timing.
///
/// The chain of hashes is checked on the way; signatures only with --key. On a terminal, statements appear when
/// they happened; elsewhere at once.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// A recording, or the id of a session in --dir.
    #[arg(value_name = "FILE|SESSION")]
    recording: PathBuf,
    /// Where sessions are looked for by id.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/gateway/recordings")]
    dir: PathBuf,
    /// How much faster than it went.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = speed)]
    speed: f64,
    /// Longest pause between two events.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    max_pause: Duration,
    /// Print everything at once.
    #[arg(long)]
    no_wait: bool,
    /// Print one channel of an SSH session as asciicast v2, for players of terminals.
    #[arg(long, value_name = "CHANNEL", conflicts_with_all = ["speed", "max_pause", "no_wait"])]
    asciicast: Option<u64>,
    /// With --asciicast: also what was typed.
    #[arg(long, requires = "asciicast")]
    typed: bool,
    /// Check signatures against the agent's public key: its .pub file, or 64 hexadecimal digits.
    #[arg(long, value_name = "PUB")]
    key: Option<String>,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if speed > 0.0 && f64::is_finite(speed) => Ok(speed),
        _ => Err("expected a positive number, such as 2 or 0.5".into()),
    }
}

pub(super) fn run(args: ReplayArgs, json: bool) -> anyhow::Result<ExitCode> {
    let key = args.key.as_deref().map(public_key).transpose().context("--key")?;
    let path = find(&args)?;
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let stdout = io::stdout();
    if let Some(channel) = args.asciicast {
        let mut reader =
            Reader::new(BufReader::new(file), key).with_context(|| path.display().to_string())?;
        let out = BufWriter::new(stdout.lock());
        return match to_asciicast(&mut reader, channel, args.typed, out) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(CastError::Export(ExportError::Write(error)))
                if error.kind() == io::ErrorKind::BrokenPipe =>
            {
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        };
    }
    let pace = (stdout.is_terminal() && !args.no_wait && !json)
        .then_some(Pace { speed: args.speed, longest: args.max_pause });
    let result = replay(BufReader::new(file), key, pace, json, &mut BufWriter::new(stdout.lock()));
    match result {
        Ok(_) => Ok(ExitCode::SUCCESS),
        // Whoever reads has seen enough.
        Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// A file, or the recording of a session on any day.
fn find(args: &ReplayArgs) -> anyhow::Result<PathBuf> {
    if args.recording.exists() {
        return Ok(args.recording.clone());
    }
    let session = args.recording.to_str().filter(|name| !name.contains('/'));
    let days = session.and_then(|_| std::fs::read_dir(&args.dir).ok());
    days.into_iter()
        .flatten()
        .flatten()
        .map(|day| day.path().join(format!("{}.gwr", session.unwrap_or_default())))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "{}: no such file, and no such session in {}",
                args.recording.display(),
                args.dir.display()
            )
        })
}

#[derive(Clone, Copy)]
struct Pace {
    speed: f64,
    longest: Duration,
}

fn replay(
    input: impl io::Read,
    key: Option<PublicKey>,
    pace: Option<Pace>,
    json: bool,
    out: &mut impl Write,
) -> Result<Ending, ExportError> {
    let mut reader = Reader::new(input, key)?;
    if json {
        let ending = to_json_lines(&mut reader, &mut *out)?;
        out.flush()?;
        return Ok(ending);
    }
    if let Some(header) = reader.header() {
        print_header(header, out)?;
    }
    let (mut before_ns, mut due) = (0, Instant::now());
    loop {
        let item = match reader.next_item() {
            Ok(Some(item)) => item,
            Ok(None) => break,
            Err(error) => {
                // What came before it is worth seeing.
                out.flush()?;
                return Err(error.into());
            }
        };
        let Item::Event { at_ns, event } = item else { continue };
        if let Some(pace) = pace {
            out.flush()?;
            let step = Duration::from_nanos(at_ns - before_ns).as_secs_f64() / pace.speed;
            due += Duration::try_from_secs_f64(step).unwrap_or(Duration::MAX).min(pace.longest);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        before_ns = at_ns;
        print_event(at_ns, &event, out)?;
    }
    let ending = reader.ending().unwrap_or(Ending::Unsealed { offset: reader.offset(), partial: 0 });
    match ending {
        Ending::Sealed => writeln!(out, "-- end, sealed")?,
        Ending::Recovered { .. } => writeln!(out, "-- end: the agent died here; closed by a later one")?,
        Ending::Unsealed { offset, .. } => {
            writeln!(
                out,
                "-- not sealed: ends at byte {offset}; the session still runs, the agent died, or the end is missing"
            )?;
        }
    }
    out.flush()?;
    Ok(ending)
}

fn print_header(header: &Header, out: &mut impl Write) -> io::Result<()> {
    let started = UNIX_EPOCH + Duration::from_nanos(header.started_unix_ns);
    let named = |what: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!(", {what} {value}")).unwrap_or_default()
    };
    let process = &header.process;
    for (name, value) in [
        ("session", header.session.clone()),
        ("subject", format!("{}, job {}", header.subject, header.job)),
        ("process", format!("{} (pid {}, uid {})", process.command, process.pid, process.uid)),
        (
            "resource",
            format!(
                "{} at {}{}{}",
                header.resource,
                header.destination,
                named("database", &header.database),
                named("user", &header.user)
            ),
        ),
        ("policy", header.policy.clone()),
        (
            "started",
            format!(
                "{} on {}, agent {}",
                humantime::format_rfc3339_millis(started),
                header.host,
                header.agent
            ),
        ),
    ] {
        writeln!(out, "{name:<10}{}", clean(&value))?;
    }
    for (name, value) in &header.extra {
        writeln!(out, "{:<10}{}", clean(name), clean(value))?;
    }
    writeln!(out)
}

fn print_event(at_ns: u64, event: &Event<'_>, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{:>6}.{:06}  ", at_ns / 1_000_000_000, at_ns / 1000 % 1_000_000)?;
    match event {
        Event::Statement { n, sql, params, verdict, rules, approval } => {
            write!(out, "#{n:<4} {:<9} [{}]", verdict.as_str(), joined(rules))?;
            if let Some(approval) = approval {
                write!(out, " approval {}", clean(approval))?;
            }
            writeln!(out)?;
            indented(sql, out)?;
            print_params(params, out)
        }
        Event::Finished { n, tag, rows, bytes, sqlstate, micros, masked } => {
            let what = match sqlstate {
                Some(sqlstate) => format!("error {}", clean(sqlstate)),
                None => clean(tag),
            };
            write!(
                out,
                "#{n:<4} {what}: {rows} rows, {bytes} bytes, {}.{:03} ms",
                micros / 1000,
                micros % 1000
            )?;
            if *masked > 0 {
                write!(out, ", {masked} cells masked")?;
            }
            writeln!(out)
        }
        Event::Columns { n, names } => writeln!(out, "#{n:<4} columns {}", joined(names)),
        Event::Rows { n, data } => {
            writeln!(out, "#{n:<4} rows")?;
            indented(&String::from_utf8_lossy(data), out)
        }
        Event::Approval { n, id, outcome, by } => {
            write!(out, "#{n:<4} approval {}: {}", clean(id), clean(outcome))?;
            match joined(by) {
                names if names.is_empty() => writeln!(out),
                names => writeln!(out, " by {names}"),
            }
        }
        Event::Channel { n, channel, what } => writeln!(out, "#{n:<4} channel {channel}: {}", clean(what)),
        Event::Terminal { channel, columns, rows, term } => match clean(term) {
            term if term.is_empty() => writeln!(out, "channel {channel} terminal {columns}x{rows}"),
            term => writeln!(out, "channel {channel} terminal {columns}x{rows}, {term}"),
        },
        Event::Data { channel, stream, data } => {
            let stream = match stream {
                Stream::Input => "input",
                Stream::Output => "output",
                Stream::Error => "error",
            };
            writeln!(out, "channel {channel} {stream}, {} bytes", data.len())?;
            indented(&String::from_utf8_lossy(data), out)
        }
        Event::File { channel, n, operation, paths, outcome, bytes, digest } => {
            let paths = clean(&paths.iter().collect::<Vec<_>>().join(" -> "));
            write!(out, "#{n:<4} channel {channel} {} {paths}: {}", clean(operation), clean(outcome))?;
            if *bytes > 0 {
                write!(out, ", {bytes} bytes")?;
            }
            match digest {
                Some(digest) => writeln!(out, ", sha256 {}", clean(digest)),
                None => writeln!(out),
            }
        }
        Event::Contents { channel, n, write, offset, data } => {
            let what = if *write { "written" } else { "read" };
            writeln!(out, "#{n:<4} channel {channel} {what} at {offset}, {} bytes", data.len())
        }
        Event::ChannelClosed { channel, status, signal } => {
            write!(out, "channel {channel} closed")?;
            if let Some(status) = status {
                write!(out, ", status {status}")?;
            }
            match signal {
                Some(signal) => writeln!(out, ", signal {}", clean(signal)),
                None => writeln!(out),
            }
        }
        Event::Notice { text } => writeln!(out, "notice: {}", clean(text)),
        Event::Closed { reason } => writeln!(out, "closed: {}", clean(reason)),
        Event::Other { kind } => writeln!(out, "an event of kind {kind}, which this version does not know"),
    }
}

fn print_params(params: &Params<'_>, out: &mut impl Write) -> io::Result<()> {
    match params {
        Params::None | Params::Shared(_) => Ok(()),
        Params::Hidden(count) => {
            writeln!(out, "{:16}{count} parameters, kept out of the recording by policy", "")
        }
        Params::Kept(values) => values.iter().zip(1..).try_for_each(|(value, n)| match value {
            Param::Null => writeln!(out, "{:16}${n} = null", ""),
            Param::Value { data, total } => {
                let shown = match std::str::from_utf8(data) {
                    Ok(text) => format!("'{}'", clean(text)),
                    Err(_) => format!("\\x{}", record::text::hex(data)),
                };
                let cut =
                    if data.len() as u64 == *total { String::new() } else { format!(" … ({total} bytes)") };
                writeln!(out, "{:16}${n} = {shown}{cut}", "")
            }
        }),
    }
}

fn joined(names: &List<'_>) -> String {
    clean(&names.iter().collect::<Vec<_>>().join(", "))
}

fn indented(text: &str, out: &mut impl Write) -> io::Result<()> {
    text.lines().try_for_each(|line| writeln!(out, "{:16}{}", "", clean(line)))
}

/// Recorded text is a job's own: control characters must not reach the terminal, nor what reorders text on it.
fn clean(text: &str) -> String {
    let hidden = |c: char| {
        (c.is_control() && c != '\t')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .flat_map(|c| {
            let escape = hidden(c).then(|| c.escape_unicode());
            let plain = escape.is_none().then_some(c);
            escape.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use record::{Process, Scribe, SigningKey, Verdict, Writer};

    use super::*;

    const EVIL: &str = "SELECT '\u{1b}]0;owned\u{7}\u{202e}'\n  FROM t";

    fn recording(seal: bool) -> Vec<u8> {
        let mut scribe = Scribe::new(SigningKey::from_seed(&[7; 32]).unwrap()).unwrap();
        let header = Header {
            session: "s1".into(),
            started_unix_ns: 1_800_000_000_000_000_000,
            subject: "payments-agent".into(),
            job: "j1".into(),
            resource: "orders".into(),
            destination: "198.51.100.10:5432".into(),
            database: Some("orders".into()),
            process: Process { pid: 42, uid: 1000, command: "psql\u{1b}[2J".into() },
            ..Header::default()
        };
        let mut writer = Writer::open(Vec::new(), &header, &mut scribe).unwrap();
        let params = Params::Kept(vec![
            Param::Null,
            Param::Value { data: b"x".to_vec(), total: 9 },
            Param::Value { data: vec![0xff], total: 1 },
        ]);
        let rules = List::Owned(vec!["read".into()]);
        for (at, event) in [
            (
                1_000_000,
                Event::Statement {
                    n: 1,
                    sql: EVIL.into(),
                    params,
                    verdict: Verdict::Approved,
                    rules,
                    approval: Some("a7".into()),
                },
            ),
            (2_000_000, Event::Rows { n: 1, data: b"a\tb\nc\td\n"[..].into() }),
            (
                40_000_000,
                Event::Finished {
                    n: 1,
                    tag: "SELECT 2".into(),
                    rows: 2,
                    bytes: 80,
                    sqlstate: None,
                    micros: 1234,
                    masked: 3,
                },
            ),
            (41_000_000, Event::Closed { reason: "the client left".into() }),
        ] {
            writer.append(at, &event, &mut scribe).unwrap();
        }
        writer.flush(&mut scribe).unwrap();
        if seal { writer.seal(42_000_000, &mut scribe).unwrap() } else { writer.get_ref().clone() }
    }

    fn shown(file: &[u8], pace: Option<Pace>, json: bool) -> String {
        let mut out = Vec::new();
        replay(file, None, pace, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_person_sees_what_happened() {
        let text = shown(&recording(true), None, false);
        for part in [
            "subject   payments-agent, job j1",
            "resource  orders at 198.51.100.10:5432, database orders",
            "started   2027-01-15T08:00:00.000Z",
            "     0.001000  #1    approved  [read] approval a7",
            "$1 = null",
            "$2 = 'x' … (9 bytes)",
            "$3 = \\xff",
            "c\td\n",
            "     0.040000  #1    SELECT 2: 2 rows, 80 bytes, 1.234 ms, 3 cells masked",
            "closed: the client left",
            "-- end, sealed",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn recorded_text_cannot_drive_the_terminal() {
        for json in [false, true] {
            let text = shown(&recording(true), None, json);
            assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
        }
        assert!(!shown(&recording(true), None, false).contains('\u{202e}'));
    }

    #[test]
    fn an_unfinished_recording_says_so() {
        assert!(shown(&recording(false), None, false).contains("-- not sealed: ends at byte"));
    }

    #[test]
    fn machines_get_json() {
        let text = shown(&recording(true), None, true);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[1]["sql"], EVIL);
        assert_eq!(lines[3]["at_ns"], 40_000_000);
    }

    #[test]
    fn time_passes_as_it_did_divided_by_the_speed() {
        let start = Instant::now();
        shown(&recording(true), Some(Pace { speed: 2.0, longest: Duration::from_secs(1) }), false);
        assert!(start.elapsed() >= Duration::from_millis(20));
        let start = Instant::now();
        shown(&recording(true), Some(Pace { speed: 1e-9, longest: Duration::ZERO }), false);
        assert!(start.elapsed() < Duration::from_secs(10), "pauses are cut");
    }

    #[test]
    fn what_precedes_damage_is_shown() {
        let mut file = recording(true);
        let last = file.len() - 1;
        file[last] ^= 1;
        let mut out = Vec::new();
        replay(&file[..], None, None, false, &mut out).unwrap_err();
        assert!(String::from_utf8(out).unwrap().contains("closed: the client left"));
    }
}
