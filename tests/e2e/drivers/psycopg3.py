"""psycopg 3: what a client sees, as JSON. Run directly and through the gateway; both have to print the same."""
import datetime, decimal, json, threading, uuid
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

said = {}


def shown(value):
    return [type(value).__name__, str(value)]


with psycopg.connect(autocommit=True) as db:
    db.execute("DROP TABLE IF EXISTS driver_psycopg")
    db.execute("CREATE TABLE driver_psycopg (id int PRIMARY KEY, what text, many int[], doc jsonb, at timestamptz, n numeric)")
    said["encoding"] = db.info.encoding
    said["parameters"] = {name: db.info.parameter_status(name) for name in (
        "server_version", "server_encoding", "client_encoding", "standard_conforming_strings", "integer_datetimes",
        "DateStyle", "IntervalStyle", "TimeZone", "is_superuser", "application_name", "default_transaction_read_only")}
    # The number that clients cancel by, and compare notifications with, is the backend's.
    said["own pid"] = db.execute("SELECT pg_backend_pid()").fetchone()[0] == db.info.backend_pid
    row = (1, "ünïcode ' \" \\", [1, None, -3], Jsonb({"a": [1, "x"]}), datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc), decimal.Decimal("12345.678900"))
    db.execute("INSERT INTO driver_psycopg VALUES (%s, %s, %s, %s, %s, %s)", row)
    for binary in (False, True):
        cur = db.cursor(binary=binary)
        cur.execute("SELECT * FROM driver_psycopg")
        said[f"row {binary}"] = [shown(value) for value in cur.fetchone()]
        said[f"columns {binary}"] = [[c.name, c.type_code, c.internal_size, c.precision, c.scale] for c in cur.description]
        cur.execute("SELECT true, 1.5::float8, '\\xdeadbeef'::bytea, '{a,\"b c\",NULL}'::text[], '1 day 02:03'::interval, %s::uuid, '[1,5)'::int4range, NULL::int", (uuid.UUID(int=7),))
        said[f"types {binary}"] = [shown(value) for value in cur.fetchone()]
    for n in range(12):
        prepared = db.execute("SELECT %s::int + id FROM driver_psycopg", (n,), prepare=True).fetchone()
    said["prepared"] = prepared

    def failing(name, text, *parameters):
        try:
            db.execute(text, *parameters)
        except psycopg.Error as error:
            d = error.diag
            said[f"error {name}"] = [type(error).__name__, d.sqlstate, d.severity, d.message_primary, d.message_detail, d.message_hint,
                                     d.statement_position, d.schema_name, d.table_name, d.column_name, d.constraint_name]

    failing("function", "SELECT lower(1, 2)")
    failing("duplicate", "INSERT INTO driver_psycopg (id) VALUES (1)")
    failing("division", "SELECT 1 / %s", (0,))
    failing("position", "SELECT id,\n  wrong FROM driver_psycopg")
    failing("type", "SELECT %s::int", ("x",))
    said["status idle"] = db.info.transaction_status.name

    with db.transaction():
        db.execute("INSERT INTO driver_psycopg (id) VALUES (2)")
        try:
            with db.transaction():
                db.execute("INSERT INTO driver_psycopg (id) VALUES (2)")
        except psycopg.errors.UniqueViolation:
            said["savepoint"] = db.execute("SELECT count(*) FROM driver_psycopg").fetchone()[0]
    try:
        with db.transaction():
            db.execute("DELETE FROM driver_psycopg")
            raise ValueError
    except ValueError:
        said["rolled back"] = db.execute("SELECT count(*) FROM driver_psycopg").fetchone()[0]

    # libpq's pipeline mode, with an error in the middle.
    with db.pipeline() as pipeline:
        cursors = [db.execute("SELECT %s::int", (n,)) for n in range(50)]
        pipeline.sync()
        said["pipeline"] = sum(cur.fetchone()[0] for cur in cursors)
    # All of it is sent before any answer is read, whoever is quick.
    raw = db.pgconn
    raw.enter_pipeline_mode()
    for text in (b"INSERT INTO driver_psycopg (id) VALUES (3) RETURNING id", b"SELECT 1 / 0", b"INSERT INTO driver_psycopg (id) VALUES (4)"):
        raw.send_query_params(text, None)
    raw.pipeline_sync()
    while raw.flush():
        pass
    outcome = []
    while not outcome or outcome[-1][0] != "PIPELINE_SYNC":
        result = raw.get_result()
        if result is not None:
            state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
            outcome.append([psycopg.pq.ExecStatus(result.status).name, state and state.decode()])
    raw.exit_pipeline_mode()
    said["pipeline error"] = outcome
    said["after pipeline"] = [r[0] for r in db.execute("SELECT id FROM driver_psycopg ORDER BY id").fetchall()]

    with db.transaction(), db.cursor(name="held") as cur:
        cur.itersize = 7
        cur.execute("SELECT n FROM generate_series(1, 100) AS n")
        said["server cursor"] = sum(r[0] for r in cur)
    with db.transaction(), db.cursor(name="scrolled", scrollable=True) as cur:
        cur.execute("SELECT n FROM generate_series(1, 10) AS n")
        cur.scroll(5, mode="absolute")
        said["scroll"] = cur.fetchmany(2)
        cur.scroll(-2)
        said["scroll"] += cur.fetchmany(1)

    cur = db.cursor()
    with cur.copy("COPY driver_psycopg (id, what) FROM STDIN") as copy:
        for n in range(100, 1100):
            copy.write_row((n, f"row\t{n}\\"))
    with cur.copy("COPY driver_psycopg (id, what) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text"])
        copy.write_row((5000, None))
    for options in ("", "(FORMAT csv, HEADER)", "(FORMAT binary)"):
        with cur.copy(f"COPY (SELECT id, what FROM driver_psycopg WHERE id < 110 OR id = 5000 ORDER BY id) TO STDOUT {options}") as copy:
            said[f"copy out {options}"] = b"".join(bytes(part) for part in copy).hex()
    try:
        with cur.copy("COPY driver_psycopg (id) FROM STDIN") as copy:
            copy.write(b"not a number\n")
    except psycopg.Error as error:
        said["copy fails"] = [error.sqlstate, error.diag.context]
    try:
        with cur.copy("COPY driver_psycopg (id) FROM STDIN") as copy:
            copy.write(b"6000\n")
            raise ValueError("given up")
    except (ValueError, psycopg.Error) as error:
        said["copy given up"] = type(error).__name__
    said["copied"] = db.execute("SELECT count(*) FROM driver_psycopg").fetchone()[0]

    notices = []
    db.add_notice_handler(lambda notice: notices.append([notice.severity, notice.sqlstate, notice.message_primary]))
    db.execute("DROP TABLE IF EXISTS never_was_there")
    said["notices"] = notices

    db.execute("LISTEN driver_news")
    db.execute("NOTIFY driver_news, 'to myself'")
    with psycopg.connect(autocommit=True) as other:
        other.execute("SELECT pg_notify('driver_news', 'from afar')")
        pid = other.info.backend_pid
    heard = []
    for note in db.notifies():
        heard.append([note.channel, note.payload, {db.info.backend_pid: "self", pid: "other"}.get(note.pid)])
        if len(heard) == 2:
            break
    said["notifies"] = heard

    done = threading.Event()

    def cancel():
        while not done.wait(0.2):
            db.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    failing("cancel", "SELECT pg_sleep(60)")
    done.set()
    thread.join()
    said["after cancel"] = db.execute("SELECT 1").fetchone()

    # As pools do between users of a connection.
    db.execute("SET statement_timeout = '5s'")
    db.execute("CREATE TEMP TABLE mine (n int)")
    db.execute("DISCARD ALL")
    said["discarded"] = db.execute("SELECT current_setting('statement_timeout'), to_regclass('pg_temp.mine') IS NULL").fetchone()
    db.prepare_threshold = None
    said["large"] = len(db.execute("SELECT repeat('x', 5000000)").fetchone()[0])
    said["rows"] = sum(len(r[0]) for r in db.execute("SELECT repeat('y', 100) FROM generate_series(1, 20000)"))
    db.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("driver_psycopg")))
print(json.dumps(said))
