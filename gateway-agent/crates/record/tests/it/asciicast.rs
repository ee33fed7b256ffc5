//! A channel as players of terminals take it.

use record::{CastError, Event, Reader, Stream, Writer, channels, to_asciicast};

use crate::common::{header, scribe};

fn data(channel: u64, stream: Stream, data: &[u8]) -> Event<'_> {
    Event::Data { channel, stream, data: data.into() }
}

fn recording() -> Vec<u8> {
    let mut scribe = scribe();
    let mut writer = Writer::open(Vec::new(), &header(), &mut scribe).unwrap();
    let euro = "€".as_bytes();
    for (at, event) in [
        (1_000_000_000, Event::Terminal { channel: 1, columns: 120, rows: 40, term: "xterm".into() }),
        (1_500_000_000, Event::Channel { n: 1, channel: 1, what: "shell".into() }),
        (1_600_000_000, Event::Channel { n: 2, channel: 2, what: "exec id".into() }),
        (2_000_000_000, data(1, Stream::Output, b"$ ")),
        (2_100_000_000, data(1, Stream::Input, b"l")),
        (2_200_000_000, data(2, Stream::Output, b"uid=0\n")),
        // A character that two packets share, with standard error between.
        (2_300_000_000, data(1, Stream::Output, &[b"\x1b[1m\"", &euro[..1]].concat())),
        (2_350_000_000, data(1, Stream::Error, b"oops")),
        (2_400_000_000, data(1, Stream::Output, &euro[1..])),
        (2_500_000_000, Event::Terminal { channel: 1, columns: 80, rows: 25, term: "".into() }),
        (2_600_000_000, data(1, Stream::Output, b"\xff!")),
        (2_700_000_000, data(1, Stream::Output, &euro[..2])),
        (3_000_000_000, Event::ChannelClosed { channel: 1, status: Some(0), signal: None }),
    ] {
        writer.append(at, &event, &mut scribe).unwrap();
    }
    writer.flush(&mut scribe).unwrap();
    writer.seal(4_000_000_000, &mut scribe).unwrap()
}

fn cast(channel: u64, input: bool) -> Result<Vec<serde_json::Value>, CastError> {
    let file = recording();
    let mut out = Vec::new();
    to_asciicast(&mut Reader::new(&file[..], None).unwrap(), channel, input, &mut out)?;
    Ok(String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn a_terminal_is_shown_with_its_size_and_its_pace() {
    let lines = cast(1, false).unwrap();
    assert_eq!(lines[0]["version"], 2);
    assert_eq!((&lines[0]["width"], &lines[0]["height"]), (&120.into(), &40.into()));
    assert_eq!(lines[0]["env"]["TERM"], "xterm");
    assert_eq!(lines[0]["title"], "shell");
    let events: Vec<_> =
        lines[1..].iter().map(|e| (e[0].as_f64().unwrap(), e[1].as_str().unwrap(), &e[2])).collect();
    assert_eq!(
        events.iter().map(|(_, code, text)| (*code, text.as_str().unwrap())).collect::<Vec<_>>(),
        [
            ("o", "$ "),
            ("o", "\u{1b}[1m\""),
            ("o", "oops"),
            ("o", "€"),
            ("r", "80x25"),
            ("o", "\u{fffd}!"),
            ("o", "\u{fffd}")
        ]
    );
    assert!((events[0].0 - 0.5).abs() < 1e-9 && (events[3].0 - 0.9).abs() < 1e-9, "{events:?}");
    assert!(cast(1, true).unwrap().iter().any(|line| line[1] == "i" && line[2] == "l"));
}

#[test]
fn channels_are_told_apart() {
    let file = recording();
    let listed = channels(&mut Reader::new(&file[..], None).unwrap()).unwrap();
    assert_eq!(listed, [(1, "shell".to_owned()), (2, "exec id".to_owned())]);
    let lines = cast(2, false).unwrap();
    assert_eq!((&lines[0]["width"], &lines[1][2]), (&80.into(), &"uid=0\n".into()));
    assert_eq!(lines.len(), 2);
    assert!(matches!(cast(3, false), Err(CastError::NoChannel(3))));
}
