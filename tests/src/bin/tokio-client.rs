//! A job's program that speaks by tokio-postgres. One scenario a run; prints JSON.
//!
//! Reads libpq's environment variables as far as it needs them. No TLS: psql, psycopg and asyncpg
//! cover that, and this one covers a client that asks for none.

use std::{env, future::poll_fn, time::Duration};

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, TryStreamExt};
use serde_json::{Value, json};
use tokio_postgres::{AsyncMessage, Client, NoTls, Row, SimpleQueryMessage};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let scenario = env::args().nth(1).context("which scenario?")?;
    let (mut client, mut notes) = connect().await?;
    let said = match scenario.as_str() {
        "binary" => binary(&client).await?,
        "pipeline" => pipeline(&client).await?,
        "denied" => denied(&mut client).await?,
        "held" => held(&client).await?,
        "copy" => copy(&client).await?,
        "cancel" => cancel(&client).await?,
        "portal" => portal(&mut client).await?,
        "notify" => {
            client.batch_execute("LISTEN news").await?;
            client.batch_execute("NOTIFY news, 'hello'").await?;
            json!(notes.recv().await.context("no notification")?)
        }
        other => bail!("no scenario {other}"),
    };
    println!("{said}");
    Ok(())
}

async fn connect() -> Result<(Client, tokio::sync::mpsc::UnboundedReceiver<String>)> {
    let variable = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let mut config = tokio_postgres::Config::new();
    config
        .host(variable("PGHOST")?)
        .port(variable("PGPORT")?.parse()?)
        .dbname(variable("PGDATABASE")?)
        .user(variable("PGUSER")?)
        .password(variable("PGPASSWORD")?)
        .ssl_mode(tokio_postgres::config::SslMode::Disable)
        .connect_timeout(Duration::from_secs(10));
    let (client, mut connection) = config.connect(NoTls).await?;
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(note) = message {
                tell.send(format!("{}: {}", note.channel(), note.payload())).ok();
            }
        }
    });
    Ok((client, told))
}

/// Typed values, which travel in binary.
async fn binary(client: &Client) -> Result<Value> {
    let sql = "SELECT id, name, email AS contact, upper(ssn), card FROM customers WHERE id <= $1 ORDER BY id";
    let rows = client.query(sql, &[&3i32]).await?;
    let row = |row: &Row| {
        let text = |column: usize| row.get::<_, String>(column);
        json!([row.get::<_, i32>(0), text(1), text(2), text(3), text(4)])
    };
    Ok(json!(rows.iter().map(row).collect::<Vec<_>>()))
}

/// Ten questions before the first answer; one of them is not allowed.
async fn pipeline(client: &Client) -> Result<Value> {
    let read = client.prepare("SELECT amount::text FROM orders WHERE id = $1").await?;
    let numbers: Vec<i32> = (1..=10).collect();
    let answers = futures_util::future::join_all(
        numbers.iter().map(async |number| client.query_one(&read, &[number]).await),
    );
    let secret = client.query("SELECT value FROM secrets", &[]);
    let after = client.query_one(&read, &[&11i32]);
    let (answers, secret, after) = tokio::join!(answers, secret, after);
    let answers: Vec<String> =
        answers.into_iter().map(|row| Ok(row?.get(0))).collect::<Result<_, tokio_postgres::Error>>()?;
    Ok(json!({ "answers": answers, "secret": error(secret), "after": after?.get::<_, String>(0) }))
}

/// A refusal outside and inside a transaction: the session goes on.
async fn denied(client: &mut Client) -> Result<Value> {
    let outside = error(client.execute("DROP TABLE orders", &[]).await);
    let usable = client.query_one("SELECT 1", &[]).await?.get::<_, i32>(0);
    let transaction = client.transaction().await?;
    transaction.query_one("SELECT 2", &[]).await?;
    let inside = error(transaction.execute("DROP TABLE orders", &[]).await);
    transaction.rollback().await?;
    let again = client.query_one("SELECT 4", &[]).await?.get::<_, i32>(0);
    Ok(json!({ "outside": outside, "usable": usable, "inside": inside, "again": again }))
}

/// Prepares, says so, waits for a line, executes: the policy may have changed in between.
async fn held(client: &Client) -> Result<Value> {
    let statement = client.prepare("SELECT amount::text FROM orders WHERE id = $1").await?;
    let before = client.query_one(&statement, &[&1i32]).await?.get::<_, String>(0);
    println!("{}", json!({ "before": before }));
    let mut line = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await??;
    let after = client.query_one(&statement, &[&1i32]).await.map(|row| row.get::<_, String>(0));
    let other = error(client.query_one("SELECT 1", &[]).await);
    Ok(match after {
        Ok(value) => json!({ "after": value, "other": other }),
        Err(refused) => json!({ "refused": error::<()>(Err(refused)), "other": other }),
    })
}

async fn copy(client: &Client) -> Result<Value> {
    let mut sink = std::pin::pin!(client.copy_in::<_, bytes::Bytes>("COPY imports FROM STDIN").await?);
    sink.send(bytes::Bytes::from_static(b"1\tone\n2\tmail me: a.person@mail.example\n")).await?;
    let written = sink.finish().await?;
    let read =
        client.copy_out("COPY (SELECT id, email FROM customers ORDER BY id LIMIT 2) TO STDOUT").await?;
    let read: Vec<bytes::Bytes> = read.try_collect().await?;
    Ok(json!({ "written": written, "read": String::from_utf8_lossy(&read.concat()) }))
}

async fn cancel(client: &Client) -> Result<Value> {
    let token = client.cancel_token();
    let sleeping = client.query("SELECT pg_sleep(60)", &[]);
    let cancelling = async {
        // An early cancel is lost; whoever started this says when the server runs the statement.
        let mut line = String::new();
        tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await??;
        // It writes, closes and is gone, usually before anybody has accepted it.
        token.cancel_query(NoTls).await?;
        Ok::<_, anyhow::Error>(())
    };
    let (ended, cancelled) = tokio::join!(sleeping, cancelling);
    cancelled?;
    let ended = error(ended);
    Ok(json!({ "ended": ended, "after": client.query_one("SELECT 5", &[]).await?.get::<_, i32>(0) }))
}

/// A portal read in pieces.
async fn portal(client: &mut Client) -> Result<Value> {
    let transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT email FROM customers ORDER BY id", &[]).await?;
    let mut sizes = Vec::new();
    let mut clear = 0;
    loop {
        let rows = transaction.query_portal(&portal, 75).await?;
        clear += rows.iter().filter(|row| row.get::<_, String>(0).contains("@mail.example")).count();
        sizes.push(rows.len());
        if rows.len() < 75 {
            break;
        }
    }
    transaction.commit().await?;
    let text = client.simple_query("SELECT count(*) FROM customers").await?;
    let count = text.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(json!({ "sizes": sizes, "clear": clear, "count": count }))
}

/// The server's error, or null.
fn error<T>(result: Result<T, tokio_postgres::Error>) -> Value {
    let Err(error) = result else { return Value::Null };
    match error.as_db_error() {
        Some(said) => json!({
            "code": said.code().code(), "message": said.message(), "detail": said.detail(), "hint": said.hint(),
        }),
        None => json!({ "broken": error.to_string() }),
    }
}
