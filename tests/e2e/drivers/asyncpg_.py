"""asyncpg: what a client sees, as JSON."""
import asyncio, datetime, decimal, json
import asyncpg


async def main():
    said = {}
    pool = await asyncpg.create_pool(min_size=2, max_size=5)
    async with pool.acquire() as db:
        await db.execute("DROP TABLE IF EXISTS driver_asyncpg")
        await db.execute("CREATE TABLE driver_asyncpg (id int PRIMARY KEY, what text, many int[], at timestamptz, n numeric)")
        said["version"] = list(db.get_server_version()[:2])
        said["own pid"] = db.get_server_pid() == await db.fetchval("SELECT pg_backend_pid()")
        await db.execute("INSERT INTO driver_asyncpg VALUES ($1, $2, $3, $4, $5)", 1, "ünï", [1, None, 3],
                         datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), decimal.Decimal("1.50"))
        said["row"] = [repr(v) for v in (await db.fetchrow("SELECT * FROM driver_asyncpg")).values()]
        said["types"] = [repr(v) for v in (await db.fetchrow(
            "SELECT '{\"a\": 1}'::jsonb, '10.0.0.0/8'::inet, '1 day'::interval, '[1,5)'::int4range, 'NaN'::float8, '\\x00ff'::bytea, '{{1,2},{3,4}}'::int[]")).values()]
        statement = await db.prepare("SELECT $1::int + id FROM driver_asyncpg")
        said["prepared"] = [await statement.fetchval(n) for n in range(5)]
        said["attributes"] = [[a.name, a.type.name] for a in statement.get_attributes()]
        said["parameters"] = [p.name for p in statement.get_parameters()]
        await db.executemany("INSERT INTO driver_asyncpg (id, what) VALUES ($1, $2)", [(n, str(n)) for n in range(10, 200)])

        async def failing(name, text, *parameters):
            try:
                await db.fetch(text, *parameters)
            except asyncpg.PostgresError as error:
                said[f"error {name}"] = [type(error).__name__, error.sqlstate, error.message, error.detail, error.hint, error.position, error.constraint_name]

        await failing("duplicate", "INSERT INTO driver_asyncpg (id) VALUES (1)")
        await failing("column", "SELECT wrong FROM driver_asyncpg")
        await failing("division", "SELECT 1 / $1::int", 0)
        tx = db.transaction(isolation="serializable")
        await tx.start()
        await db.execute("DELETE FROM driver_asyncpg")
        try:
            async with db.transaction():
                await db.execute("SELECT 1 / 0")
        except asyncpg.DivisionByZeroError:
            said["inside"] = await db.fetchval("SELECT count(*) FROM driver_asyncpg")
        await tx.rollback()
        said["rolled back"] = await db.fetchval("SELECT count(*) FROM driver_asyncpg")
        async with db.transaction():
            total = 0
            async for row in db.cursor("SELECT id FROM driver_asyncpg ORDER BY id", prefetch=13):
                total += row[0]
            said["cursor"] = total
            cur = await db.cursor("SELECT id FROM driver_asyncpg ORDER BY id")
            said["portal"] = [[r[0] for r in await cur.fetch(2)], await cur.forward(3), [r[0] for r in await cur.fetch(1)]]
        await db.copy_records_to_table("driver_asyncpg", records=[(n, "copied") for n in range(1000, 3000)], columns=["id", "what"])
        import io
        out = io.BytesIO()
        said["copy out"] = await db.copy_from_query("SELECT id, what FROM driver_asyncpg WHERE id < $1 ORDER BY id", 20, output=out, format="csv")
        said["csv"] = out.getvalue().decode()
        heard = asyncio.Queue()
        listener = (lambda _, pid, channel, payload: heard.put_nowait([pid == db.get_server_pid(), channel, payload]))
        await db.add_listener("driver_news", listener)
        await db.execute("NOTIFY driver_news, 'hello'")
        said["notify"] = await asyncio.wait_for(heard.get(), 10)
        await db.remove_listener("driver_news", listener)
        try:
            await db.fetchval("SELECT pg_sleep(60)", timeout=1)
        except asyncio.TimeoutError:
            said["timeout"] = await db.fetchval("SELECT 6")
        await db.execute("ALTER TABLE driver_asyncpg ADD COLUMN later int")
        said["changed under a prepared statement"] = len(await db.fetchrow("SELECT * FROM driver_asyncpg LIMIT 1"))
        await db.execute("SET statement_timeout = '7s'")
    # The pool resets what it gets back.
    values = []
    for _ in range(6):
        async with pool.acquire() as db:
            values.append(await db.fetchval("SHOW statement_timeout"))
    said["reset"] = values

    async def one(n):
        async with pool.acquire() as db:
            return await db.fetchval("SELECT id FROM driver_asyncpg WHERE id = $1", n)

    said["many"] = sum(await asyncio.gather(*[one(n) for n in range(10, 110)]))
    await pool.execute("DROP TABLE driver_asyncpg")
    await pool.close()
    print(json.dumps(said))


asyncio.run(main())
