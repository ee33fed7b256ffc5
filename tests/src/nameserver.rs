//! A name server of the tests' own: says what it is told to say, and remembers what it was asked.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};

use crate::netns::Netns;

/// How long its threads wait before they look whether they are still wanted.
const TURN: Duration = Duration::from_millis(50);

type Zone = HashMap<(String, RecordType), Vec<(u32, RData)>>;

/// Ends when dropped.
#[derive(Debug)]
pub struct Nameserver {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    zone: Mutex<Zone>,
    asked: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Nameserver {
    /// Listens in a namespace, over UDP and TCP.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(space: &Netns, address: SocketAddr) -> Result<Self> {
        let (udp, tcp) = space
            .enter(|| -> Result<_> { Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?)) })??;
        udp.set_read_timeout(Some(TURN))?;
        tcp.set_nonblocking(true)?;
        let state = Arc::new(State::default());
        let (one, other) = (Arc::clone(&state), Arc::clone(&state));
        let threads = vec![
            std::thread::spawn(move || one.datagrams(&udp)),
            std::thread::spawn(move || other.streams(&tcp)),
        ];
        Ok(Self { state, threads })
    }

    /// From now on the name has these addresses and no others.
    ///
    /// # Panics
    /// When the addresses cannot be read.
    pub fn set(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let mut zone = self.state.zone.lock().unwrap_or_else(PoisonError::into_inner);
        zone.retain(|(known, _), _| known != name);
        for address in addresses {
            let (kind, data) = match address.parse().expect("an address") {
                IpAddr::V4(v4) => (RecordType::A, RData::A(rdata::A(v4))),
                IpAddr::V6(v6) => (RecordType::AAAA, RData::AAAA(rdata::AAAA(v6))),
            };
            zone.entry((name.to_owned(), kind)).or_default().push((ttl, data));
        }
    }

    /// The name has this text.
    pub fn set_text(&self, name: &str, text: &str) {
        let data = RData::TXT(rdata::TXT::new(vec![text.to_owned()]));
        let mut zone = self.state.zone.lock().unwrap_or_else(PoisonError::into_inner);
        zone.insert((name.to_owned(), RecordType::TXT), vec![(60, data)]);
    }

    /// How often it was asked for a name that contains this.
    #[must_use]
    pub fn asked(&self, part: &str) -> usize {
        let asked = self.state.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|name| name.contains(part)).count()
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl State {
    fn datagrams(&self, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        while !self.over.load(Ordering::Relaxed) {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
            if let Ok(answer) = self.answer(&buffer[..length]) {
                socket.send_to(&answer, peer).ok();
            }
        }
    }

    fn streams(&self, listener: &TcpListener) {
        while !self.over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => drop(self.converse(stream)),
                Err(_) => std::thread::sleep(TURN),
            }
        }
    }

    fn converse(&self, mut stream: std::net::TcpStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(TURN * 4))?;
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut question = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut question)?;
            let answer = self.answer(&question)?;
            stream.write_all(&u16::try_from(answer.len())?.to_be_bytes())?;
            stream.write_all(&answer)?;
        }
    }

    fn answer(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let request = Message::from_vec(bytes)?;
        let query = request.queries.first().context("no question")?;
        let name = query.name().to_ascii().to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        let mut response = Message::response(request.metadata.id, OpCode::Query);
        response.metadata.recursion_available = true;
        response.add_query(query.clone());
        let zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        if !zone.keys().any(|(known, _)| known == name) {
            response.metadata.response_code = ResponseCode::NXDomain;
        }
        let found = zone.get(&(name.to_owned(), query.query_type()));
        for (ttl, data) in found.into_iter().flatten() {
            response.add_answer(Record::from_rdata(
                Name::from_ascii(query.name().to_ascii())?,
                *ttl,
                data.clone(),
            ));
        }
        Ok(response.to_vec()?)
    }
}
