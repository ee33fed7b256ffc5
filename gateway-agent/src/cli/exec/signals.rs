//! The signals that go through to a job's command.

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

pub(super) struct Signals {
    streams: Vec<(tokio::signal::unix::Signal, Signal)>,
    on_terminal: bool,
}

impl Signals {
    /// From now on these are kept until [`Signals::next`] asks. `on_terminal`: the command is in the terminal's
    /// foreground, and has from the terminal what keys send.
    pub(super) fn new(on_terminal: bool) -> std::io::Result<Self> {
        let mut streams = Vec::new();
        for (kind, number) in [
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::hangup(), Signal::HUP),
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::quit(), Signal::QUIT),
            (SignalKind::user_defined1(), Signal::USR1),
            (SignalKind::user_defined2(), Signal::USR2),
        ] {
            streams.push((signal(kind)?, number));
        }
        Ok(Self { streams, on_terminal })
    }

    /// The next one to pass on.
    pub(super) async fn next(&mut self) -> Signal {
        let on_terminal = self.on_terminal;
        std::future::poll_fn(|cx| {
            for (stream, number) in &mut self.streams {
                while let std::task::Poll::Ready(Some(())) = stream.poll_recv(cx) {
                    if !(on_terminal && matches!(*number, Signal::INT | Signal::QUIT)) {
                        return std::task::Poll::Ready(*number);
                    }
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
