//! What an application and its migrations do with sqlx: types, statements, transactions, errors, COPY, notifications,
//! `sqlx migrate` from the folder that is named. Says everything as JSON.

use std::{path::Path, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use sqlx::{
    Column, Connection, Either, Error, Executor, PgConnection, Row, TypeInfo,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgListener, PgPoolCopyExt, PgPoolOptions},
};

type Said<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Said<()> {
    // The place, who, and TLS come from PGHOST and its like.
    let options = PgConnectOptions::new();
    let mut db = PgConnection::connect_with(&options).await?;
    let mut said = serde_json::Map::new();
    let mut say = |what: &str, value: Value| said.insert(what.to_owned(), value);

    db.execute("DROP TABLE IF EXISTS driver_sqlx").await?;
    db.execute("CREATE TABLE driver_sqlx (id int PRIMARY KEY, what text NOT NULL, doc jsonb, raw bytea, many int8[])")
        .await?;
    for id in 1..=5_i32 {
        let done = sqlx::query("INSERT INTO driver_sqlx VALUES ($1, $2, $3, $4, $5)")
            .bind(id)
            .bind(format!("row {id}"))
            .bind(json!({ "n": id }))
            .bind(vec![0_u8, 255, u8::try_from(id)?])
            .bind(vec![Some(i64::from(id)), None])
            .execute(&mut db)
            .await?;
        assert_eq!(done.rows_affected(), 1);
    }
    let rows =
        sqlx::query("SELECT * FROM driver_sqlx WHERE id > $1 ORDER BY id").bind(2).fetch_all(&mut db).await?;
    let shown = rows.iter().map(|row| {
        let (doc, raw): (Value, Vec<u8>) = (row.get("doc"), row.get("raw"));
        json!([
            row.get::<i32, _>(0),
            row.get::<String, _>(1),
            doc,
            raw,
            row.get::<Vec<Option<i64>>, _>("many")
        ])
    });
    say("rows", shown.collect());
    let types = sqlx::query(
        "SELECT 1::int2, 2::int8, 3.5::float4, 4.25::float8, true, 'x'::varchar, NULL::int4, 'c'::\"char\"",
    )
    .fetch_one(&mut db)
    .await?;
    say("types", types.columns().iter().map(|column| column.type_info().name().to_owned()).collect());
    let missing: Option<i32> = types.get(6);
    say("null", json!(missing));

    // The client asks the server to explain the statement that it prepared: what may be NULL?
    let described = (&mut db).describe("SELECT id, what, doc FROM driver_sqlx WHERE id = $1").await?;
    say("nullable", (0..3).map(|at| described.nullable(at)).collect());
    say(
        "parameters",
        match described.parameters() {
            Some(Either::Left(types)) => types.iter().map(|of| of.name().to_owned()).collect(),
            other => json!(format!("{other:?}")),
        },
    );

    // Transactions, one inside the other.
    let mut outer = db.begin().await?;
    sqlx::query("UPDATE driver_sqlx SET what = 'kept' WHERE id = 1").execute(&mut *outer).await?;
    let mut inner = outer.begin().await?;
    sqlx::query("DELETE FROM driver_sqlx").execute(&mut *inner).await?;
    inner.rollback().await?;
    outer.commit().await?;
    let mut dropped = db.begin().await?;
    sqlx::query("DELETE FROM driver_sqlx").execute(&mut *dropped).await?;
    drop(dropped);
    say(
        "after transactions",
        json!(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM driver_sqlx").fetch_one(&mut db).await?),
    );

    for (what, sql) in [
        ("unique", "INSERT INTO driver_sqlx VALUES (1, 'again')"),
        ("null", "INSERT INTO driver_sqlx VALUES (9, NULL)"),
        ("division", "SELECT 1 / (id - 1) FROM driver_sqlx ORDER BY id"),
        ("syntax", "SELEC 1"),
        ("missing", "SELECT * FROM driver_sqlx_missing"),
    ] {
        let Err(Error::Database(error)) = sqlx::query(sql).fetch_all(&mut db).await else {
            return Err(format!("{what} works").into());
        };
        let error = json!([error.code(), error.constraint(), error.table(), error.is_unique_violation()]);
        say(&format!("error {what}"), error);
    }

    // Many statements in one text, and many rows of one.
    let mut results = db.execute_many("SELECT 1; UPDATE driver_sqlx SET doc = NULL; SELECT 2");
    let mut affected = Vec::new();
    while let Some(done) = results.try_next().await? {
        affected.push(done.rows_affected());
    }
    drop(results);
    say("many", json!(affected));
    let mut stream =
        sqlx::query_scalar::<_, String>("SELECT repeat('x', 100) FROM generate_series(1, 20000)")
            .fetch(&mut db);
    let mut total = 0;
    while let Some(text) = stream.try_next().await? {
        total += text.len();
    }
    drop(stream);
    say("streamed", json!(total));
    // Given up in the middle.
    let some: Vec<i32> = sqlx::query_scalar::<_, i32>("SELECT generate_series(1, 100000)")
        .fetch(&mut db)
        .take(3)
        .try_collect()
        .await?;
    say("given up", json!([some, sqlx::query_scalar::<_, i32>("SELECT 4").fetch_one(&mut db).await?]));

    let mut copy = db.copy_in_raw("COPY driver_sqlx (id, what) FROM STDIN (FORMAT csv)").await?;
    copy.send(&b"100,copied\n101,\"as, well\"\n"[..]).await?;
    say("copied in", json!(copy.finish().await?));
    let copy = db.copy_in_raw("COPY driver_sqlx (id, what) FROM STDIN").await?;
    copy.abort("no longer").await?;
    let out = db.copy_out_raw("COPY (SELECT id, what FROM driver_sqlx ORDER BY id) TO STDOUT").await?;
    let out: Vec<_> = out.try_collect().await?;
    say("copied out", json!(String::from_utf8(out.concat())?));

    let pool = PgPoolOptions::new().max_connections(3).connect_with(options).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("driver_sqlx_news").await?;
    sqlx::query("SELECT pg_notify('driver_sqlx_news', 'from afar')").execute(&pool).await?;
    let heard = tokio::time::timeout(Duration::from_secs(30), listener.recv()).await??;
    say("heard", json!([heard.channel(), heard.payload()]));
    drop(listener);
    let out: Vec<_> = pool.copy_out_raw("COPY (SELECT 1) TO STDOUT").await?.try_collect().await?;
    say("by the pool", json!(String::from_utf8(out.concat())?));

    let folder = std::env::args().nth(1).ok_or("the folder of migrations")?;
    let migrator = Migrator::new(Path::new(&folder)).await?;
    migrator.run(&pool).await?;
    migrator.run(&pool).await?;
    let of_table = "SELECT string_agg(attname || ' ' || attnotnull, ',' ORDER BY attnum) FROM pg_attribute \
        WHERE attrelid = to_regclass('driver_sqlx_migrated') AND attnum > 0 AND NOT attisdropped";
    say("migrated", json!(sqlx::query_scalar::<_, Option<String>>(of_table).fetch_one(&pool).await?));
    let done =
        "SELECT version || ' ' || description || ' ' || success FROM _sqlx_migrations ORDER BY version";
    say("migrations", json!(sqlx::query_scalar::<_, String>(done).fetch_all(&pool).await?));
    migrator.undo(&pool, 1).await?;
    say("undone", json!(sqlx::query_scalar::<_, Option<String>>(of_table).fetch_one(&pool).await?));
    migrator.undo(&pool, 0).await?;
    say("gone", json!(sqlx::query_scalar::<_, Option<String>>(of_table).fetch_one(&pool).await?));
    pool.execute("DROP TABLE _sqlx_migrations").await?;
    pool.close().await;

    db.execute("DROP TABLE driver_sqlx").await?;
    db.close().await?;
    println!("{}", Value::Object(said));
    Ok(())
}
