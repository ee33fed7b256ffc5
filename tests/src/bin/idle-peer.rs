//! Sessions that do nothing, on either end: `idle-peer serve ADDRESS` lets everybody in who speaks PostgreSQL, and
//! `idle-peer hold ADDRESS COUNT` logs in that often, says so, and keeps all of them until its input ends.

use std::{
    env,
    io::{self, Read},
    net::TcpStream as Held,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// As many log in at once.
const AT_ONCE: usize = 32;

/// AuthenticationOk, BackendKeyData, ReadyForQuery.
const IN: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x07abcdZ\0\0\0\x05I";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", address] => serve(address).await,
        ["hold", address, count] => hold(address, count.parse().context("how many?")?).await,
        _ => bail!("serve ADDRESS, or hold ADDRESS COUNT"),
    }
}

async fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    println!("up");
    loop {
        let (mut client, _) = listener.accept().await?;
        tokio::spawn(async move {
            let length = client.read_u32().await?;
            let mut rest = vec![0; usize::try_from(length)?.saturating_sub(4).min(10_000)];
            client.read_exact(&mut rest).await?;
            client.write_all(IN).await?;
            // Nothing more is asked of it but its end.
            while client.read(&mut rest).await? > 0 {}
            anyhow::Ok(())
        });
    }
}

async fn hold(address: &str, count: usize) -> Result<()> {
    let mut held = Vec::with_capacity(count);
    let mut coming = JoinSet::new();
    for _ in 0..count {
        if coming.len() == AT_ONCE
            && let Some(one) = coming.join_next().await
        {
            held.push(one??);
        }
        coming.spawn(log_in(address.to_owned()));
    }
    while let Some(one) = coming.join_next().await {
        held.push(one??);
    }
    println!("up {}", held.len());
    // Nothing else is to be done meanwhile.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // All of them are still there.
    for client in &held {
        let mut client = client;
        let quiet = client.read(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        ensure!(quiet, "one ended");
    }
    println!("held {}", held.len());
    Ok(())
}

async fn log_in(address: String) -> Result<Held> {
    let mut server =
        TcpStream::connect(&address).await.with_context(|| format!("connecting to {address}"))?;
    let body = b"\0\x03\0\0user\0job\0database\0orders\0\0";
    let mut startup = u32::try_from(body.len() + 4)?.to_be_bytes().to_vec();
    startup.extend_from_slice(body);
    server.write_all(&startup).await?;
    loop {
        let tag = server.read_u8().await?;
        let length = usize::try_from(server.read_u32().await?)?;
        let mut body = vec![0; length.saturating_sub(4).min(100_000)];
        server.read_exact(&mut body).await?;
        match tag {
            b'Z' => return Ok(server.into_std()?),
            b'E' => bail!("refused: {}", String::from_utf8_lossy(&body)),
            _ => {}
        }
    }
}
