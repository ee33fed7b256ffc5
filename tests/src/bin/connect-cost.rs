//! What `connect` costs: `connect-cost tcp|udp|loopback ADDRESS COUNT` prints the median in nanoseconds.
//!
//! `loopback` connects to a listener of its own and ignores the address.

use std::{
    env,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [how, address, count] = words.as_slice() else {
        bail!("connect-cost tcp|udp|loopback ADDRESS COUNT")
    };
    let listener = TcpListener::bind("127.0.0.1:0").context("a listener")?;
    let address: SocketAddr = match how.as_str() {
        "loopback" => listener.local_addr()?,
        _ => address.parse().context("the address")?,
    };
    let mut took = Vec::new();
    for _ in 0..count.parse::<usize>().context("the count")? {
        took.push(match how.as_str() {
            "udp" => {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                let start = Instant::now();
                socket.connect(address)?;
                start.elapsed()
            }
            _ => {
                let start = Instant::now();
                let stream = TcpStream::connect(address)?;
                let elapsed = start.elapsed();
                if how == "loopback" {
                    drop(listener.accept()?);
                }
                drop(stream);
                // Whoever accepts gets its turn: a full backlog is not what is measured.
                std::thread::sleep(Duration::from_millis(1));
                elapsed
            }
        });
    }
    took.sort();
    let median = took.get(took.len() / 2).context("nothing was measured")?;
    println!("{}", median.as_nanos());
    Ok(())
}
