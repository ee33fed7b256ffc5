//! Copies bytes between a client and a server and does nothing else: what any proxy costs at least.
//!
//! `tokio-relay LISTEN CONNECT`

use std::{env, io};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The gateway's own first read is as large.
const BUFFER: usize = 8 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut words = env::args().skip(1);
    let listen = words.next().context("where to listen?")?;
    let connect = words.next().context("where to connect to?")?;
    let listener = TcpListener::bind(&listen).await.with_context(|| format!("listening on {listen}"))?;
    loop {
        let (client, _) = listener.accept().await?;
        let connect = connect.clone();
        tokio::spawn(async move { relay(client, &connect).await.ok() });
    }
}

async fn relay(mut client: TcpStream, connect: &str) -> io::Result<()> {
    let mut server = TcpStream::connect(connect).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    // Whoever ends first ends both.
    tokio::select! {
        done = copy(&mut from_client, &mut to_server) => done,
        done = copy(&mut from_server, &mut to_client) => done,
    }
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
    }
}
