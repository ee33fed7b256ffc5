"""pg8000, which is pure Python with a protocol implementation of its own: what a client sees, as JSON."""
import datetime, decimal, io, json, os, ssl
import pg8000.dbapi, pg8000.native

said = {}
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
place = dict(user=os.environ["PGUSER"], password=os.environ["PGPASSWORD"], host=os.environ["PGHOST"], database=os.environ["PGDATABASE"], ssl_context=context)

db = pg8000.native.Connection(**place)
db.run("DROP TABLE IF EXISTS driver_pg8000")
db.run("CREATE TABLE driver_pg8000 (id int PRIMARY KEY, what text, many int[], at timestamptz, n numeric)")
db.run("INSERT INTO driver_pg8000 VALUES (:id, :what, :many, :at, :n)", id=1, what="ünï", many=[1, None, 3],
       at=datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), n=decimal.Decimal("1.50"))
said["row"] = repr(db.run("SELECT * FROM driver_pg8000"))
said["columns"] = [[c["name"], c["type_oid"]] for c in db.columns]
statement = db.prepare("SELECT id + :n ::int FROM driver_pg8000")
said["prepared"] = [statement.run(n=n) for n in range(5)]
statement.close()
for name, text in (("duplicate", "INSERT INTO driver_pg8000 (id) VALUES (1)"), ("column", "SELECT wrong FROM driver_pg8000"), ("division", "SELECT 1 / 0")):
    try:
        db.run(text)
    except pg8000.native.DatabaseError as error:
        said[f"error {name}"] = {k: v for k, v in error.args[0].items() if k in "SCMDHPtcn"}
said["several"] = repr(db.run("SELECT 1; SELECT 2"))
db.run("START TRANSACTION")
db.run("DELETE FROM driver_pg8000")
db.run("ROLLBACK")
said["rolled back"] = db.run("SELECT count(*) FROM driver_pg8000")
db.run("COPY driver_pg8000 (id, what) FROM STDIN WITH (FORMAT csv)", stream=io.BytesIO(b"10,a\n11,b\n"))
out = io.BytesIO()
db.run("COPY driver_pg8000 (id, what) TO STDOUT WITH (FORMAT csv)", stream=out)
said["copy"] = out.getvalue().decode()
db.run("LISTEN driver_news")
db.run("NOTIFY driver_news, 'hello'")
db.run("SELECT 1")
own = db.run("SELECT pg_backend_pid()")[0][0]
said["notify"] = [[pid == own, channel, payload] for pid, channel, payload in db.notifications]
db.run("DROP TABLE IF EXISTS never_was_there")
said["notices"] = [{k.decode(): v.decode() for k, v in n.items() if k in (b"S", b"C", b"M")} for n in db.notices]
db.run("DISCARD ALL")
db.close()

with pg8000.dbapi.connect(**place) as db:
    cur = db.cursor()
    cur.execute("SELECT what, id FROM driver_pg8000 WHERE id > %s ORDER BY id", (5,))
    said["dbapi"] = [list(row) for row in cur.fetchall()]
    cur.executemany("INSERT INTO driver_pg8000 (id) VALUES (%s)", [(n,) for n in range(100, 150)])
    db.commit()
    cur.execute("SELECT count(*) FROM driver_pg8000")
    said["count"] = cur.fetchone()[0]
    cur.execute("DROP TABLE driver_pg8000")
    db.commit()
print(json.dumps(said))
