//! The gateway in the test's own process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gateway_agent::{
    intercept,
    kernel::{self, Kernel},
};

use super::Ground;

/// An attached kernel with a heartbeat and a gateway that identifies flows, in this process.
pub(crate) struct Gateway {
    pub(crate) kernel: Arc<Kernel>,
    flows: mpsc::Receiver<Result<Come, String>>,
    /// What resolvers were asked: each is answered with itself.
    questions: mpsc::Receiver<Result<intercept::Flow, String>>,
    pub(crate) events: kernel::Events,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    stop_accepting: Option<tokio::sync::oneshot::Sender<()>>,
    identify: Arc<AtomicBool>,
    /// Whoever comes says something: it is waited for.
    hear: Arc<AtomicBool>,
    pause: tokio::sync::watch::Sender<bool>,
    /// It accepts no more.
    paused: mpsc::Receiver<()>,
}

/// Whose connection it is, and what was written.
struct Come {
    flow: intercept::Flow,
    words: String,
}

impl Gateway {
    /// Runs in the calling thread's network namespace, which new threads inherit.
    pub(crate) fn start(ground: &Ground) -> Self {
        Self::start_with(ground, ground.config())
    }

    pub(crate) fn start_with(ground: &Ground, config: kernel::Config) -> Self {
        let kernel = Arc::new(ground.attach_with(config));
        let events = kernel.events().unwrap().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        kernel.beat().unwrap();
        let beating = {
            let (kernel, stop) = (Arc::clone(&kernel), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    kernel.beat().unwrap();
                    std::thread::park_timeout(Duration::from_millis(200));
                }
            })
        };
        let (send, flows) = mpsc::channel();
        let (heard, questions) = mpsc::channel();
        let (stop_accepting, stopped) = tokio::sync::oneshot::channel();
        let (listening, ready) = mpsc::channel();
        let identify = Arc::new(AtomicBool::new(true));
        let hear = Arc::new(AtomicBool::new(false));
        let (pause, mut pausing) = tokio::sync::watch::channel(false);
        let (rest, paused) = mpsc::channel();
        let accepting = {
            let kernel = Arc::clone(&kernel);
            let (identify, hear) = (Arc::clone(&identify), Arc::clone(&hear));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut intercept = intercept::Intercept::bind(&kernel).unwrap();
                    for questions in intercept.questions() {
                        tokio::spawn(echo(questions, Arc::clone(&kernel), heard.clone()));
                    }
                    listening.send(()).unwrap();
                    let mut streams = Vec::new();
                    let serve = async {
                        loop {
                            let (stream, _) = tokio::select! {
                                biased;
                                changed = pausing.changed() => {
                                    if changed.is_ok() && *pausing.borrow_and_update() {
                                        rest.send(()).unwrap();
                                        let _ = pausing.wait_for(|paused| !paused).await;
                                    }
                                    continue;
                                }
                                accepted = intercept.accept() => accepted.unwrap(),
                            };
                            if !identify.load(Ordering::Relaxed) {
                                streams.insert(0, stream);
                                continue;
                            }
                            let flow = intercept.identify(&kernel, &stream);
                            let flow = match flow {
                                Ok(flow) if hear.load(Ordering::Relaxed) => {
                                    Ok(Come { flow, words: words(&stream).await })
                                }
                                Ok(flow) => Ok(Come { flow, words: String::new() }),
                                Err(error) => Err(error.to_string()),
                            };
                            // Kept open for a while when it is a flow, closed when it is none.
                            streams.truncate(64);
                            if flow.is_ok() {
                                streams.insert(0, stream);
                            }
                            if send.send(flow).is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! { () = serve => {}, _ = stopped => {} }
                });
            })
        };
        ready.recv().unwrap();
        Self {
            kernel,
            flows,
            questions,
            events,
            stop,
            threads: vec![beating, accepting],
            stop_accepting: Some(stop_accepting),
            identify,
            hear,
            pause,
            paused,
        }
    }

    /// Accepts from now on without reading where anybody wanted to go.
    pub(crate) fn stop_identifying(&self) {
        self.identify.store(false, Ordering::Relaxed);
    }

    /// Accepts nobody from now on; returns when that is so.
    pub(crate) fn pause(&self) {
        self.pause.send(true).unwrap();
        self.paused.recv().unwrap();
    }

    /// Accepts again, those first who came meanwhile.
    pub(crate) fn resume(&self) {
        self.pause.send(false).unwrap();
    }

    pub(crate) fn flow(&self) -> Result<intercept::Flow, String> {
        self.come().map(|come| come.flow)
    }

    /// Reads the first words of whoever comes from now on.
    pub(crate) fn hear(&self) {
        self.hear.store(true, Ordering::Relaxed);
    }

    /// The same, with the first words; see [`Gateway::hear`].
    pub(crate) fn words(&self) -> Result<(intercept::Flow, String), String> {
        self.come().map(|come| (come.flow, come.words))
    }

    fn come(&self) -> Result<Come, String> {
        self.flows.recv_timeout(Duration::from_secs(5)).expect("nobody came to the gateway")
    }

    /// A datagram to a resolver.
    pub(crate) fn question(&self) -> Result<intercept::Flow, String> {
        self.questions.recv_timeout(Duration::from_secs(5)).expect("nobody asked a resolver")
    }

    /// A flow that came already.
    pub(crate) fn try_flow(&self) -> Result<Result<intercept::Flow, String>, mpsc::TryRecvError> {
        self.flows.try_recv().map(|come| come.map(|come| come.flow))
    }

    /// The next event with this reason.
    pub(crate) fn event(&mut self, reason: kernel::Reason) -> kernel::Refusal {
        self.event_within(reason, Duration::from_secs(5))
            .unwrap_or_else(|| panic!("no event says {reason:?}"))
    }

    /// The same, if it comes soon.
    pub(crate) fn try_event(&mut self, reason: kernel::Reason) -> Option<kernel::Refusal> {
        self.event_within(reason, Duration::from_millis(100))
    }

    fn event_within(&mut self, reason: kernel::Reason, time: Duration) -> Option<kernel::Refusal> {
        let deadline = Instant::now() + time;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            if let Some(refusal) = self.events.next(left).unwrap()
                && refusal.reason == reason
            {
                return Some(refusal);
            }
        }
        None
    }

    pub(crate) fn count(&self, reason: kernel::Reason) -> u64 {
        let counters = self.kernel.counters().unwrap();
        counters.iter().find(|(counted, _)| *counted == reason).unwrap().1
    }

    /// The listeners close, the heartbeat goes on.
    pub(crate) fn stop_listening(&mut self) {
        let before = listening();
        drop(self.stop_accepting.take());
        self.threads.pop().unwrap().join().unwrap();
        // A process that another thread starts just now has every descriptor, until it becomes that program.
        let deadline = Instant::now() + Duration::from_secs(10);
        while listening() + 2 > before {
            assert!(Instant::now() < deadline, "the listeners do not close");
            std::thread::yield_now();
        }
    }

    /// The heartbeat stops; returns when it counts as dead.
    pub(crate) fn stop_beating(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let beating = self.threads.remove(0);
        beating.thread().unpark();
        beating.join().unwrap();
        let stale = Duration::from_nanos(2_000_000_000);
        while self.kernel.status().unwrap().heartbeat_age.unwrap() <= stale {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.stop_accepting.take());
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// What comes first; nothing when nothing comes.
async fn words(stream: &tokio::net::TcpStream) -> String {
    let mut buffer = [0; 64];
    let read = async {
        loop {
            stream.readable().await?;
            match stream.try_read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    };
    let length = tokio::time::timeout(Duration::from_secs(5), read).await;
    let length = length.map_or(0, |read| read.unwrap_or(0));
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Listeners in the network namespace of the calling thread.
fn listening() -> usize {
    let of = |table: &str| {
        let table = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
        // Number, the two ends, state.
        table.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")).count()
    };
    of("tcp") + of("tcp6")
}

/// Answers each datagram with itself, until the runtime ends.
async fn echo(
    questions: intercept::Questions,
    kernel: Arc<Kernel>,
    heard: mpsc::Sender<Result<intercept::Flow, String>>,
) {
    let mut buffer = [0; 512];
    while let Ok((length, peer)) = questions.receive(&mut buffer).await {
        let flow = questions.identify(&kernel, peer).map_err(|error| error.to_string());
        let known = flow.is_ok();
        if heard.send(flow).is_err() {
            return;
        }
        if known && let Err(error) = questions.socket().send_to(&buffer[..length], peer).await {
            eprintln!("answering {peer}: {error}");
        }
    }
}
